# SPDX-License-Identifier: Apache-2.0
"""What calls return: small frozen records that print as one line."""

import os
from copy import deepcopy
from dataclasses import dataclass, field
from html import escape
from itertools import accumulate
from json import dumps
from time import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slm.html import captioned, coloured

FinishReason = Literal["stop", "length"]
Kind = Literal["chat.completion", "text_completion"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of tokens. prompt_tokens: all positions before the first generated token, cached ones among them.

    cut_tokens: by how many the prompt was shortened because it did not fit; 0 unless overflow= allows that.
    drafted_tokens: how many tokens were guessed, accepted_tokens: how many of those were right; 0 unless draft= asks for guesses.
    """

    prompt_tokens: int
    completion_tokens: int
    cut_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of one generation: prefill until the first token, decode for the rest.

    prefill_tokens: prompt tokens that were computed (a session keeps the others, in a batch another prompt may have run them);
    decode_tokens: generated tokens but the first. In a batch seconds are by the clock from where the prompt entered it, and the
    others run in them too: the batch makes all their tokens in the time that its call takes.
    """

    prefill_seconds: float
    decode_seconds: float
    prefill_tokens: int
    decode_tokens: int

    @property
    def prefill_tokens_per_second(self) -> float:
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        return self.decode_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0

    def __str__(self) -> str:
        prefill, decode = self.prefill_tokens_per_second, self.decode_tokens_per_second
        return (
            f"prompt {self.prefill_tokens} tokens in {self.prefill_seconds:.2f} s ({prefill:.0f} tokens/s), "
            f"then {self.decode_tokens} tokens in {self.decode_seconds:.2f} s ({decode:.0f} tokens/s)"
        )


@dataclass(frozen=True, slots=True)
class Logprob:
    """How likely a token was in its place.

    token:   its id
    logprob: ln of its probability by the model's own distribution, before penalties, temperature and the like, with constrain=
             over the tokens that may come there; None for the first token of an echoed prompt
    bytes:   its text, perhaps a part of a character; empty without a tokenizer
    top:     the likeliest tokens there, falling
    """

    token: int
    logprob: float | None
    bytes: bytes
    top: tuple["Logprob", ...] = ()

    @property
    def piece(self) -> str:
        """Its text; what is no whole character as U+FFFD."""
        return self.bytes.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants called. id: what the message with its result names as "tool_call_id"; drawn by chance."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: os.urandom(5).hex()[:9], compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class Output:
    """One finished generation; str() is its text.

    text:          without the stop string and without end tokens; with echo, behind the prompt
    tokens:        ids of the generated tokens, without the end token; with echo, behind those of the prompt
    logprobs:      of each of the tokens, if the call asked for them; else None
    finish_reason: "stop" (an end token or a stop string) or "length" (max_tokens, or the end of the context); None where an
                   exception, whose attribute `output` this then is, came before the end
    seed:          what to pass to get the same text again; of n answers, with n, in the same place
    kind:          "chat.completion", the answer of a conversation, or "text_completion"
    tool_calls:    of chat() and sessions with tools: what a finished answer calls, taken out of the text; what is no whole call
                   stays there
    """

    text: str
    tokens: list[int]
    logprobs: list[Logprob] | None = field(default=None, kw_only=True)
    finish_reason: FinishReason | None = field(kw_only=True)
    usage: Usage = field(kw_only=True)
    timings: Timings = field(kw_only=True)
    seed: int = field(kw_only=True)
    kind: Kind = field(default="text_completion", kw_only=True)
    tool_calls: list[ToolCall] = field(default_factory=list, kw_only=True)

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message of the conversation that goes on. Results of tools follow it, each a message with the role
        "tool", the call's id as "tool_call_id", and "content"."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": deepcopy(call.arguments)}}
                for call in self.tool_calls
            ]
        return message

    def to_openai(self, *, model: str = "slm") -> dict[str, Any]:
        """As the OpenAI client's model_dump() gives an answer, without the fields that would be None for every answer of slm, but
        refusal. model: what it is to name as its model.

        prompt_tokens_details.cached_tokens counts what a session, or another prompt of the batch, had already computed.
        """
        chat = self.kind == "chat.completion"
        said: dict[str, Any] = {"message": self.message | {"refusal": None}} if chat else {"text": self.text}
        finish_reason: str | None = self.finish_reason
        if self.tool_calls:
            said["message"]["content"] = self.text or None
            for call in said["message"]["tool_calls"]:
                call["function"]["arguments"] = dumps(call["function"]["arguments"], ensure_ascii=False)
            finish_reason = "tool_calls" if finish_reason == "stop" else finish_reason
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{os.urandom(16).hex()}",
            "object": self.kind,
            "created": int(time()),
            "model": model,
            "choices": [{"index": 0, **said, "logprobs": self._openai_logprobs(), "finish_reason": finish_reason}],
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
                "total_tokens": self.usage.total_tokens,
                "prompt_tokens_details": {"cached_tokens": self.usage.prompt_tokens - self.timings.prefill_tokens},
            },
        }

    def _openai_logprobs(self) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        if self.kind == "chat.completion":

            def entry(of: Logprob) -> dict[str, Any]:
                return {"token": of.piece, "logprob": of.logprob, "bytes": list(of.bytes)}

            content = [entry(of) | {"top_logprobs": [entry(other) for other in of.top]} for of in self.logprobs]
            return {"content": content, "refusal": None}
        pieces = [of.piece for of in self.logprobs]
        return {
            "text_offset": [0, *accumulate(map(len, pieces))][: len(pieces)],
            "token_logprobs": [of.logprob for of in self.logprobs],
            "tokens": pieces,
            "top_logprobs": [
                None if of.logprob is None else {other.piece: other.logprob for other in reversed(of.top)} for of in self.logprobs
            ],
        }

    def __str__(self) -> str:
        return self.text

    def __format__(self, spec: str) -> str:
        return format(self.text, spec)

    def _summary(self) -> str:
        rate = self.timings.decode_tokens_per_second
        cut = f", {self.usage.cut_tokens} prompt tokens cut" if self.usage.cut_tokens else ""
        return f"{len(self.tokens)} tokens{cut}, finish_reason={self.finish_reason!r}, seed={self.seed}, {rate:.1f} tokens/s"

    def __repr__(self) -> str:
        calls = "".join(f", calls {call.name}" for call in self.tool_calls)
        return f"Output({start_of(self.text)!r}{calls}, {self._summary()})"

    def _repr_html_(self) -> str:
        if self.logprobs and self.logprobs[-1].bytes:
            known = [(of.piece, of.logprob) for of in self.logprobs if of.logprob is not None]
            first = "" if len(known) == len(self.logprobs) else escape(self.logprobs[0].piece)
            html = first + coloured([piece for piece, _ in known], [logprob for _, logprob in known])
        else:
            html = escape(self.text)
        return captioned(html, self._summary())


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream: whole characters only; str() is its text.

    tokens: ids generated since the last chunk (their text may come in a later one); finish_reason: set in the last chunk;
    logprobs: of each of the tokens, if asked for.
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason | None = None
    logprobs: list[Logprob] | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, repr=False)
class Forward:
    """What one forward pass computed. logits: [n_tokens, vocab_size] f32, or [1, vocab_size] when only the last was asked for.
    activations: what was captured, by the names of the sites."""

    logits: NDArray[np.float32]
    activations: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __repr__(self) -> str:
        arrays = {"logits": self.logits} | self.activations
        return f"Forward({', '.join(f'{name}={array.dtype}{list(array.shape)}' for name, array in arrays.items())})"


@dataclass(frozen=True, slots=True, repr=False)
class Score:
    """What a model thinks of a continuation.

    logprob:        ln of its probability given its context: the sum of token_logprobs
    is_greedy:      is each token the likeliest where it stands (of equal ones, the lowest id)?
    token_logprobs: of each token, given the context and the tokens before it
    tokens:         ids of the continuation
    pieces:         the text of each of them, bytes that are no whole character as U+FFFD; empty without a tokenizer
    """

    logprob: float
    is_greedy: bool
    token_logprobs: list[float]
    tokens: list[int]
    pieces: list[str]

    def _summary(self) -> str:
        return f"logprob={self.logprob:.4f}, {len(self.tokens)} tokens{', greedy' if self.is_greedy else ''}"

    def __repr__(self) -> str:
        text = f"{start_of(''.join(self.pieces))!r}, " if self.pieces else ""
        return f"Score({text}{self._summary()})"

    def _repr_html_(self) -> str:
        return captioned(coloured(self.pieces or [f"{id} " for id in self.tokens], self.token_logprobs), self._summary())


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well a model predicts a text; see Model.perplexity().

    value:  exp(nll)
    stderr: its standard error by the delta method: value times that of nll, the tokens taken for independent; NaN for one token
    tokens: how many were scored
    nll:    their mean negative log-likelihood, in nat
    """

    value: float
    stderr: float
    tokens: int
    nll: float

    def __repr__(self) -> str:
        return f"Perplexity({self.value:.3f} ± {self.stderr:.3f}, {self.tokens} tokens)"


def start_of(text: str) -> str:
    """For one line of a notebook or a log."""
    return text if len(text) <= 60 else text[:57] + "..."
