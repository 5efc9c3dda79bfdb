# SPDX-License-Identifier: Apache-2.0
"""The wire format of Protocol Buffers: a message is a run of fields, each a tag (number and wire type) and a value.

Only ranges of the file's bytes are handed on, each known to lie inside its message. Work is proportional to the bytes; how deep
messages nest is for the caller, who asks for the fields of a range. Groups, which no writer makes any more, are refused.
Source: the page "Encoding" of the Protocol Buffers documentation.
"""

import struct
from collections.abc import Iterator

from slm.formats.report import Report

CODES = {
    "TRUNCATED": "a field that does not end within its message",
    "VARINT": "a number that is too long",
    "TAG": "no field can begin so",
    "WIRE_TYPE": "a field of another type than its number says",
}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
NAMES = {VARINT: "a varint", FIXED64: "8 bytes", BYTES: "a length and bytes", FIXED32: "4 bytes"}
FLOAT = struct.Struct("<f")

Field = tuple[int, int, int, int, int]  # number, wire type, byte of its tag; where its value begins and ends (a varint: value, 0)


def fields(data: bytes, start: int, end: int, report: Report, name: str) -> Iterator[Field]:
    """The fields of the message `name` in data[start:end], in the order of the file. Raises FormatError."""
    position = start
    while position < end:
        tag_at = position
        tag = data[position]
        position += 1
        if tag >= 0x80:
            tag, position = varint(data, tag_at, end, report, name)
        number, wire = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29 or wire not in NAMES:
            raise report.bad("TAG", tag_at, name, "a field number and a wire type of 0, 1, 2 or 5", f"{number} and {wire}")
        if wire == VARINT:
            value, position = varint(data, position, end, report, f"{name}, field {number}")
            yield number, wire, tag_at, value, 0
            continue
        if wire == BYTES:
            size, position = varint(data, position, end, report, f"{name}, length of field {number}")
        else:
            size = 8 if wire == FIXED64 else 4
        if size > end - position:
            found = f"{end - position} before the end of the message"
            raise report.bad("TRUNCATED", tag_at, f"{name}, field {number}", f"{size} bytes", found)
        yield number, wire, tag_at, position, position + size
        position += size


def varint(data: bytes, position: int, end: int, report: Report, name: str) -> tuple[int, int]:
    """An unsigned integer below 2^64, and the position behind it."""
    value = shift = 0
    for at in range(position, min(end, position + 10)):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at + 1
        shift += 7
    else:
        if end - position < 10:
            raise report.bad("TRUNCATED", position, name, "the end of a number", "the end of the message")
    raise report.bad("VARINT", position, name, "at most 64 bits", "more")


def check_wire(field: Field, wire: int, report: Report, name: str) -> None:
    """Raise FormatError unless the field is of this wire type."""
    if field[1] != wire:
        raise report.bad("WIRE_TYPE", field[2], name, NAMES[wire], NAMES[field[1]])


def read_float(data: bytes, field: Field) -> float:
    return FLOAT.unpack_from(data, field[3])[0]


def read_int32(value: int) -> int:
    """The int32 that a varint stands for: negative ones are written as 64 bits of two's complement, and the low 32 count."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
