# SPDX-License-Identifier: Apache-2.0
"""A GGUF writer for tests, which shares nothing with the product's reader. It remembers where it put each field, so that a
test can break exactly that one.

    write_gguf(path, {"general.architecture": ("string", "llama"), ...}, {"output_norm.weight": ("F32", (32,), array), ...})

Metadata: key -> (type, value), the type "uint32", "float32", "bool", "string", ... or "array of uint32", "array of string", ...
Tensors: name -> (type, row-major shape, bytes or an array that is written as it is). Checks nothing: tests need wrong files.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SCALARS = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}
TENSOR_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "BF16": 30, "MXFP4": 39}

Metadata = Mapping[str, tuple[str, Any]]
Tensors = Mapping[str, tuple[str, tuple[int, ...], Any]]


class File:
    """The bytes of a file, and `at`: name of a field -> its byte offset.

    Fields: magic, version, n_tensors, n_kv; per key k: "key k", "type k", "value k" (of arrays: "element type k", "length k",
    "value k"); per tensor t: "tensor t", "n_dims t", "dims t", "type of t", "offset t", "data t"; "data".
    """

    def __init__(self, metadata: Metadata, tensors: Tensors, *, version: int = 3, alignment: int = 32) -> None:
        self.at: dict[str, int] = {}
        self.bytes = bytearray()
        self._put("magic", b"GGUF")
        self._put("version", struct.pack("<I", version))
        self._put("n_tensors", struct.pack("<Q", len(tensors)))
        self._put("n_kv", struct.pack("<Q", len(metadata)))
        for key, (kind, value) in metadata.items():
            self._entry(key, kind, value)
        end = 0
        payloads = []
        for name, (kind, shape, data) in tensors.items():
            payload = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
            self._put(f"tensor {name}", string(name))
            self._put(f"n_dims {name}", struct.pack("<I", len(shape)))
            self._put(f"dims {name}", struct.pack(f"<{len(shape)}Q", *reversed(shape)))
            self._put(f"type of {name}", struct.pack("<I", TENSOR_TYPES[kind]))
            end += -end % alignment
            self._put(f"offset {name}", struct.pack("<Q", end))
            payloads.append((name, end, payload))
            end += len(payload)
        self.header_size = len(self.bytes)
        if payloads:
            self._pad(alignment)
        self.at["data"] = len(self.bytes)
        for name, offset, payload in payloads:
            self.bytes += bytes(self.at["data"] + offset - len(self.bytes))
            self._put(f"data {name}", payload)

    def edited(self, field: str, layout: str, *values: Any, skip: int = 0) -> bytes:
        """A copy with other bytes where the field begins, or `skip` bytes behind that."""
        copy = bytearray(self.bytes)
        struct.pack_into(layout, copy, self.at[field] + skip, *values)
        return bytes(copy)

    def _put(self, field: str, data: bytes) -> None:
        self.at[field] = len(self.bytes)
        self.bytes += data

    def _pad(self, alignment: int) -> None:
        self.bytes += bytes(-len(self.bytes) % alignment)

    def _entry(self, key: str, kind: str, value: Any) -> None:
        self._put(f"key {key}", string(key))
        element = kind.removeprefix("array of ")
        if element != kind:
            self._put(f"type {key}", struct.pack("<I", 9))
            self._put(f"element type {key}", struct.pack("<I", 8 if element == "string" else SCALARS[element][0]))
            self._put(f"length {key}", struct.pack("<Q", len(value)))
            if element == "string":
                self._put(f"value {key}", b"".join(map(string, value)))
            else:
                self._put(f"value {key}", struct.pack(f"<{len(value)}{SCALARS[element][1]}", *value))
        elif kind == "string":
            self._put(f"type {key}", struct.pack("<I", 8))
            self._put(f"value {key}", string(value))
        else:
            number, layout = SCALARS[kind]
            self._put(f"type {key}", struct.pack("<I", number))
            self._put(f"value {key}", struct.pack(f"<{layout}", value))


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def write_gguf(path: str | Path, metadata: Metadata, tensors: Tensors, **layout: int) -> File:
    file = File(metadata, tensors, **layout)
    Path(path).write_bytes(file.bytes)
    return file


def byte_alphabet() -> list[str]:
    """The characters by which byte-level BPE writes bytes 0 to 255: printable ones as themselves, the others from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def tiny_vocabulary() -> dict[str, tuple[str, Any]]:
    """259 tokens: end of text, all bytes, "th" and "the"."""
    tokens = ["<|endoftext|>", *byte_alphabet(), "th", "the"]
    return {
        "tokenizer.ggml.model": ("string", "gpt2"),
        "tokenizer.ggml.pre": ("string", "smollm"),
        "tokenizer.ggml.tokens": ("array of string", tokens),
        "tokenizer.ggml.token_type": ("array of int32", [3] + [1] * (len(tokens) - 1)),
        "tokenizer.ggml.merges": ("array of string", ["t h", "th e"]),
        "tokenizer.ggml.bos_token_id": ("uint32", 0),
        "tokenizer.ggml.eos_token_id": ("uint32", 0),
    }


def tiny_llama(
    *, layers: int = 1, hidden: int = 32, heads: int = 4, kv_heads: int = 2, intermediate: int = 64, tied: bool = True
) -> tuple[dict[str, tuple[str, Any]], dict[str, tuple[str, tuple[int, ...], Any]]]:
    """Metadata and F32 tensors of a random Llama that text and numbers can go through."""
    rng = np.random.default_rng(0)
    vocabulary = tiny_vocabulary()
    vocab_size = len(vocabulary["tokenizer.ggml.tokens"][1])
    kv_rows = hidden // heads * kv_heads
    metadata: dict[str, tuple[str, Any]] = {
        "general.architecture": ("string", "llama"),
        "general.name": ("string", "tiny"),
        "llama.block_count": ("uint32", layers),
        "llama.context_length": ("uint32", 128),
        "llama.embedding_length": ("uint32", hidden),
        "llama.feed_forward_length": ("uint32", intermediate),
        "llama.attention.head_count": ("uint32", heads),
        "llama.attention.head_count_kv": ("uint32", kv_heads),
        "llama.attention.layer_norm_rms_epsilon": ("float32", 1e-5),
        "llama.rope.freq_base": ("float32", 10_000.0),
        **vocabulary,
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (vocab_size, hidden), "output_norm": (hidden,)}
    if not tied:
        shapes["output"] = (vocab_size, hidden)
    for i in range(layers):
        shapes |= {
            f"blk.{i}.attn_norm": (hidden,),
            f"blk.{i}.attn_q": (hidden, hidden),
            f"blk.{i}.attn_k": (kv_rows, hidden),
            f"blk.{i}.attn_v": (kv_rows, hidden),
            f"blk.{i}.attn_output": (hidden, hidden),
            f"blk.{i}.ffn_norm": (hidden,),
            f"blk.{i}.ffn_gate": (intermediate, hidden),
            f"blk.{i}.ffn_up": (intermediate, hidden),
            f"blk.{i}.ffn_down": (hidden, intermediate),
        }
    tensors = {
        f"{name}.weight": ("F32", shape, rng.normal(1.0 if len(shape) == 1 else 0.0, 0.1, shape).astype("<f4"))
        for name, shape in shapes.items()
    }
    return metadata, tensors
