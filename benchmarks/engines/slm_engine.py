# SPDX-License-Identifier: Apache-2.0
"""slm through its public interface: one call of generate per measurement."""

import time
from typing import Any

import numpy as np

import slm
from engines import Question, Timing


class Engine:
    def __init__(self, path: str, threads: int, context: int, **options: Any) -> None:
        self.model = slm.load(path, threads=threads, context=context, **options)
        stats = self.model._core.stats()
        self.version = f"slm {slm.__version__}"
        self.settings: dict[str, Any] = {
            "cpu_info": slm.cpu_info(),
            "kv": stats["kv"],
            "packed_bytes_per_token": stats["token_bytes"],
        }

    def run(self, prompt: list[int], n_tokens: int) -> Timing:
        start = time.perf_counter()
        output = self.model.generate(prompt, max_tokens=n_tokens, ignore_eos=True)
        prefill = output.timings.prefill_seconds
        # the clock of the caller, so that making the Output counts as decoding
        return Timing(output.tokens, prefill, time.perf_counter() - start - prefill)

    def score(self, questions: list[Question]) -> list[list[float]]:
        scores = iter(self.model.score((question.context, choice) for question in questions for choice in question.choices))
        return [[next(scores).logprob for _ in question.choices] for question in questions]

    def logits(self, ids: list[int]) -> np.ndarray:
        return self.model.forward(ids, logits="all").logits
