# SPDX-License-Identifier: Apache-2.0
"""safetensors: header -> tensor ranges that are known to lie in the file and to fill it.

Layout: u64 header length, little-endian; the header, a JSON object: name -> {"dtype", "shape", "data_offsets": [begin, end]} and
perhaps "__metadata__"; the data section, which offsets count from. Tensors follow each other without holes.
Source: the format section of the safetensors README.
"""

import math
import os
import struct
from typing import Any

from slm.errors import quoted
from slm.formats import cursor as cursors
from slm.formats import json_text
from slm.formats.cursor import Cursor
from slm.formats.files import InputFile, Opener
from slm.formats.json_text import Object, parse_object
from slm.formats.report import Report
from slm.formats.tensors import TensorInfo, TensorType

CODES = {  # raised as SAFETENSORS_<code>
    **cursors.CODES,
    **json_text.CODES,
    "MAGIC": "not a safetensors file",
    "TENSOR_FIELDS": "an entry that is not a tensor's",
    "TENSOR_TYPE": "a tensor type that slm does not know",
    "TENSOR_SHAPE": "a refused shape",
    "TENSOR_RANGE": "tensor data outside the file",
    "TENSOR_SIZE": "tensor data that is not as long as its shape says",
    "TENSOR_ORDER": "tensors that share bytes, or bytes that belong to none",
}

# dtype -> type; the names of types are GGUF's where it has them
TYPES = {
    "F64": TensorType("F64", 1, 8),
    "F32": TensorType("F32", 1, 4),
    "F16": TensorType("F16", 1, 2),
    "BF16": TensorType("BF16", 1, 2),
    "I64": TensorType("I64", 1, 8),
    "I32": TensorType("I32", 1, 4),
    "I16": TensorType("I16", 1, 2),
    "I8": TensorType("I8", 1, 1),
    "U64": TensorType("U64", 1, 8),
    "U32": TensorType("U32", 1, 4),
    "U16": TensorType("U16", 1, 2),
    "U8": TensorType("U8", 1, 1),
    "BOOL": TensorType("BOOL", 1, 1),
    "F8_E5M2": TensorType("F8_E5M2", 1, 1),
    "F8_E4M3": TensorType("F8_E4M3", 1, 1),
}
LENGTH = struct.Struct("<Q")
MAX_HEADER = 100_000_000  # the format's own limit
MAX_TENSORS = 65_536
MAX_RANK = 8
MAX_NAME = 512
VALUES_PER_TENSOR = 8 + MAX_RANK  # of JSON in one entry, at most
METADATA = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}


class Safetensors:
    """An open safetensors file whose whole header has been checked. tensors: name -> TensorInfo; a context manager.

    Raises OSError, FormatError (malformed), UnsupportedError (an unknown dtype), LimitError.
    """

    def __init__(self, path: str | os.PathLike[str], opener: Opener = InputFile) -> None:
        self.path = path
        self.report = Report(path, "SAFETENSORS", CODES)
        self.file = opener(path, self.report)
        try:
            self.tensors = self._read_header()
            self.file.check_size()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> "Safetensors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    def _read_header(self) -> dict[str, TensorInfo]:
        cursor = Cursor(self.file.pread, self.file.size, self.report)
        length = cursor.unpack(LENGTH, "header length")
        room = self.file.size - LENGTH.size
        if length > MAX_HEADER:
            # Whatever else begins with eight bytes is told apart from a header that is only large.
            if length > room:
                raise self.report.bad("MAGIC", 0, "header length", f"at most {room}, as the file goes on", length)
            raise self.report.limit("LIMIT", 0, "header length", length, MAX_HEADER)
        if length > room:
            raise self.report.bad("TRUNCATED", 0, "header length", f"at most {room}, as the file goes on", length)
        raw = cursor.take(length, "header")
        if not raw.startswith(b"{"):
            raise self.report.bad("MAGIC", LENGTH.size, "header", "b'{'", repr(raw[:1]))
        limits = {"max_values": VALUES_PER_TENSOR * MAX_TENSORS, "max_objects": MAX_TENSORS + 2}  # with itself and the metadata
        header = parse_object(raw, self.report, **limits)
        check_metadata(header)
        start = LENGTH.size + length
        entries = [self._read_tensor(header, name, start) for name in header if name != METADATA]
        self._check_ranges(entries, start)
        return {entry.name: entry for entry in entries}

    def _read_tensor(self, header: Object, name: str, start: int) -> TensorInfo:
        if not 1 <= len(name) <= MAX_NAME:
            raise self.report.bad("TENSOR_FIELDS", None, header.where(name), f"a name of 1 to {MAX_NAME} characters", len(name))
        entry = header.get_object(name)
        if set(entry.values) != FIELDS:
            found = ", ".join(quoted(field) for field in list(entry.values)[:8]) or "none"
            raise self.report.bad("TENSOR_FIELDS", None, entry.path, f"the fields {', '.join(sorted(FIELDS))}", found)
        dtype = entry.get_string("dtype")
        if dtype not in TYPES:
            raise self.report.unsupported("TENSOR_TYPE", None, entry.where("dtype"), ", ".join(TYPES), quoted(dtype))
        type = TYPES[dtype]
        shape = numbers(entry, "shape", MAX_RANK)
        offsets = numbers(entry, "data_offsets", 2)
        if len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self.report.bad("TENSOR_RANGE", None, entry.where("data_offsets"), "[begin, end]", offsets)
        begin, end = offsets
        if start + end > self.file.size:
            expected = f"at most {self.file.size - start}, where the file ends"
            raise self.report.bad("TENSOR_RANGE", None, entry.where("data_offsets"), expected, end)
        size = math.prod(shape) * type.block_bytes
        if end - begin != size:
            expected = f"{size} bytes for {dtype} {shape}"
            raise self.report.bad("TENSOR_SIZE", None, entry.where("data_offsets"), expected, f"{end - begin} bytes")
        return TensorInfo(name, type, tuple(shape), start + begin, size, None, self.file)

    def _check_ranges(self, entries: list[TensorInfo], start: int) -> None:
        end, before = start, "the header"
        for entry in sorted(entries, key=lambda entry: (entry.offset, entry.size)):
            if entry.offset != end:
                expected = f"data at byte {end:#x}, where {before} ends"
                raise self.report.bad("TENSOR_ORDER", None, f"tensor {quoted(entry.name)}", expected, f"{entry.offset:#x}")
            end, before = entry.offset + entry.size, quoted(entry.name)
        if end != self.file.size:
            raise self.report.bad(
                "TENSOR_ORDER", end, "end of data", f"the end of the file after {before}", f"{self.file.size - end} more bytes"
            )


def numbers(entry: Object, name: str, most: int) -> list[int]:
    """Counts, each below 2**63."""
    values = entry.get_list(name)
    if len(values) > most:
        raise entry.report.bad("TENSOR_SHAPE", None, entry.where(name), f"at most {most} numbers", len(values))
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise entry.report.bad("TENSOR_SHAPE", None, f"{entry.where(name)}[{i}]", "a count", json_text.shown(value))
    return values


def check_metadata(header: Object) -> None:
    metadata: Any = header.get_object(METADATA, default=None)
    for name in metadata or ():
        metadata.get_string(name)
