# SPDX-License-Identifier: Apache-2.0
"""Files that are not GGUF, or a model, are refused by name, byte and field.

Ids of hostile rows are those of a catalogue of real bugs in readers of such files: G the container, H the hyper-parameters, T the
vocabulary.
"""

import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gguf_writer import File, tiny_llama, write_gguf
from test_gguf import KINDS, MERGES, TOKENS, describe, lowest_free_descriptor

from slm import loader
from slm.errors import ClosedError, FormatError, LimitError, NumericsError, UnsupportedError
from slm.formats import cursor as cursors
from slm.formats.cursor import Cursor
from slm.formats.gguf import CODES, GGUF

MIB = 1 << 20


# ---- hostile files ------------------------------------------------------------------------------------------------------------


@dataclass
class Hostile:
    """One way to be wrong. edit: makes the bytes; at: name of the field in File.at, or a byte, or None when there is no place."""

    id: str
    edit: Callable[[], tuple[bytes | File, int | None]]
    code: str
    names: str
    error: type[Exception] = FormatError
    size: int = 0  # the file is this long, the rest of it a hole


def patch(at: str, layout: str, *values: Any, skip: int = 0, offset_at: str | None = None) -> Callable[[], tuple[bytes, int]]:
    """The tiny model with other bytes at a field; the error is expected there, or at another field."""

    def edit() -> tuple[bytes, int]:
        file = File(*tiny_llama())
        return file.edited(at, layout, *values, skip=skip), file.at[offset_at or at] + (skip if offset_at is None else 0)

    return edit


def change(metadata: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None, at: str | None = None) -> Any:
    """The tiny model with other or more keys and tensors; a value of None removes one. The error is expected at field `at`."""

    def edit() -> tuple[bytes, int | None]:
        old_metadata, old_tensors = tiny_llama()
        new_metadata = {k: v for k, v in (old_metadata | (metadata or {})).items() if v is not None}
        new_tensors = {k: v for k, v in (old_tensors | (tensors or {})).items() if v is not None}
        file = File(new_metadata, new_tensors)
        return bytes(file.bytes), None if at is None else file.at[at]

    return edit


def key(name: str, kind: str, value: Any) -> Any:
    return change({name: (kind, value)}, at=f"key {name}")


def raw(data: bytes, at: int) -> Callable[[], tuple[bytes, int]]:
    return lambda: (data, at)


def duplicate_key() -> tuple[bytes, int]:
    file = File({"a.a": ("uint8", 1), "a.b": ("uint8", 1)}, {})
    return file.edited("key a.b", "<Q3s", 3, b"a.a"), file.at["key a.b"]


def duplicate_tensor() -> tuple[bytes, int]:
    one = ("F32", (1,), bytes(4))
    file = File({}, {"a": one, "b": one})
    return file.edited("tensor b", "<Q1s", 1, b"a"), file.at["tensor b"]


def short_value() -> tuple[bytes, int]:
    file = File({"a": ("uint32", 1)}, {})
    return bytes(file.bytes[:-1]), file.at["value a"]


def short_array() -> tuple[bytes, int]:
    file = File({"a": ("array of int32", [1, 2, 3])}, {})
    return bytes(file.bytes[:-1]), file.at["length a"]


def last_byte_missing() -> tuple[bytes, int]:
    file = File(*tiny_llama())
    return bytes(file.bytes[:-1]), file.at["offset blk.0.ffn_down.weight"]


def long_key() -> tuple[bytes, int]:
    file = File({"k" * 65_536: ("uint8", 1)}, {})
    return bytes(file.bytes), 24


Q = "blk.0.attn_q.weight"
K = "blk.0.attn_k.weight"
NAME = "general.name"
BLOCKS = "llama.block_count"
HEADS = "llama.attention.head_count"
NAN, INFINITY = float("nan"), float("inf")

HOSTILE = [
    # container
    Hostile("G1", patch("n_kv", "<Q", 2**61), "COUNT", "n_kv"),
    Hostile("G1-limit", patch("n_kv", "<Q", 65_537), "LIMIT", "n_kv", LimitError, size=4 * MIB),
    Hostile("G2", patch("n_tensors", "<Q", 2**60), "COUNT", "n_tensors"),
    Hostile("G2-limit", patch("n_tensors", "<Q", 65_537), "LIMIT", "n_tensors", LimitError, size=4 * MIB),
    Hostile("G3", patch(f"length {KINDS}", "<Q", 2**62), "COUNT", KINDS),
    Hostile("G3-strings", patch(f"length {TOKENS}", "<Q", 2**61), "COUNT", TOKENS),
    Hostile("G3-limit", patch(f"length {KINDS}", "<Q", (16 << 20) + 1), "LIMIT", KINDS, LimitError, size=80 * MIB),
    Hostile("G4", patch(f"value {NAME}", "<Q", 2**64 - 1), "COUNT", NAME),
    Hostile("G4-key", patch(f"key {NAME}", "<Q", 2**64 - 1), "COUNT", "key 1"),
    Hostile("G4-element", patch(f"value {TOKENS}", "<Q", 2**64 - 1), "COUNT", f"{TOKENS}'[0]"),
    Hostile("G4-limit", patch(f"value {NAME}", "<Q", (16 << 20) + 1), "LIMIT", NAME, LimitError, size=20 * MIB),
    Hostile("G4-element-limit", patch(f"value {MERGES}", "<Q", (16 << 20) + 1), "LIMIT", MERGES, LimitError, size=20 * MIB),
    Hostile("G5", patch(f"n_dims {Q}", "<I", 5), "TENSOR_DIMS", Q),
    Hostile("G5-huge", patch(f"n_dims {Q}", "<I", 2**32 - 1), "TENSOR_DIMS", Q),
    Hostile("G5-none", patch(f"n_dims {Q}", "<I", 0), "TENSOR_DIMS", Q),
    Hostile("G6", patch(f"dims {Q}", "<QQ", 2**31, 2**31, offset_at=f"offset {Q}"), "TENSOR_RANGE", Q),
    Hostile("G7", patch(f"offset {Q}", "<Q", 2**64 - 32), "TENSOR_RANGE", Q),
    Hostile("G8", patch(f"dims {Q}", "<QQ", 2**33, 2**33, offset_at=f"offset {Q}"), "TENSOR_RANGE", Q),
    Hostile("G8-block", change(tensors={"x": ("Q8_0", (1, 33), bytes(68))}, at="dims x"), "TENSOR_BLOCK", "'x'"),
    Hostile("G9", patch(f"offset {Q}", "<Q", 2**64 - 4096), "TENSOR_RANGE", Q),
    *[
        Hostile(f"G10-{value}", key("general.alignment", "uint32", value), "ALIGNMENT", "general.alignment")
        for value in (0, 3, 4, 48, 1 << 17, 1 << 31)
    ],
    Hostile("G10-type", key("general.alignment", "uint64", 32), "ALIGNMENT", "general.alignment"),
    Hostile("G10-string", key("general.alignment", "string", "32"), "ALIGNMENT", "general.alignment"),
    Hostile("G11", patch(f"dims {Q}", "<Q", 0, skip=8), "TENSOR_DIMS", Q),
    Hostile("G12", patch(f"type of {Q}", "<I", 99), "TENSOR_TYPE", Q, UnsupportedError),
    Hostile("G12-withdrawn", patch(f"type of {Q}", "<I", 4), "TENSOR_TYPE", Q, UnsupportedError),
    Hostile("G13", last_byte_missing, "TENSOR_RANGE", "blk.0.ffn_down.weight"),
    Hostile("G14", patch(f"length {TOKENS}", "<Q", 1 << 40), "COUNT", TOKENS),
    Hostile("G14-empty", raw(b"", 0), "MAGIC", "magic"),
    Hostile("G14-value", short_value, "TRUNCATED", "key 'a'"),
    Hostile("G14-array", short_array, "COUNT", "key 'a'"),
    Hostile("G15", patch(f"offset {K}", "<Q", 0), "TENSOR_OVERLAP", K),
    Hostile("G16", key("", "uint8", 1), "KEY", "key"),
    Hostile("G16-long", long_key, "KEY", "key 0"),
    Hostile("G16-encoding", patch(f"key {NAME}", "<2s", b"\xff\xfe", skip=8, offset_at=f"key {NAME}"), "KEY", "key 1"),
    Hostile("G16-tensor", change(tensors={"": ("F32", (1,), bytes(4))}, at="tensor "), "TENSOR_NAME", "name of tensor"),
    Hostile(
        "G16-tensor-long", change(tensors={"x" * 65: ("F32", (1,), bytes(4))}, at="tensor " + "x" * 65), "TENSOR_NAME", "name"
    ),
    Hostile("G16-tensor-encoding", patch(f"tensor {Q}", "<B", 0x80, skip=8, offset_at=f"tensor {Q}"), "TENSOR_NAME", "name"),
    Hostile("G17", patch(f"element type {TOKENS}", "<I", 9), "NESTED", TOKENS),
    Hostile("G18-strings", key(BLOCKS, "array of string", ["1"]), "KEY_TYPE", BLOCKS),
    Hostile("G18-float", key(BLOCKS, "float32", 1.0), "KEY_TYPE", BLOCKS),
    Hostile("G18-bool", key(BLOCKS, "bool", True), "KEY_TYPE", BLOCKS),
    Hostile("G18-tokens", key(TOKENS, "array of uint32", [1, 2]), "KEY_TYPE", TOKENS),
    Hostile("G18-kinds", key(KINDS, "array of float32", [1.0] * 259), "KEY_TYPE", KINDS),
    Hostile("G18-eps", key("llama.attention.layer_norm_rms_epsilon", "string", "x"), "KEY_TYPE", "epsilon"),
    Hostile("G18-add-bos", key("tokenizer.ggml.add_bos_token", "uint8", 1), "KEY_TYPE", "add_bos_token"),
    Hostile("G18-value", patch(f"type {BLOCKS}", "<I", 13, offset_at=f"type {BLOCKS}"), "VALUE_TYPE", BLOCKS),
    Hostile("G18-element", patch(f"element type {KINDS}", "<I", 99), "VALUE_TYPE", KINDS),
    Hostile("G18-text", key("tokenizer.chat_template", "string", b"\xff"), "VALUE", "tokenizer.chat_template"),
    Hostile("G19-magic", patch("magic", "<4s", b"PK\3\4"), "MAGIC", "magic"),
    *[Hostile(f"G19-v{n}", patch("version", "<I", n), "VERSION", "version", UnsupportedError) for n in (0, 1, 4, 2**32 - 1)],
    Hostile("G19-big-endian", patch("version", ">I", 3), "BYTE_ORDER", "version", UnsupportedError),
    Hostile("G19-key", duplicate_key, "KEY_DUPLICATE", "'a.a'"),
    Hostile("G19-tensor", duplicate_tensor, "TENSOR_DUPLICATE", "'a'"),
    Hostile("G20", patch("n_kv", "<Q", 65_536), "COUNT", "n_kv"),
    Hostile("misaligned", patch(f"offset {K}", "<Q", 33), "TENSOR_OFFSET", K),
    # hyper-parameters
    Hostile("H1-heads", key("llama.attention.head_count", "uint32", 0), "KEY_RANGE", "head_count"),
    Hostile("H1-kv-heads", key("llama.attention.head_count_kv", "uint32", 0), "KEY_RANGE", "head_count_kv"),
    Hostile("H1-group", key("llama.attention.head_count_kv", "uint32", 3), "KEY_RANGE", "head_count_kv"),
    Hostile("H1-divisor", change({HEADS: ("uint32", 5), f"{HEADS}_kv": ("uint32", 5)}, at=f"key {HEADS}"), "KEY_RANGE", HEADS),
    Hostile("H1-experts", key("llama.expert_count", "uint32", 8), "KEY_UNHANDLED", "expert_count", UnsupportedError),
    Hostile("H2", key("llama.attention.key_length", "uint32", 7), "KEY_UNHANDLED", "key_length", UnsupportedError),
    Hostile("H3", key(BLOCKS, "uint32", 1025), "KEY_RANGE", BLOCKS, LimitError),
    Hostile("H4", key("llama.context_length", "uint64", 2**63), "KEY_RANGE", "context_length", LimitError),
    Hostile("H5-vocab", key("llama.vocab_size", "uint32", 260), "KEY_RANGE", "vocab_size"),
    Hostile("H5-shape", change(tensors={Q: ("F32", (32, 16), bytes(2048))}), "TENSORS", "tensors"),
    Hostile("H5-rows", change(tensors={"token_embd.weight": ("F32", (260, 32), bytes(33_280))}), "TENSORS", "tensors"),
    Hostile("H5-missing", change(tensors={Q: None}), "TENSORS", "tensors"),
    Hostile("H5-unknown", change(tensors={"blk.0.attn_sinks.weight": ("F32", (4,), bytes(16))}), "TENSORS", "", UnsupportedError),
    Hostile("H5-rotary", key("llama.rope.dimension_count", "uint32", 10), "KEY_RANGE", "dimension_count"),
    Hostile("H5-odd-rotary", key("llama.rope.dimension_count", "uint32", 7), "KEY_RANGE", "dimension_count"),
    Hostile("H5-value-dim", key("llama.attention.value_length", "uint32", 4), "KEY_UNHANDLED", "value_length", UnsupportedError),
    *[
        Hostile(f"H6-eps-{value}", key("llama.attention.layer_norm_rms_epsilon", "float32", value), "KEY_RANGE", "epsilon")
        for value in (0.0, -1.0, 1.0, NAN, INFINITY)
    ],
    *[
        Hostile(f"H6-base-{value}", key("llama.rope.freq_base", "float32", value), "KEY_RANGE", "freq_base")
        for value in (0.0, 1.0, -10_000.0, NAN, INFINITY)
    ],
    Hostile("H7-scaling", key("llama.rope.scaling.type", "string", "su"), "KEY_UNHANDLED", "rope.scaling", UnsupportedError),
    Hostile("H7-linear", key("llama.rope.scale_linear", "float32", 2.0), "KEY_UNHANDLED", "scale_linear", UnsupportedError),
    Hostile("H7-unknown", key("llama.logit_scale", "float32", 2.0), "KEY_UNHANDLED", "logit_scale", UnsupportedError),
    Hostile("H7-clamp", key("llama.attention.clamp_kqv", "float32", 8.0), "KEY_UNHANDLED", "clamp_kqv", UnsupportedError),
    Hostile(
        "H7-factors",
        change(tensors={"rope_freqs.weight": ("F32", (4,), bytes(16))}, at="tensor rope_freqs.weight"),
        "TENSORS",
        "rope_freqs.weight",
    ),
    Hostile("H7-missing", change({BLOCKS: None}), "KEY_MISSING", BLOCKS),
    Hostile("H7-type", change(tensors={Q: ("MXFP4", (32, 32), bytes(544))}, at=f"tensor {Q}"), "TYPES", "", UnsupportedError),
    Hostile("architecture", key("general.architecture", "string", "mamba"), "ARCHITECTURE", "architecture", UnsupportedError),
    Hostile("no-architecture", change({"general.architecture": None}), "KEY_MISSING", "general.architecture"),
    # vocabulary
    Hostile("T1", key(MERGES, "array of string", ["x" * 8194]), "LIMIT", MERGES, LimitError),
    Hostile("T1-piece", key(TOKENS, "array of string", ["x" * 4097] * 259), "LIMIT", TOKENS, LimitError),
    Hostile("T3", key("tokenizer.ggml.eos_token_id", "uint32", 259), "KEY_RANGE", "eos_token_id"),
    Hostile("T3-eot", key("tokenizer.ggml.eot_token_id", "uint32", 2**32 - 1), "KEY_RANGE", "eot_token_id"),
    Hostile("T3-negative", key("tokenizer.ggml.eos_token_id", "int32", -1), "KEY_RANGE", "eos_token_id"),
    Hostile("T4", key(KINDS, "array of uint8", [1] * 258), "KEY_RANGE", KINDS),
    Hostile("T4-kind", key(KINDS, "array of int32", [1] * 258 + [7]), "KEY_RANGE", f"{KINDS}[258]"),
    Hostile(
        "T9",
        change(
            {"tokenizer.ggml.add_bos_token": ("bool", True), "tokenizer.ggml.bos_token_id": None},
            at="key tokenizer.ggml.add_bos_token",
        ),
        "KEY_MISSING",
        "add_bos_token",
    ),
    Hostile("T11-merges", change({MERGES: None}), "KEY_MISSING", MERGES),
    Hostile("T13", key("tokenizer.ggml.pre", "string", "x"), "PRETOKENIZER", "tokenizer.ggml.pre", UnsupportedError),
    Hostile("T13-none", change({"tokenizer.ggml.pre": None}), "PRETOKENIZER", "tokenizer.ggml.pre", UnsupportedError),
    Hostile("tokenizer", key("tokenizer.ggml.model", "string", "rwkv"), "TOKENIZER", "tokenizer.ggml.model", UnsupportedError),
    Hostile("no-tokens", change({TOKENS: None}), "KEY_MISSING", TOKENS),
    Hostile("empty-tokens", key(TOKENS, "array of string", []), "KEY_RANGE", TOKENS),
]


@pytest.mark.parametrize("row", HOSTILE, ids=lambda row: row.id)
def test_hostile_file_is_refused(tmp_path, row):
    data, offset = row.edit()
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    if row.size:
        os.truncate(path, row.size)
    free = lowest_free_descriptor()
    tracemalloc.start()
    start = time.thread_time()
    try:
        with pytest.raises(row.error) as caught:
            describe(path)
        seconds = time.thread_time() - start
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    error = caught.value
    assert type(error) is row.error
    assert error.code == f"GGUF_{row.code}"
    assert error.offset == offset
    assert row.names in error.field
    assert error.path == path
    assert error.format == "GGUF"
    message = str(error)
    assert message.startswith(f"{path}: {CODES[row.code]}")
    assert message.endswith(f"[{error.code}]")
    assert offset is None or f"at byte {offset:#x}" in message
    assert message.isprintable()
    assert len(message) < 1000
    assert seconds < 0.1
    assert memory < path.stat().st_size + 16 * MIB
    assert lowest_free_descriptor() == free


def test_every_code_is_raised_by_some_test():
    elsewhere = {"CHANGED", "VOCABULARY", "SPLIT_NAME", "SPLIT_MISSING", "SPLIT_FOREIGN", "ADAPTER", "FOREIGN", "NUMBERS"}
    assert {row.code for row in HOSTILE} | elsewhere == set(CODES)
    assert {f"G{n}" for n in range(1, 21)} | {f"H{n}" for n in range(1, 8)} <= {row.id.split("-")[0] for row in HOSTILE}


def test_all_wrong_tensors_are_named_together(tmp_path):
    metadata, tensors = tiny_llama()
    del tensors[Q]
    tensors |= {K: ("F32", (8, 32), bytes(1024)), "evil\x1b[2J": ("F32", (1,), bytes(4))}
    write_gguf(tmp_path / "x.gguf", metadata, tensors)
    with pytest.raises(FormatError) as caught:
        describe(tmp_path / "x.gguf")
    assert f"found missing: {Q} [32, 32]; of the wrong shape: {K} [8, 32] instead of [16, 32]; unexpected: 'evil\\x1b[2J'" in str(
        caught.value
    )


def test_many_wrong_tensors_make_a_short_message(tmp_path):
    metadata, tensors = tiny_llama()
    write_gguf(tmp_path / "x.gguf", metadata | {BLOCKS: ("uint32", 1024)}, tensors)
    with pytest.raises(FormatError, match=r"and 9199 more") as caught:
        describe(tmp_path / "x.gguf")
    assert len(str(caught.value)) < 1000


def test_a_header_larger_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cursors, "FIRST_READ", 1024)
    monkeypatch.setattr(cursors, "MAX_HEADER", 4096)
    write_gguf(tmp_path / "x.gguf", {"many": ("array of string", ["x" * 100] * 50)}, {})
    with pytest.raises(LimitError, match="header up to the end of") as caught:
        GGUF(tmp_path / "x.gguf")
    assert caught.value.maximum == 4096


def test_a_file_that_changes(tmp_path):
    path = tmp_path / "x.gguf"
    write_gguf(path, *tiny_llama())
    with GGUF(path) as gguf:
        gguf.check_size()
        os.truncate(path, 100)
        with pytest.raises(FormatError, match=r"file size.*expected 75360 bytes, found 100 \[GGUF_CHANGED\]"):
            gguf.check_size()
        with pytest.raises(FormatError, match="GGUF_CHANGED"):
            Cursor(partial(os.pread, gguf.fileno()), 75_360, gguf.report).take(200, "x")


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        GGUF(tmp_path / "none.gguf")
    with pytest.raises(UnsupportedError, match="found a folder"):
        GGUF(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsupportedError, match="regular file"):
        GGUF(tmp_path / "pipe")


def test_a_closed_file_says_so(tmp_path):
    write_gguf(tmp_path / "x.gguf", *tiny_llama())
    gguf = GGUF(tmp_path / "x.gguf")
    gguf.close()
    gguf.close()
    with pytest.raises(ClosedError):
        gguf.fileno()


# ---- sweeps over a whole header -----------------------------------------------------------------------------------------------


def small_model() -> File:
    """A header of about 2 KB with every kind of field in it."""
    metadata, tensors = tiny_llama()
    metadata |= {
        TOKENS: ("array of string", ["<|endoftext|>", "a", "b", "ab"]),
        KINDS: ("array of int32", [3, 1, 1, 1]),
        MERGES: ("array of string", ["a b"]),
        "general.alignment": ("uint32", 32),
        "tokenizer.ggml.add_bos_token": ("bool", True),
    }
    tensors["token_embd.weight"] = ("F32", (4, 32), bytes(512))
    return File(metadata, tensors)


def outcome(path: Path) -> str:
    """What becomes of a file, in less than 100 ms of CPU time (the clock on the wall also counts the machine's other work)."""
    error = None
    start = time.thread_time()
    try:
        describe(path)
    except (FormatError, UnsupportedError, LimitError) as caught:
        error = caught
    assert time.thread_time() - start < 0.1
    if error is None:
        return "accepted"
    assert error.code
    assert str(error).isprintable()
    return type(error).__name__


def run(path: Path) -> str:
    """What was accepted must load and compute; a vocabulary may still contradict itself, and numbers may overflow."""
    try:
        opened = loader.open_model(path, context=4, threads=1)
        opened.core.session().forward([0, 1, 2, 3])
    except (FormatError, NumericsError) as error:
        return type(error).__name__
    return "ran"


def test_the_small_model_is_accepted(tmp_path):
    (tmp_path / "x.gguf").write_bytes(small_model().bytes)
    assert outcome(tmp_path / "x.gguf") == "accepted"
    assert run(tmp_path / "x.gguf") == "ran"


def test_truncation_at_every_byte_of_the_header(tmp_path):
    file = small_model()
    path = tmp_path / "x.gguf"
    path.write_bytes(file.bytes)
    for size in range(file.header_size, -1, -1):
        os.truncate(path, size)
        assert outcome(path) == "FormatError", size


def test_every_single_bit_flip_of_the_header(tmp_path):
    file = small_model()
    path = tmp_path / "x.gguf"
    path.write_bytes(file.bytes)
    seen: dict[str, int] = {}
    with open(path, "r+b", buffering=0) as target:
        for index in range(file.header_size):
            for bit in range(8):
                os.pwrite(target.fileno(), bytes([file.bytes[index] ^ 1 << bit]), index)
                result = outcome(path)
                if result == "accepted":
                    run(path)
                seen[result] = seen.get(result, 0) + 1
            os.pwrite(target.fileno(), file.bytes[index : index + 1], index)
    print(seen)
    assert sum(seen.values()) == 8 * file.header_size
    assert set(seen) == {"accepted", "FormatError", "UnsupportedError", "LimitError"}


BOUNDARIES = [0, 1, 2, *[2**k + d for k in (7, 8, 15, 16, 31, 32, 63) for d in (-1, 0, 1)], 2**64 - 1]


def test_boundary_values_in_every_integer_field(tmp_path):
    file = small_model()
    path = tmp_path / "x.gguf"
    for name, at in file.at.items():
        width = 4 if name.startswith(("version", "type", "element type", "n_dims")) else 8
        if name.startswith(("magic", "data")) or at + width > file.header_size:
            continue
        for value in BOUNDARIES:
            copy = bytearray(file.bytes)
            copy[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
            path.write_bytes(copy)
            outcome(path)


def test_time_is_proportional_to_the_size(tmp_path):
    """The densest headers there can be: a key or tensor in every few bytes."""
    for metadata, tensors in (
        ({f"{i:x}": ("uint8", 1) for i in range(65_536)}, {}),
        ({}, {f"{i:x}": ("F32", (1,), bytes(4)) for i in range(65_536)}),
    ):
        write_gguf(tmp_path / "x.gguf", metadata, tensors)
        start = time.thread_time()
        with GGUF(tmp_path / "x.gguf") as gguf:
            assert len(gguf.metadata) + len(gguf.tensors) == 65_536
        assert time.thread_time() - start < 5
