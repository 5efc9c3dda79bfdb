# SPDX-License-Identifier: Apache-2.0
"""llama.cpp through the C interface of llama-cpp-python: no Python per token but one ctypes call and one argmax."""

import ctypes
import importlib.metadata
import time
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from engines import Question, Timing, common

MOST_CHOICES = 4  # of a question: sequences that share the cells of its context


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
        params.n_seq_max = MOST_CHOICES
        params.kv_unified = True
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
        tokens, most = (lib.llama_token * len(ids))(*ids), self.settings["n_batch"]
        for at in range(0, len(ids), most):
            piece = ctypes.cast(ctypes.byref(tokens, at * ctypes.sizeof(lib.llama_token)), ctypes.POINTER(lib.llama_token))
            status = lib.llama_decode(self.context, lib.llama_batch_get_one(piece, min(most, len(ids) - at)))
            if status != 0:
                raise RuntimeError(f"llama_decode: status {status}")
        logits = lib.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax())

    def decode(self, fed: list[tuple[int, int, int]]) -> np.ndarray:
        """Logits behind each of these tokens, given as (sequence, position, token), until the next call."""
        batch = lib.llama_batch_init(len(fed), 0, 1)
        batch.n_tokens = len(fed)
        for row, (sequence, position, token) in enumerate(fed):
            batch.token[row], batch.pos[row], batch.logits[row] = token, position, 1
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
        status = lib.llama_decode(self.context, batch)
        lib.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode: status {status}")
        return np.ctypeslib.as_array(lib.llama_get_logits(self.context), (len(fed), self.vocab_size))

    def run(self, prompt: list[int], n_tokens: int) -> Timing:
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        start = time.perf_counter()
        tokens = [self.feed(prompt)]
        first = time.perf_counter()
        for _ in range(n_tokens - 1):
            tokens.append(self.feed(tokens[-1:]))
        return Timing(tokens, first - start, time.perf_counter() - first)

    def score(self, questions: list[Question]) -> list[list[float]]:
        """A context runs from where it parts from the one before it; its choices are sequences of one batch that share it."""
        memory, held, found = lib.llama_get_memory(self.context), [], []
        for question in questions:
            *context, last = question.context
            kept = common(held, context)
            for sequence in range(MOST_CHOICES):
                lib.llama_memory_seq_rm(memory, sequence, kept if sequence == 0 else 0, -1)
            if context[kept:]:
                self.feed(context[kept:])
            held = context
            for sequence in range(1, len(question.choices)):
                lib.llama_memory_seq_cp(memory, 0, sequence, 0, -1)
            found.append(self.score_choices(len(context), [[last, *choice] for choice in question.choices]))
        return found

    def score_choices(self, at: int, choices: list[list[int]]) -> list[float]:
        """The last context token and the tokens of each choice, of which the last one is not fed."""
        fed = [(sequence, i, token) for sequence, choice in enumerate(choices) for i, token in enumerate(choice[:-1])]
        logits = self.decode([(sequence, at + i, token) for sequence, i, token in fed])
        largest = logits.max(axis=1, keepdims=True)
        total = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
        scores = [0.0] * len(choices)
        for row, (sequence, i, _) in enumerate(fed):
            scores[sequence] += float(logits[row, choices[sequence][i + 1]] - total[row])
        return scores

    def logits(self, ids: list[int]) -> np.ndarray:
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        return self.decode([(0, position, token) for position, token in enumerate(ids)])
