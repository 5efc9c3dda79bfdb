# SPDX-License-Identifier: Apache-2.0
"""PyTorch through transformers, weights in bf16: a forward call and an argmax a token, without generate's own work."""

import time
from typing import Any

import torch
import transformers

from engines import Timing


class Engine:
    def __init__(self, path: str, threads: int, context: int) -> None:
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
        self.version = f"torch {torch.__version__}, transformers {transformers.__version__}"
        self.settings: dict[str, Any] = {"threads": threads, "attention": self.model.config._attn_implementation}

    @torch.inference_mode()
    def run(self, prompt: list[int], n_tokens: int) -> Timing:
        cache = transformers.DynamicCache(config=self.model.config)
        ids, tokens = torch.tensor([prompt]), []
        start = first = time.perf_counter()
        for i in range(n_tokens):
            logits = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1:].argmax(-1)
            tokens.append(int(ids))
            if i == 0:
                first = time.perf_counter()
        return Timing(tokens, first - start, time.perf_counter() - first)
