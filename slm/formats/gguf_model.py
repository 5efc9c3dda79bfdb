# SPDX-License-Identifier: Apache-2.0
"""A GGUF file, or several, as the model that a family reads."""

import builtins
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from slm.errors import quoted
from slm.formats.files import InputFile, Opener
from slm.formats.gguf import Value
from slm.formats.gguf_names import ALL_LAYERS, KEYS, NEUTRAL, TENSORS, VECTORS
from slm.formats.gguf_split import open_gguf
from slm.formats.model_files import ModelFiles
from slm.formats.report import REQUIRED

TOKENS = "tokenizer.ggml.tokens"


class GGUFModel(ModelFiles):
    """kind: general.architecture. gguf: the file itself. A field without a key in GGUF is absent."""

    is_gguf = True

    def __init__(self, path: str | os.PathLike[str], opener: Opener = InputFile) -> None:
        """Raises what open_gguf() does, and UnsupportedError for an adapter."""
        self.gguf = open_gguf(path, opener)
        self.path = self.gguf.path
        self.report = self.gguf.report
        self.tensors = self.gguf.tensors
        self._read: set[str] = set()
        self._vectors: set[str] = set()
        kind = self.gguf.metadata.get("general.type")
        if kind is not None and kind.value == b"adapter":
            self.close()
            how = "an adapter; load its model and give it to adapt()"
            raise self.report.unsupported("ADAPTER", kind.offset, "general.type", "a whole model", how)

    @property
    def kind(self) -> str:
        return self.gguf.get_string("general.architecture")

    @property
    def name(self) -> str:
        return self.gguf.get_string("general.name", default=os.path.splitext(os.path.basename(self.path))[0])

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return ()  # the vocabulary names them

    @property
    def file_bytes(self) -> int:
        return self.gguf.file_bytes

    def close(self) -> None:
        self.gguf.close()

    def check_size(self) -> None:
        self.gguf.check_size()

    # ---- configuration --------------------------------------------------------------------------------------------------------

    def is_null(self, name: str) -> builtins.bool:
        return False

    def uint(self, name: str, low: int = 0, high: int = 2**63, default: Any = REQUIRED) -> Any:
        if name == "vocab_size":
            return self._vocab_size(high)
        return self._get(self.gguf.get_uint, name, low, high, default=default)

    def float(self, name: str, low: float, high: float, default: Any = REQUIRED) -> Any:
        return self._get(self.gguf.get_float, name, low, high, default=default)

    def bool(self, name: str, default: Any = REQUIRED) -> Any:
        return self._get(self.gguf.get_bool, name, default=default)

    def string(self, name: str, default: Any = REQUIRED) -> Any:
        return self._get(self.gguf.get_string, name, default=default)

    def strings(self, name: str, count: int, default: Any = REQUIRED) -> Any:
        return default  # no key holds any

    def uints(self, name: str, count: int, high: int, default: Any = REQUIRED) -> Any:
        return default

    def floats(self, name: str, count: int, default: Any = REQUIRED) -> Any:
        tensor = VECTORS.get(name, "")
        info = self.gguf.tensors.get(tensor)
        if info is None:
            if default is REQUIRED:
                raise self.report.bad("TENSORS", None, tensor, f"a tensor [{count}]", "no such tensor")
            return default
        if info.shape != (count,):
            raise self.report.bad("TENSORS", info.header_offset, tensor, str([count]), list(info.shape))
        if info.type.name != "F32":
            raise self.report.unsupported("TYPES", info.header_offset, tensor, "F32", info.type.name)
        self._vectors.add(tensor)
        values = self.gguf.read_f32(info)
        if not (np.isfinite(values) & (values > 0)).all():
            raise self.report.bad("TENSORS", info.header_offset, tensor, f"{count} finite numbers above 0", "others")
        return values

    def bad(self, name: str, expected: str, found: Any) -> Exception:
        key = self._key(name)
        return self.report.bad("KEY_RANGE", self.gguf.offset_of(key), key, expected, found)

    def unsupported(self, name: str, expected: str, found: Any) -> Exception:
        key = self._key(name)
        return self.report.unsupported("KEY_UNHANDLED", self.gguf.offset_of(key), key, expected, found)

    def unknown_kind(self, known: str) -> Exception:
        key = "general.architecture"
        return self.report.unsupported("ARCHITECTURE", self.gguf.offset_of(key), key, known, quoted(self.kind))

    def refuse_unread(self) -> None:
        prefix = f"{self.kind}."
        for key, entry in self.gguf.metadata.items():
            if not key.startswith(prefix) or key in self._read:
                continue
            neutral = NEUTRAL.get(key.removeprefix(prefix), ())
            if entry.type.startswith("array") or entry.value not in neutral:
                expected = ", ".join(["no such key", *map(repr, neutral)])
                raise self.report.unsupported("KEY_UNHANDLED", entry.offset, quoted(key), expected, shown(entry))

    def _key(self, name: str) -> str:
        key = f"{self.kind}.{KEYS.get(name.replace(ALL_LAYERS, ''), name)}"
        self._read.add(key)
        return key

    def _get(self, getter: Callable[..., Any], name: str, *limits: Any, default: Any) -> Any:
        if name.replace(ALL_LAYERS, "") not in KEYS and default is not REQUIRED:
            return default
        return getter(self._key(name), *limits, default=default)

    def _vocab_size(self, high: int) -> int:
        """As many as there are tokens, with which the key must agree; else the key; else the rows of the embedding."""
        key = self._key("vocab_size")
        stated = self.gguf.get_uint(key, 1, high, default=None)
        if TOKENS in self.gguf.metadata:
            n_tokens = len(self.gguf.get_strings(TOKENS)[1]) - 1
            if stated not in (None, n_tokens):
                raise self.bad("vocab_size", f"{n_tokens}, the size of the vocabulary", stated)
            return n_tokens
        if stated is not None:
            return stated
        embedding = self.tensors.get(self.tensor_name("embed_tokens", None, "") + ".weight")
        if embedding is None:
            raise self.report.bad("KEY_MISSING", None, key, "a key, a vocabulary or an embedding to size it by", "none of them")
        return embedding.shape[0]

    # ---- tensors --------------------------------------------------------------------------------------------------------------

    def prefix_of(self, prefix: str, module: str) -> str:
        return ""

    def tensor_name(self, field: str, layer: int | None, module: str) -> str:
        place, names = "" if layer is None else f"blk.{layer}.", TENSORS[field]
        there = (name for name in names if f"{place}{name}.weight" in self.tensors) if len(names) > 1 else iter(names)
        return place + next(there, names[0])

    def is_known(self, tensor: str) -> builtins.bool:
        return tensor in self._vectors


def shown(entry: Value) -> str:
    if entry.type.startswith("array"):
        return entry.type
    return quoted(entry.value) if isinstance(entry.value, bytes) else repr(entry.value)
