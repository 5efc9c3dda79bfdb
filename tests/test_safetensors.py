# SPDX-License-Identifier: Apache-2.0
"""safetensors files are read as the `safetensors` package reads them; files that are not are refused by name, place and field.

Ids of hostile rows are those of a catalogue of real bugs in readers of such files.
"""

import json
import os
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors as oracle

from slm.errors import FormatError, LimitError, UnsupportedError
from slm.formats.safetensors import CODES, FIELDS, METADATA, TYPES, Safetensors

MIB = 1 << 20
LONG_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
}  # fmt: skip


def assert_same_reading(path: Path) -> None:
    data = path.read_bytes()
    theirs = dict(oracle.deserialize(data))
    with Safetensors(path) as ours:
        assert set(ours.tensors) == set(theirs)
        for name, entry in theirs.items():
            info = ours.tensors[name]
            assert (info.type.name, list(info.shape)) == (entry["dtype"], entry["shape"])
            assert data[info.offset : info.offset + info.size] == bytes(entry["data"])
            assert info.elements * info.type.block_bytes == info.size


def test_agrees_with_the_safetensors_package_on_every_type(tmp_path):
    rng = np.random.default_rng(0)
    tensors, alive = {}, []
    for i, (kind, long) in enumerate(LONG_NAMES.items()):
        shape = [[], [3], [0], [2, 5], [2, 0, 3], [1, 2, 3, 4]][i % 6]
        size = int(np.prod(shape)) * TYPES[kind].block_bytes
        alive.append(rng.integers(0, 2, max(1, size), np.uint8))
        tensors[f"{kind} é\n"] = oracle.TensorSpec(dtype=long, shape=shape, data_ptr=alive[-1].ctypes.data, data_len=size)
    assert set(LONG_NAMES) == set(TYPES)
    for metadata in (None, {"format": "pt"}):
        (tmp_path / "all.safetensors").write_bytes(oracle.serialize(tensors, metadata))
        assert_same_reading(tmp_path / "all.safetensors")


def test_a_file_without_tensors(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(oracle.serialize({}))
    assert_same_reading(tmp_path / "x.safetensors")


# ---- hostile files ------------------------------------------------------------------------------------------------------------


def entry(begin: int, end: int, shape: Any = None, dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end], **more}


def file(header: Any, data: int = 8, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data)


DEEP = b'{"a":' + b"[" * 65 + b"]" * 65 + b"}"
HOSTILE = [
    ("S1", b"", FormatError, "TRUNCATED", "header length"),
    ("S1", b"\x08\0\0", FormatError, "TRUNCATED", "header length"),
    ("S1", file({}, 0, length=3), FormatError, "TRUNCATED", "header length"),
    ("S1", file({"a": entry(0, 8)}, length=2**40), FormatError, "MAGIC", "header length"),
    ("S1", file({"a": entry(0, 8)}, length=2**64 - 8), FormatError, "MAGIC", "header length"),
    ("S2", struct.pack("<Q", 100_000_001), LimitError, "LIMIT", "header length"),
    ("S2", file({f"t{i}": entry(0, 0, [0]) for i in range(65_538)}, 0), LimitError, "LIMIT", "objects"),
    ("S2", file(b'{"a":[' + b"1," * 1_100_000 + b"1]}"), LimitError, "LIMIT", "values"),
    ("S2", file(b'{"a":[' + b'"",' * 2_200_000 + b"1]}"), LimitError, "LIMIT", "quotation marks"),
    ("S2", file(DEEP), LimitError, "LIMIT", "depth"),
    ("S3", file({"a": entry(0, 8), "b": entry(4, 8)}), FormatError, "TENSOR_ORDER", "'b'"),
    ("S3", file({"a": entry(0, 8), "b": entry(0, 8)}), FormatError, "TENSOR_ORDER", "'b'"),
    ("S3", file({"a": entry(4, 8)}), FormatError, "TENSOR_ORDER", "'a'"),
    ("S3", file({"a": entry(0, 4), "b": entry(8, 12)}, 12), FormatError, "TENSOR_ORDER", "'b'"),
    ("S3", file({"a": entry(0, 8)}, 12), FormatError, "TENSOR_ORDER", "end of data"),
    ("S3", file({}), FormatError, "TENSOR_ORDER", "end of data"),
    ("S3", file({"a": entry(0, 12)}), FormatError, "TENSOR_RANGE", "$.a.data_offsets"),
    ("S3", file({"a": entry(8, 4, [1])}), FormatError, "TENSOR_RANGE", "$.a.data_offsets"),
    ("S3", file({"a": entry(0, 8) | {"data_offsets": [0]}}), FormatError, "TENSOR_RANGE", "$.a.data_offsets"),
    ("S3", file({"a": entry(0, 8) | {"data_offsets": [0, 4, 8]}}), FormatError, "TENSOR_SHAPE", "$.a.data_offsets"),
    ("S4", file(b'{"a":1,"a":1}'), FormatError, "JSON_DUPLICATE", "'a'"),
    ("S4", file(b'{"a":{"dtype":"F32","dtype":"F16"}}'), FormatError, "JSON_DUPLICATE", "'dtype'"),
    ("S4", file(b'{"a":1,"\\u0061":1}'), FormatError, "JSON_DUPLICATE", "'a'"),
    ("S5", file({"a": entry(0, 8), "b": entry(4, 4, [0])}), FormatError, "TENSOR_ORDER", "'b'"),
    ("S5", file({"a": entry(0, 8), "b": entry(8, 8, [1])}), FormatError, "TENSOR_SIZE", "$.b.data_offsets"),
    ("S6", file({"a": entry(0, 8, [2], "F4")}), UnsupportedError, "TENSOR_TYPE", "'F4'"),
    ("S6", file({"a": entry(0, 8, [2], "F16")}), FormatError, "TENSOR_SIZE", "4 bytes for F16 [2]"),
    ("S6", file({"a": entry(0, 8, [2], 7)}), FormatError, "JSON_TYPE", "$.a.dtype"),
    ("shape", file({"a": entry(0, 8, [-1, -2])}), FormatError, "TENSOR_SHAPE", "$.a.shape[0]"),
    ("shape", file({"a": entry(0, 8, [2, True])}), FormatError, "TENSOR_SHAPE", "$.a.shape[1]"),
    ("shape", file({"a": entry(0, 8, [2.0])}), FormatError, "TENSOR_SHAPE", "$.a.shape[0]"),
    ("shape", file({"a": entry(0, 8, [2**62, 4])}), FormatError, "TENSOR_SIZE", "$.a.data_offsets"),
    ("shape", file({"a": entry(0, 8, [2**64])}), FormatError, "TENSOR_SHAPE", "$.a.shape[0]"),
    ("shape", file({"a": entry(0, 8, [1] * 9)}), FormatError, "TENSOR_SHAPE", "$.a.shape"),
    ("shape", file({"a": entry(0, 8, "2")}), FormatError, "JSON_TYPE", "$.a.shape"),
    ("fields", file({"a": entry(0, 8, strides=[1])}), FormatError, "TENSOR_FIELDS", "$.a"),
    ("fields", file({"a": {"dtype": "F32"}}), FormatError, "TENSOR_FIELDS", "'dtype'"),
    ("fields", file({"a": [1]}), FormatError, "JSON_TYPE", "$.a"),
    ("fields", file({"\n" + "a" * 100: 1}), FormatError, "JSON_TYPE", "$['\\n"),
    ("fields", file({"a" * 513: entry(0, 8)}), FormatError, "TENSOR_FIELDS", "512 characters"),
    ("fields", file({"": entry(0, 8)}), FormatError, "TENSOR_FIELDS", "$['']"),
    ("metadata", file({METADATA: {"a": 1}}, 0), FormatError, "JSON_TYPE", "$.__metadata__.a"),
    ("metadata", file({METADATA: "a"}, 0), FormatError, "JSON_TYPE", "$.__metadata__"),
    ("json", file(b"[]"), FormatError, "MAGIC", "header"),
    ("json", file(b"{"), FormatError, "JSON", "text"),
    ("json", file(b'{"a":' + b"1" * 5000 + b"}"), FormatError, "JSON", "digits"),
    ("json", file(b'{"\xff":1}'), FormatError, "JSON", "0xff"),
    ("json", file(b'{"a":"\\ud800","b":NaN}'), FormatError, "JSON_TYPE", "$.a"),
    ("json", file(b"{} x", 0), FormatError, "JSON", "Extra data"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "error", "code", "names"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_file(tmp_path, data, error, code, names):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    if data == struct.pack("<Q", 100_000_001):
        os.truncate(path, 200_000_000)  # long enough, with a hole
    free = os.dup(0)
    os.close(free)
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(error) as caught:
        Safetensors(path)
    seconds, (_, peak) = time.process_time() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert type(caught.value) is error
    assert caught.value.code == f"SAFETENSORS_{code}"
    assert names in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak < 16 * MIB + 20 * len(data)
    assert seconds < 1 + len(data) / MIB
    again = os.dup(0)
    os.close(again)
    assert again == free


def test_every_code_is_raised_by_some_test():
    elsewhere = {"CHANGED", "COUNT", "JSON_MISSING", "JSON_RANGE"}
    assert {row[3] for row in HOSTILE} | elsewhere == set(CODES)
    assert {"dtype", "shape", "data_offsets"} == FIELDS


def test_no_edit_of_a_byte_reads_what_the_safetensors_package_refuses(tmp_path):
    """What we accept, it accepts, with the same tensors."""
    data = file({METADATA: {"a": "b"}, "x": entry(0, 8), "y": entry(8, 8, [0, 3]), "z": entry(8, 20, [3, 2], "F16")}, 20)
    path = tmp_path / "x.safetensors"
    rng = np.random.default_rng(0)
    accepted = 0
    for i in range(2000):
        edited = bytearray(data)
        for _ in range(1 + i % 2):
            edited[rng.integers(len(data) - 20)] = rng.choice(np.frombuffer(b'0123456789,:[]{}" -.eFx\0\xff', np.uint8))
        path.write_bytes(edited)
        try:
            Safetensors(path).close()
        except (FormatError, LimitError, UnsupportedError):
            continue
        assert_same_reading(path)
        accepted += 1
    assert accepted > 50


def test_a_file_that_grows_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file({"a": entry(0, 8)}))
    with Safetensors(path) as opened:
        opened.file.check_size()
        path.write_bytes(file({"a": entry(0, 8)}, 12))
        with pytest.raises(FormatError, match="SAFETENSORS_CHANGED"):
            opened.file.check_size()
