# SPDX-License-Identifier: Apache-2.0
"""CTranslate2 on weights that its converter has quantized to int8: one call of generate_batch a measurement."""

import json
import time
from pathlib import Path
from typing import Any

import ctranslate2

from engines import Timing


class Engine:
    def __init__(self, path: str, threads: int, context: int) -> None:
        self.generator = ctranslate2.Generator(path, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads)
        self.vocabulary = json.loads((Path(path) / "vocabulary.json").read_text(encoding="utf-8"))
        self.version = f"ctranslate2 {ctranslate2.__version__}"
        self.settings: dict[str, Any] = {"compute_type": self.generator.compute_type, "intra_threads": threads}

    def run(self, prompt: list[int], n_tokens: int) -> Timing:
        times = []

        def note(step: ctranslate2.GenerationStepResult) -> bool:
            times.append(time.perf_counter())
            return False

        words = [self.vocabulary[token] for token in prompt]
        start = time.perf_counter()
        result = self.generator.generate_batch(
            [words], max_length=n_tokens, min_length=n_tokens, include_prompt_in_result=False, callback=note
        )
        end = time.perf_counter()
        return Timing(result[0].sequences_ids[0], times[0] - start, end - times[0])
