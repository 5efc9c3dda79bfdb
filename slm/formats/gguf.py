# SPDX-License-Identifier: Apache-2.0
"""GGUF v2 and v3, little-endian: header -> metadata and tensor ranges that are known to lie inside the file.

Layout: "GGUF", u32 version, u64 n_tensors, u64 n_kv; n_kv x (key, u32 type, value); n_tensors x (name, u32 n_dims,
u64 dims[n_dims] with the contiguous dimension first, u32 type, u64 offset into the data section); padding; data.
A string is a u64 length and its bytes, an array a u32 type, a u64 length and its elements.
Source: the GGUF specification in the ggml repository (docs/gguf.md).
"""

import math
import os
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slm.errors import quoted
from slm.formats import cursor as cursors
from slm.formats.cursor import Cursor, Strings
from slm.formats.files import InputFile, Opener
from slm.formats.gguf_types import ARRAY, BOOL, NUMBERS, STRING, TENSOR_TYPES, VALUE_NAMES
from slm.formats.report import REQUIRED, Report
from slm.formats.tensors import TensorInfo

CODES = {  # raised as GGUF_<code>
    **cursors.CODES,
    "MAGIC": "not a GGUF file",
    "BYTE_ORDER": "big-endian GGUF files are not supported",
    "VERSION": "this version of GGUF is not supported",
    "KEY": "a metadata key that is empty, too long or not UTF-8",
    "KEY_DUPLICATE": "the same metadata key twice",
    "KEY_MISSING": "metadata that the model needs is missing",
    "KEY_TYPE": "metadata of the wrong type",
    "KEY_RANGE": "metadata outside its range",
    "KEY_UNHANDLED": "the model needs something that this version does not do",
    "VALUE_TYPE": "a value type that GGUF does not define",
    "VALUE": "a value that its type does not allow",
    "NESTED": "an array of arrays",
    "ALIGNMENT": "refused alignment",
    "TENSOR_NAME": "a tensor name that is empty, too long or not UTF-8",
    "TENSOR_DUPLICATE": "the same tensor name twice",
    "TENSOR_DIMS": "refused dimensions",
    "TENSOR_TYPE": "a tensor type that slm does not know",
    "TENSOR_BLOCK": "a row that is no whole number of blocks",
    "TENSOR_OFFSET": "misaligned tensor data",
    "TENSOR_RANGE": "tensor data outside the file",
    "TENSOR_OVERLAP": "two tensors share bytes",
    "TENSORS": "the tensors are not those of the model",
    "TYPES": "tensor types that this version cannot run",
    "SPLIT_NAME": "one of several files of a model, under a name that does not say which",
    "SPLIT_MISSING": "some files of the model are missing",
    "SPLIT_FOREIGN": "a file of another model, or of another split of this one",
    "ARCHITECTURE": "the architecture is not supported",
    "ADAPTER": "an adapter without its model",
    "FOREIGN": "an adapter for another architecture",
    "NUMBERS": "data that cannot be used",
    "TOKENIZER": "the tokenizer is not supported",
    "VOCABULARY": "the vocabulary contradicts itself",
    "PRETOKENIZER": "the pre-tokenizer is not supported",
}

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ITEMS = 65_536  # metadata keys, and tensors
MAX_ARRAY = 16 << 20  # elements
MAX_KEY = 65_535  # bytes; this and the next are the specification's
MAX_TENSOR_NAME = 64
DEFAULT_ALIGNMENT = 32
KEY_BYTES = 8 + 1 + 4 + 1  # the smallest entry: length, key, type, value
TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


class Value(NamedTuple):
    type: str  # "uint32", "string", "array of string", ...
    value: Any  # int, float, bool, bytes; arrays: ndarray or Strings
    offset: int  # of the key in the file


class GGUF:
    """An open GGUF file whose whole header has been checked.

    metadata: key -> Value; tensors: name -> TensorInfo. Keeps the file open for whoever reads the tensors; a context manager.
    Raises OSError, FormatError (malformed), UnsupportedError (version, byte order, tensor type), LimitError.
    """

    def __init__(self, path: str | os.PathLike[str], opener: Opener = InputFile) -> None:
        self.path = path
        self.metadata: dict[str, Value] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self.report = Report(path, "GGUF", CODES)
        self.parts: list[GGUF] = []  # the other files of the model, see open_gguf
        self._file = opener(path, self.report)
        self.size = self._file.size
        try:
            self._read_header(Cursor(self._file.pread, self.size, self.report))
            self.check_size()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "GGUF":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GGUF({os.fspath(self.path)!r}, {len(self.metadata)} keys, {len(self.tensors)} tensors)"

    def close(self) -> None:
        for part in self.parts:
            part.close()
        self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def check_size(self) -> None:
        """Raise FormatError if a file is not as long as when it was opened: somebody is writing it."""
        for part in self.parts:
            part.check_size()
        self._file.check_size()

    @property
    def file_bytes(self) -> int:
        """Of all files of the model."""
        return self.size + sum(part.size for part in self.parts)

    # ---- typed access: a missing key gives `default` if there is one, a value of the wrong type never does --------------------

    def get_uint(self, key: str, low: int = 0, high: int = 2**64 - 1, default: Any = REQUIRED) -> Any:
        """An integer of any width, low <= value <= high. Below: FormatError; above: LimitError."""
        entry = self._get(key, "an integer", lambda t: t.lstrip("u").startswith("int"), default)
        if entry is None:
            return default
        if entry.value > high:
            raise self.report.limit("KEY_RANGE", entry.offset, key, entry.value, high)
        if entry.value < low:
            raise self.report.bad("KEY_RANGE", entry.offset, key, f"{low} to {high}", entry.value)
        return entry.value

    def get_float(self, key: str, low: float, high: float, default: Any = REQUIRED) -> Any:
        """A number, low < value <= high."""
        entry = self._get(key, "a float", lambda t: t.startswith("float"), default)
        if entry is None:
            return default
        if not low < entry.value <= high:  # also when it is NaN
            raise self.report.bad("KEY_RANGE", entry.offset, key, f"above {low}, at most {high}", entry.value)
        return entry.value

    def get_bool(self, key: str, default: Any = REQUIRED) -> Any:
        entry = self._get(key, "a bool", lambda t: t == "bool", default)
        return default if entry is None else entry.value

    def get_string(self, key: str, default: Any = REQUIRED) -> Any:
        entry = self._get(key, "a string", lambda t: t == "string", default)
        if entry is None:
            return default
        try:
            return entry.value.decode()
        except UnicodeDecodeError as error:
            found = f"byte {entry.value[error.start]:#04x} at {error.start}"
            raise self.report.bad("VALUE", entry.offset, key, "UTF-8", found) from None

    def get_strings(self, key: str, default: Any = REQUIRED) -> Strings | Any:
        entry = self._get(key, "an array of strings", lambda t: t == "array of string", default)
        return default if entry is None else entry.value

    def get_array(
        self, key: str, kind: Literal["int", "float"], count: int | None, default: Any = REQUIRED
    ) -> NDArray[Any] | Any:
        """[count] numbers, or as many as there are; the type of the elements checked as well."""
        wanted = f"an array of {count} {kind}s" if count is not None else f"an array of {kind}s"
        entry = self._get(key, wanted, lambda t: t.startswith((f"array of {kind}", f"array of u{kind}")), default)
        if entry is None:
            return default
        if count is not None and len(entry.value) != count:
            raise self.report.bad("KEY_RANGE", entry.offset, key, wanted, f"{len(entry.value)} elements")
        return entry.value

    def read_f32(self, tensor: TensorInfo) -> NDArray[np.float32]:
        """The values of a small F32 tensor, flat. Raises FormatError if the file was cut after it was opened."""
        raw = self._file.pread(tensor.size, tensor.offset)
        if len(raw) != tensor.size:
            raise self.report.bad("CHANGED", tensor.offset, f"tensor {quoted(tensor.name)}", f"{tensor.size} bytes", len(raw))
        return np.frombuffer(raw, "<f4")

    def offset_of(self, key: str) -> int | None:
        """Where the key stands in the file, for an error about its value; None if it is absent."""
        entry = self.metadata.get(key)
        return None if entry is None else entry.offset

    def _get(self, key: str, wanted: str, accepts: Callable[[str], bool], default: Any) -> Value | None:
        entry = self.metadata.get(key)
        if entry is None:
            if default is REQUIRED:
                raise self.report.bad("KEY_MISSING", None, key, wanted, "no such key")
            return None
        if not accepts(entry.type):
            raise self.report.bad("KEY_TYPE", entry.offset, key, wanted, entry.type)
        return entry

    # ---- the header, in the order of the file ---------------------------------------------------------------------------------

    def _read_header(self, cursor: Cursor) -> None:
        magic = cursor.take(min(len(MAGIC), self.size), "magic")
        if magic != MAGIC:
            raise self.report.bad("MAGIC", 0, "magic", repr(MAGIC), repr(magic))
        self.version = cursor.unpack(U32, "version")
        if self.version not in VERSIONS:
            swapped = int.from_bytes(U32.pack(self.version), "big")
            code = "BYTE_ORDER" if swapped in VERSIONS else "VERSION"
            found = f"{swapped} in big-endian order" if swapped in VERSIONS else self.version
            raise self.report.unsupported(code, 4, "version", "2 or 3", found)
        n_tensors = cursor.count(U64, "n_tensors", TENSOR_BYTES, MAX_ITEMS, reserve=U64.size)
        n_kv = cursor.count(U64, "n_kv", KEY_BYTES, MAX_ITEMS, reserve=n_tensors * TENSOR_BYTES)
        for index in range(n_kv):
            self._read_entry(cursor, index)
        alignment = self._alignment()
        entries = [self._read_tensor(cursor, index) for index in range(n_tensors)]
        data_start = -(-cursor.position // alignment) * alignment
        self._check_ranges(entries, data_start, alignment)
        self.tensors = {entry.name: entry._replace(offset=data_start + entry.offset) for entry in entries}

    def _read_name(self, cursor: Cursor, field: str, maximum: int, code: str) -> str:
        start = cursor.position
        raw = cursor.string(U64, field)
        wanted = f"1 to {maximum} bytes of UTF-8"
        if not 1 <= len(raw) <= maximum:
            raise self.report.bad(code, start, field, wanted, f"{len(raw)} bytes")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.report.bad(code, start, field, wanted, quoted(raw)) from None

    def _read_entry(self, cursor: Cursor, index: int) -> None:
        start = cursor.position
        key = self._read_name(cursor, f"key {index}", MAX_KEY, "KEY")
        field = f"key {quoted(key)}"
        if key in self.metadata:
            found = f"one at byte {self.metadata[key].offset:#x}"
            raise self.report.bad("KEY_DUPLICATE", start, field, "no earlier one", found)
        kind = self._read_kind(cursor, f"type of {field}")
        if kind == ARRAY:
            self.metadata[key] = Value(*self._read_array(cursor, field), start)
        elif kind == STRING:
            self.metadata[key] = Value("string", cursor.string(U64, field), start)
        else:
            name, values = self._read_numbers(cursor, kind, 1, field)
            self.metadata[key] = Value(name, values[0].item(), start)

    def _read_kind(self, cursor: Cursor, field: str) -> int:
        start = cursor.position
        kind = cursor.unpack(U32, field)
        if kind not in VALUE_NAMES:
            raise self.report.bad("VALUE_TYPE", start, field, f"0 to {max(VALUE_NAMES)}", kind)
        return kind

    def _read_array(self, cursor: Cursor, field: str) -> tuple[str, Any]:
        start = cursor.position
        kind = self._read_kind(cursor, f"element type of {field}")
        if kind == ARRAY:
            raise self.report.bad("NESTED", start, field, "numbers or strings", "arrays")
        item_bytes = U64.size if kind == STRING else NUMBERS[kind][1].itemsize
        count = cursor.count(U64, f"length of {field}", item_bytes, MAX_ARRAY)
        if kind == STRING:
            return "array of string", cursor.strings(count, U64, field)
        name, values = self._read_numbers(cursor, kind, count, field)
        return f"array of {name}", values

    def _read_numbers(self, cursor: Cursor, kind: int, count: int, field: str) -> tuple[str, NDArray[Any]]:
        start = cursor.position
        name, dtype = NUMBERS[kind]
        values = cursor.numbers(dtype, count, field)
        if kind == BOOL:
            wrong = np.flatnonzero(values > 1)
            if len(wrong):
                raise self.report.bad("VALUE", start + int(wrong[0]), field, "a bool, 0 or 1", values[wrong[0]])
            values = values.astype(np.bool_)
        return name, values

    def _alignment(self) -> int:
        entry = self.metadata.get("general.alignment")
        if entry is None:
            return DEFAULT_ALIGNMENT
        value = entry.value
        if entry.type != "uint32" or not 8 <= value <= 65_536 or value & (value - 1):
            found = f"{entry.type} {value}" if entry.type == "uint32" else entry.type
            expected = "a uint32 power of two from 8 to 65536"
            raise self.report.bad("ALIGNMENT", entry.offset, "general.alignment", expected, found)
        return value

    def _read_tensor(self, cursor: Cursor, index: int) -> TensorInfo:
        """The entry with its offset as written: from the start of the data section."""
        start = cursor.position
        name = self._read_name(cursor, f"name of tensor {index}", MAX_TENSOR_NAME, "TENSOR_NAME")
        field = f"tensor {quoted(name)}"
        at = cursor.position
        n_dims = cursor.unpack(U32, f"n_dims of {field}")
        if not 1 <= n_dims <= 4:
            raise self.report.bad("TENSOR_DIMS", at, f"n_dims of {field}", "1 to 4", n_dims)
        at = cursor.position
        dims = [cursor.unpack(U64, f"dims of {field}") for _ in range(n_dims)]
        if 0 in dims:
            raise self.report.bad("TENSOR_DIMS", at + dims.index(0) * U64.size, f"dims of {field}", "at least 1", 0)
        type_at = cursor.position
        number = cursor.unpack(U32, f"type of {field}")
        if number not in TENSOR_TYPES:
            expected = f"one of the {len(TENSOR_TYPES)} types up to {max(TENSOR_TYPES)}"
            raise self.report.unsupported("TENSOR_TYPE", type_at, f"type of {field}", expected, number)
        type = TENSOR_TYPES[number]
        if dims[0] % type.block:
            raise self.report.bad("TENSOR_BLOCK", at, f"dims of {field}", f"a multiple of {type.block} for {type.name}", dims[0])
        size = dims[0] // type.block * type.block_bytes * math.prod(dims[1:])
        return TensorInfo(name, type, tuple(reversed(dims)), cursor.unpack(U64, f"offset of {field}"), size, start, self._file)

    def _check_ranges(self, entries: list[TensorInfo], data_start: int, alignment: int) -> None:
        def where(entry: TensorInfo) -> tuple[int, str]:
            assert entry.header_offset is not None
            at = entry.header_offset + 8 + len(entry.name.encode()) + 4 + 8 * len(entry.shape) + 4
            return at, f"offset of tensor {quoted(entry.name)}"

        first: dict[str, TensorInfo] = {}
        for entry in entries:
            earlier = first.setdefault(entry.name, entry)
            if earlier is not entry:
                found = f"one at byte {earlier.header_offset:#x}"
                raise self.report.bad(
                    "TENSOR_DUPLICATE", entry.header_offset, f"tensor {quoted(entry.name)}", "no earlier one", found
                )
            if entry.offset % alignment:
                raise self.report.bad("TENSOR_OFFSET", *where(entry), f"a multiple of {alignment}", entry.offset)
            if data_start + entry.offset + entry.size > self.size:
                found = f"{entry.size} bytes at byte {data_start + entry.offset:#x}"
                raise self.report.bad("TENSOR_RANGE", *where(entry), f"data within the {self.size} bytes of the file", found)
        by_offset = sorted(entries, key=lambda entry: entry.offset)
        for left, right in pairwise(by_offset):
            if left.offset + left.size > right.offset:
                expected = f"at least {left.offset + left.size}, where {quoted(left.name)} ends"
                raise self.report.bad("TENSOR_OVERLAP", *where(right), expected, right.offset)
