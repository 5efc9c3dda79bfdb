# SPDX-License-Identifier: Apache-2.0
"""JSON from strangers: size, depth and number of values are bounded before Python's parser sees it, no name stands twice in an
object, and each value is read by a typed getter that knows its JSON path."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from slm.errors import FormatError, quoted
from slm.formats.files import InputFile
from slm.formats.report import REQUIRED, Report

CODES = {
    "JSON": "not a JSON document",
    "JSON_DUPLICATE": "the same name twice in one object",
    "JSON_MISSING": "a value that is needed is missing",
    "JSON_TYPE": "a value of the wrong type",
    "JSON_RANGE": "a value outside its range",
    "LIMIT": "larger than slm accepts",
}
MAX_DEPTH = 64
MAX_CONFIG = 16 << 20  # bytes of a configuration file
MAX_VALUES = 1 << 20  # of all kinds in one document
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Object:
    """A JSON object and where it stands in its document. null counts as absent, as Hugging Face writes it."""

    def __init__(self, values: dict[str, Any], path: str, report: Report) -> None:
        self.values = values
        self.path = path
        self.report = report

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def where(self, name: str) -> str:
        return f"{self.path}.{name}" if re.fullmatch(r"\w{1,64}", name) else f"{self.path}[{quoted(name)}]"

    def get(self, name: str, kind: type | tuple[type, ...], wanted: str, default: Any = REQUIRED) -> Any:
        value = self.values.get(name)
        if value is None:
            if default is REQUIRED:
                raise self.report.bad("JSON_MISSING", None, self.where(name), wanted, "no such name")
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.report.bad("JSON_TYPE", None, self.where(name), wanted, shown(value))
        return value

    def get_int(self, name: str, low: int, high: int, default: Any = REQUIRED) -> Any:
        """A JSON integer, low <= value <= high. Below: FormatError; above: LimitError."""
        value = self.get(name, int, "an integer", default)
        if value is default:
            return default
        if value > high:
            raise self.report.limit("LIMIT", None, self.where(name), value, high)
        if value < low:
            raise self.report.bad("JSON_RANGE", None, self.where(name), f"{low} to {high}", value)
        return value

    def get_float(self, name: str, low: float, high: float, default: Any = REQUIRED) -> Any:
        """A number, low < value <= high."""
        value = self.get(name, (int, float), "a number", default)
        if value is default:
            return default
        if not low < value <= high:  # also when it is NaN
            raise self.report.bad("JSON_RANGE", None, self.where(name), f"above {low}, at most {high}", shown(value))
        return float(value)

    def get_bool(self, name: str, default: Any = REQUIRED) -> Any:
        return self.get(name, bool, "true or false", default)

    def get_string(self, name: str, default: Any = REQUIRED) -> Any:
        return self.get(name, str, "a string", default)

    def get_list(self, name: str, default: Any = REQUIRED) -> Any:
        return self.get(name, list, "an array", default)

    def get_object(self, name: str, default: Any = REQUIRED) -> Any:
        value = self.get(name, dict, "an object", default)
        return value if value is default else Object(value, self.where(name), self.report)

    def get_ids(self, name: str, below: int) -> tuple[int, ...]:
        """Token ids: one, several in an array, or none at all."""
        value = self.values.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        for id in ids:
            if isinstance(id, bool) or not isinstance(id, int):
                raise self.report.bad("JSON_TYPE", None, self.where(name), "a token id or an array of them", shown(id))
            if not 0 <= id < below:
                raise self.report.bad("JSON_RANGE", None, self.where(name), f"ids from 0 to {below - 1}", shown(id))
        return tuple(ids)


def read_object(
    path: str | os.PathLike[str],
    report: Report,
    max_bytes: int = MAX_CONFIG,
    *,
    max_values: int = MAX_VALUES,
    max_objects: int = MAX_VALUES,
) -> Object:
    """The object that a whole file holds. Raises OSError, FormatError, LimitError, UnsupportedError (no regular file)."""
    with InputFile(path, report) as file:
        if file.size > max_bytes:
            raise report.limit("LIMIT", None, "file size", file.size, max_bytes)
        with open(file.fileno(), "rb", closefd=False) as stream:
            return parse_object(stream.read(file.size), report, max_values=max_values, max_objects=max_objects)


def parse_object(data: bytes, report: Report, *, max_values: int = MAX_VALUES, max_objects: int = MAX_VALUES) -> Object:
    """The object that UTF-8 text is. Raises FormatError, LimitError."""
    check_size(data, report, max_values, max_objects)
    try:
        value = json.loads(data.decode(), object_pairs_hook=lambda pairs: unique(pairs, report))
    except UnicodeDecodeError as error:
        raise report.bad("JSON", error.start, "text", "UTF-8", f"byte {data[error.start]:#04x}") from None
    except json.JSONDecodeError as error:
        at = len(error.doc[: error.pos].encode())
        raise report.bad("JSON", at, "text", None, error.msg) from None
    except FormatError:
        raise
    except ValueError:  # Python refuses to read an integer of more than 4300 digits
        raise report.bad("JSON", None, "text", None, "a number of thousands of digits") from None
    if not isinstance(value, dict):
        raise report.bad("JSON_TYPE", None, "$", "an object", shown(value))
    return Object(value, "$", report)


def check_size(data: bytes, report: Report, max_values: int, max_objects: int) -> None:
    """Raise LimitError when a parser would have to nest too deep or make too many values."""
    quotes = data.count(b'"')  # two for a name and two for its value; cutting out strings costs memory for each
    if quotes > 4 * max_values:
        raise report.limit("LIMIT", None, "quotation marks in the document", quotes, 4 * max_values)
    outside = STRING.sub(b"", data)
    values = outside.count(b",") + outside.count(b"[") + outside.count(b"{") + 1
    if values > max_values:
        raise report.limit("LIMIT", None, "values in the document", values, max_values)
    objects = outside.count(b"{")
    if objects > max_objects:
        raise report.limit("LIMIT", None, "objects in the document", objects, max_objects)
    brackets = np.frombuffer(outside.translate(None, NOT_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    depth = int(np.cumsum(steps).max(initial=0))
    if depth > MAX_DEPTH:
        raise report.limit("LIMIT", None, "depth of the document", depth, MAX_DEPTH)


def unique(pairs: list[tuple[str, Any]], report: Report) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise report.bad("JSON_DUPLICATE", None, quoted(twice), "one value", "several")
    return values


def shown(value: Any) -> str:
    """A value from a document, as a message may show it."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict | list):
        return f"an {'' if value else 'empty '}{'object' if isinstance(value, dict) else 'array'}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return f"an integer of {int(math.log10(abs(value))) + 1} digits"
    return json.dumps(value)
