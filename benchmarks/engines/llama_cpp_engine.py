# SPDX-License-Identifier: Apache-2.0
"""llama.cpp through the C interface of llama-cpp-python: no Python per token but one ctypes call and one argmax."""

import ctypes
import importlib.metadata
import time
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from engines import Timing


@lib.llama_log_callback
def discard_log(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    pass


class Engine:
    """Options: flash_attention=None leaves the library's default. Everything else is the default too, threads apart."""

    def __init__(self, path: str, threads: int, context: int, flash_attention: bool | None = None) -> None:
        lib.llama_log_set(discard_log, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = lib.llama_context_default_params()
        params.n_ctx = context
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        if flash_attention is not None:
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context")
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.version = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"
        self.settings: dict[str, Any] = {
            "system": lib.llama_print_system_info().decode().strip(),
            "n_batch": params.n_batch,
            "n_ubatch": params.n_ubatch,
            "flash_attn_type": lib.llama_flash_attn_type_name(params.flash_attn_type).decode(),
        }

    def feed(self, ids: list[int]) -> int:
        """Run these tokens and return the most likely next one."""
        tokens = (lib.llama_token * len(ids))(*ids)
        status = lib.llama_decode(self.context, lib.llama_batch_get_one(tokens, len(ids)))
        if status != 0:
            raise RuntimeError(f"llama_decode: status {status}")
        logits = lib.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax())

    def run(self, prompt: list[int], n_tokens: int) -> Timing:
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        start = time.perf_counter()
        tokens = [self.feed(prompt)]
        first = time.perf_counter()
        for _ in range(n_tokens - 1):
            tokens.append(self.feed(tokens[-1:]))
        return Timing(tokens, first - start, time.perf_counter() - first)
