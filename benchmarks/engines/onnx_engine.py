# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime GenAI on weights that its model builder has converted: two calls a token, as its own examples do."""

import importlib.metadata
import time
from typing import Any

import numpy as np
import onnxruntime_genai

from engines import Timing


class Engine:
    def __init__(self, path: str, threads: int, context: int) -> None:
        config = onnxruntime_genai.Config(path)
        config.overlay(f'{{"model": {{"decoder": {{"session_options": {{"intra_op_num_threads": {threads}}}}}}}}}')
        self.model = onnxruntime_genai.Model(config)
        self.context = context
        self.version = f"onnxruntime-genai {importlib.metadata.version('onnxruntime-genai')}"
        self.settings: dict[str, Any] = {
            "intra_op_num_threads": threads,
            "onnxruntime": importlib.metadata.version("onnxruntime"),
        }

    def run(self, prompt: list[int], n_tokens: int) -> Timing:
        params = onnxruntime_genai.GeneratorParams(self.model)
        params.set_search_options(max_length=self.context, min_length=len(prompt) + n_tokens, do_sample=False)
        generator = onnxruntime_genai.Generator(self.model, params)
        start = time.perf_counter()
        generator.append_tokens(np.array(prompt, np.int32))
        generator.generate_next_token()
        tokens = [int(generator.get_next_tokens()[0])]
        first = time.perf_counter()
        for _ in range(n_tokens - 1):
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        return Timing(tokens, first - start, time.perf_counter() - first)
