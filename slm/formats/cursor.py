# SPDX-License-Identifier: Apache-2.0
"""A bounded cursor over the header of an open file: nothing is believed about sizes before the bytes are known to be there."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slm import _core
from slm.errors import FormatError, InternalError, LimitError
from slm.formats.report import Report

Strings = tuple[bytes, NDArray[np.uint64]]  # joined bytes; offsets [count + 1]: string i is bytes[offsets[i]:offsets[i + 1]]

MAX_STRING = 16 << 20
MAX_HEADER = 256 << 20  # ten times the largest published one; bounds memory whatever a file claims
FIRST_READ = 1 << 20
READ_SIZE = 1 << 20  # the transient copy while the buffer grows

CODES = {
    "TRUNCATED": "the file ends too early",
    "CHANGED": "the size of the file is not what it was when it was opened",
    "COUNT": "a count or length that the rest of the file cannot hold",
    "LIMIT": "larger than slm accepts",
}


class Cursor:
    """Reads little-endian fields front to back from byte 0 of a file of `size` bytes. read: (count, offset) -> bytes.

    The buffer grows as fields are asked for, at least doubling, so work and memory are proportional to the bytes that the file
    really has. Errors carry the byte where the field begins.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, report: Report) -> None:
        self.position = 0
        self.size = size
        self._read = read
        self._report = report
        self._buffer = bytearray()

    def require(self, count: int, field: str) -> None:
        """Make `count` bytes at the position available."""
        end = self.position + count
        if end <= len(self._buffer):
            return
        if end > self.size:
            found = f"{self.size - self.position} before the end of the file"
            raise self._report.bad("TRUNCATED", self.position, field, f"{count} bytes", found)
        if end > MAX_HEADER:
            raise self._report.limit("LIMIT", self.position, f"header up to the end of {field}", end, MAX_HEADER)
        target = min(self.size, MAX_HEADER, max(end, FIRST_READ, 2 * len(self._buffer)))
        while len(self._buffer) < target:
            more = self._read(min(READ_SIZE, target - len(self._buffer)), len(self._buffer))
            if not more:
                raise self._report.bad("CHANGED", len(self._buffer), field, f"{self.size} bytes", len(self._buffer))
            self._buffer += more

    def unpack(self, layout: struct.Struct, field: str) -> int:
        """One integer."""
        self.require(layout.size, field)
        (value,) = layout.unpack_from(self._buffer, self.position)
        self.position += layout.size
        return value

    def take(self, count: int, field: str) -> bytes:
        self.require(count, field)
        end = self.position + count
        value = bytes(self._buffer[self.position : end])
        self.position = end
        return value

    def count(self, layout: struct.Struct, field: str, item_bytes: int, maximum: int, *, reserve: int = 0) -> int:
        """A number of items that follow, refused before anything is allocated: FormatError when the rest of the file, less
        `reserve` bytes that something else must take, cannot hold as many of item_bytes each; LimitError above maximum."""
        start = self.position
        value = self.unpack(layout, field)
        room = max(0, self.size - self.position - reserve) // item_bytes
        if value > room:
            raise self._report.bad("COUNT", start, field, f"at most {room} before the end of the file", value)
        if value > maximum:
            raise self._report.limit("LIMIT", start, field, value, maximum)
        return value

    def string(self, length: struct.Struct, field: str) -> bytes:
        """A length and as many bytes."""
        return self.take(self.count(length, f"length of {field}", 1, MAX_STRING), field)

    def numbers(self, dtype: np.dtype, count: int, field: str) -> NDArray[Any]:
        """An array that owns its data: [count]."""
        self.require(count * dtype.itemsize, field)
        values = np.frombuffer(self._buffer, dtype, count, self.position).copy()
        self.position += values.nbytes
        return values

    def strings(self, count: int, length: struct.Struct, field: str) -> Strings:
        """`count` strings, each a u64 length and its bytes, split by the core's one bounded helper: those that the buffer holds,
        and on from there when it has grown."""
        joined: list[bytes] = []
        offsets, n_bytes, done = [np.zeros(1, np.uint64)], 0, 0
        while True:
            try:
                part, ends, consumed = self._split(count - done)
            except FormatError as error:
                if error.index is None:
                    raise
                part, ends, consumed = self._split(error.index)
            joined.append(part)
            offsets.append(ends[1:] + np.uint64(n_bytes))
            n_bytes += len(part)
            done += len(ends) - 1
            self.position += consumed
            if done == count:
                return b"".join(joined), np.concatenate(offsets)
            self._load_string(done, length, f"{field}[{done}]")

    def _split(self, count: int) -> tuple[bytes, NDArray[np.uint64], int]:
        # The view must be gone before the buffer can grow.
        with memoryview(self._buffer) as whole, whole[self.position :] as view:
            return _core.split_strings(view, count, MAX_STRING)

    def _load_string(self, index: int, length: struct.Struct, field: str) -> None:
        """The string at the position was refused: read on if the buffer ends within it, else say what is wrong."""
        before, start = len(self._buffer), self.position
        try:
            self.string(length, field)
        except (FormatError, LimitError) as error:
            error.index = index
            raise
        if len(self._buffer) == before:
            raise InternalError(f"{field} was refused although it lies in the file and is short enough")
        self.position = start
