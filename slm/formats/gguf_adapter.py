# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters as GGUF files: general.type "adapter", adapter.type "lora", tensors <tensor of the model>.lora_a and .lora_b.

The factor is adapter.lora.alpha / rank, or 1 where alpha is 0 or absent. Of the token embedding lora_a is [tokens, rank].
Source: convert_lora_to_gguf.py and src/llama-adapter.cpp in the llama.cpp repository.
"""

import os

from slm.errors import quoted
from slm.formats.adapter_files import MAX_ALPHA, MAX_RANK, AdapterFiles, Pair, halves
from slm.formats.gguf_model import shown
from slm.formats.gguf_names import TENSORS
from slm.formats.gguf_split import open_gguf

KIND, ADAPTER, ALPHA = "general.type", "adapter.type", "adapter.lora.alpha"
SUFFIXES = ((".lora_a", ".lora_b"),)
HINT = "<tensor of the model>.lora_a and .lora_b alone"
EMBEDDING = f"{TENSORS['embed_tokens'][0]}.weight"


class GGUFAdapter(AdapterFiles):
    """Raises what open_gguf() does; UnsupportedError for adapters of another kind."""

    is_gguf = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._gguf = open_gguf(path)
        self.report = self._gguf.report
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._gguf.close()

    def check_size(self) -> None:
        self._gguf.check_size()

    def _read(self) -> None:
        gguf = self._gguf
        if KIND not in gguf.metadata:
            raise self.report.bad("KEY_MISSING", None, KIND, "'adapter'", "none: a model, no adapter")
        for key, expected in ((KIND, "adapter"), (ADAPTER, "lora")):
            found = gguf.get_string(key)
            if key == KIND and found == "model":
                raise self.report.unsupported("KEY_UNHANDLED", gguf.offset_of(key), key, "'adapter'", "'model': no adapter")
            if found != expected:
                raise self.report.unsupported("KEY_UNHANDLED", gguf.offset_of(key), key, quoted(expected), quoted(found))
        alpha = gguf.get_float(ALPHA, -MAX_ALPHA, MAX_ALPHA, 0.0)
        for key, entry in gguf.metadata.items():
            if key.startswith("adapter.") and key not in (ADAPTER, ALPHA):
                raise self.report.unsupported("KEY_UNHANDLED", entry.offset, quoted(key), "no such key", shown(entry))
        self.architecture = gguf.get_string("general.architecture")
        self.name = gguf.get_string("general.name", os.path.splitext(os.path.basename(gguf.path))[0])
        self.base = gguf.get_string("general.base_model.0.name", None)
        pairs = {}
        for module, (a, b, _) in halves(gguf.tensors, SUFFIXES, self.report, HINT).items():
            embeds = module == EMBEDDING
            rank = a.shape[1] if embeds else a.shape[0]
            if b.shape[1] != rank:
                shape = f"[rows, {rank}], as {quoted(a.name)} is {list(a.shape)}"
                raise self.report.bad("TENSORS", b.header_offset, f"tensor {quoted(b.name)}", shape, list(b.shape))
            if rank > MAX_RANK:
                raise self.report.limit("TENSORS", a.header_offset, f"rank of tensor {quoted(a.name)}", rank, MAX_RANK)
            pairs[module] = Pair(a, b, alpha / rank if alpha else 1.0, embeds)
        self.pairs = pairs
