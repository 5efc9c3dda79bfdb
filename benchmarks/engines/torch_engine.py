# SPDX-License-Identifier: Apache-2.0
"""PyTorch through transformers, weights in bf16 or float32: a forward call and an argmax a token, without generate."""

import copy
import time
from typing import Any

import numpy as np
import torch
import transformers

from engines import Question, Timing, common


class Engine:
    def __init__(self, path: str, threads: int, context: int, dtype: str = "bfloat16") -> None:
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
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

    @torch.inference_mode()
    def score(self, questions: list[Question]) -> list[list[float]]:
        """A context runs from where it parts from the one before it; its choices are the rows of one batch, padded behind."""
        cache, held, found = transformers.DynamicCache(config=self.model.config), [], []
        for question in questions:
            *context, last = question.context
            kept = min(common(held, context), len(context) - 1)
            if held:
                cache.crop(kept)
            self.model(input_ids=torch.tensor([context[kept:]]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            held = context
            longest = max(map(len, question.choices))
            rows = torch.tensor([[last, *choice, *[0] * (longest - len(choice))] for choice in question.choices])
            shared = copy.deepcopy(cache)
            shared.batch_repeat_interleave(len(rows))
            logits = self.model(input_ids=rows[:, :-1], past_key_values=shared, use_cache=True).logits
            logprobs = logits.float().log_softmax(-1).gather(-1, rows[:, 1:, None])[..., 0]
            found.append([float(logprobs[i, : len(choice)].sum()) for i, choice in enumerate(question.choices)])
        return found

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> np.ndarray:
        return self.model(input_ids=torch.tensor([ids])).logits[0].float().numpy()
