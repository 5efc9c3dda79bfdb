# SPDX-License-Identifier: Apache-2.0
"""How far a model's next-token distributions are from a recorded reference, and the records of tests/data/reference.

A reference is two files: `<name>.json`, per prompt the token ids, 48 greedy tokens of an fp32 run of Transformers on the
dequantized weights, and its mean negative log-likelihood; `<name>.npz`, for every position of prompt + greedy tokens the 128
most likely next tokens (`<id>.token`) and their log-probabilities (`<id>.logprob`), most likely first.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "data" / "reference"


@dataclass(frozen=True)
class Reference:
    id: str
    text: str  # what is tokenized: the prompt, or the chat template around it
    prompt: str
    prompt_ids: list[int]
    greedy_ids: list[int]
    nll: float  # mean over all tokens but the first, in nat
    top_tokens: NDArray[np.int32]  # [n_tokens, 128]
    top_logprobs: NDArray[np.float32]  # [n_tokens, 128]

    @property
    def ids(self) -> list[int]:
        """The teacher-forced sequence."""
        return self.prompt_ids + self.greedy_ids

    @property
    def margins(self) -> NDArray[np.float64]:
        """[n_tokens] by how many nats the most likely next token leads the second."""
        return np.float64(self.top_logprobs[:, 0]) - self.top_logprobs[:, 1]


def load(name: str) -> list[Reference]:
    prompts = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return [
            Reference(
                **{key: p[key] for key in ("id", "text", "prompt", "prompt_ids", "greedy_ids", "nll")},
                top_tokens=arrays[f"{p['id']}.token"],
                top_logprobs=arrays[f"{p['id']}.logprob"],
            )
            for p in prompts
        ]


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = np.float64(logits) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(reference: Reference, logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """KL(reference || model) per position, in nat; logits [n_tokens, vocab_size].

    Over the recorded tokens the sum of p ln(p / q), plus P ln(P / Q) for the mass outside them, P = 1 - sum p, Q = 1 - sum q.
    """
    log_p = np.float64(reference.top_logprobs)
    log_q = np.take_along_axis(log_softmax(logits), reference.top_tokens, axis=1)
    p = np.exp(log_p)
    rest_p = np.maximum(1 - p.sum(axis=1), 0)  # rounding of the record may leave a little less than nothing
    rest_q = np.maximum(1 - np.exp(log_q).sum(axis=1), np.finfo(np.float64).tiny)
    rest = np.where(rest_p > 0, rest_p * np.log(np.maximum(rest_p, np.finfo(np.float64).tiny) / rest_q), 0)
    return (p * (log_p - log_q)).sum(axis=1) + rest


@dataclass(frozen=True)
class Agreement:
    mean_kl: float
    largest_kl: float
    same_top: float  # share of positions where the most likely token is the reference's
    same_top_clear: float  # the same where the reference's margin exceeds 0.5 nat
    n_positions: int
    n_clear: int
    nll_difference: float  # mean negative log-likelihood minus the reference's

    def __str__(self) -> str:
        return (
            f"mean KL {self.mean_kl:.3g}, largest {self.largest_kl:.3g}, same top token {100 * self.same_top:.2f} % of "
            f"{self.n_positions}, {100 * self.same_top_clear:.2f} % of {self.n_clear} clear ones, nll {self.nll_difference:+.5f}"
        )


def agreement(references: list[Reference], logits: list[NDArray[np.floating]]) -> Agreement:
    """All positions of all prompts together; logits[i] [n_tokens, vocab_size] belong to references[i]."""
    pairs = list(zip(references, logits, strict=True))
    kl = np.concatenate([divergence(r, q) for r, q in pairs])
    same = np.concatenate([q.argmax(axis=1) == r.top_tokens[:, 0] for r, q in pairs])
    clear = np.concatenate([r.margins > 0.5 for r in references])
    return Agreement(
        mean_kl=float(kl.mean()),
        largest_kl=float(kl.max()),
        same_top=float(same.mean()),
        same_top_clear=float(same[clear].mean()),
        n_positions=len(kl),
        n_clear=int(clear.sum()),
        nll_difference=float(np.mean([mean_nll(q, r.ids) - r.nll for r, q in pairs])),
    )


def mean_nll(logits: NDArray[np.floating], ids: list[int]) -> float:
    """Mean negative log-likelihood of ids[1:], each given what stands before it."""
    return float(-np.take_along_axis(log_softmax(logits[:-1]), np.array(ids[1:])[:, None], axis=1).mean())
