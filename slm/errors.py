# SPDX-License-Identifier: Apache-2.0
"""Every exception of slm that is not a builtin.

Kept as builtins: MemoryError, KeyboardInterrupt, OSError (errno and file name), TypeError, and ValueError for plain
arguments. Each class below also derives from the builtin that a caller would expect, so `except ValueError` keeps working. An
exception that ends a generation has what came so far as its attribute `output`.

All constructors take one message and keyword attributes; the C boundary uses the same two steps.
"""

import os
from typing import Any

MAX_QUOTED = 64


def quoted(name: str | bytes) -> str:
    """A name from a file as it may appear in a message: repr-escaped (no terminal codes, no forged lines), cut at 64 characters.

    A surrogate that stands for a byte which is not UTF-8 is escaped like any other unprintable character.
    """
    if isinstance(name, bytes):
        text = name[: 4 * (MAX_QUOTED + 1)].decode("utf-8", "surrogateescape")  # a character has at most 4 bytes
    else:
        text = name
    if len(text) > MAX_QUOTED:
        return repr(text[:MAX_QUOTED]) + "..."
    return repr(text)


class Error(Exception):
    """Base of all errors of slm."""


class _FileError(Error, ValueError):
    """A file that cannot be used. The message reads
    `<path>: <what>, at byte 0x3b2 (<field>): expected <expected>, found <found> [<code>]`, less what is unknown.

    path: the file as the caller named it; format: "GGUF", ...; offset: of the first byte of the offending field;
    field: which field, tensor or key; expected, found: texts; code: stable identifier, listed by the module that reads the
    format; index: which element of an array.
    """

    def __init__(
        self,
        what: str = "",
        *,
        path: str | os.PathLike[str] | None = None,
        format: str | None = None,
        offset: int | None = None,
        field: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        code: str | None = None,
        index: int | None = None,
    ) -> None:
        message = what if path is None else f"{os.fspath(path)}: {what}"
        if offset is not None:
            message += f", at byte {offset:#x}"
        if field is not None:
            message += f" ({field})"
        if expected is not None:
            message += f": expected {expected}"
        if found is not None:
            message += f"{':' if expected is None else ','} found {found}"
        if code is not None:
            message += f" [{code}]"
        super().__init__(message)
        self.path = path
        self.format = format
        self.offset = offset
        self.field = field
        self.expected = expected
        self.found = found
        self.code = code
        self.index = index


class FormatError(_FileError):
    """Malformed bytes."""


class UnsupportedError(_FileError):
    """Well-formed but not handled: a version, an architecture, a tensor type, an option."""


class LimitError(_FileError):
    """Something is larger than slm accepts: `limit` names it, `value` was asked for, `maximum` is allowed."""

    def __init__(
        self, what: str = "", *, limit: str | None = None, value: int | None = None, maximum: int | None = None, **where: Any
    ) -> None:
        if limit is not None and "field" not in where:
            where["field"] = limit
        if value is not None and maximum is not None:
            where.setdefault("expected", f"at most {maximum}")
            where.setdefault("found", str(value))
        super().__init__(what, **where)
        self.limit = limit
        self.value = value
        self.maximum = maximum


class ContextLengthError(LimitError):
    """A prompt of `n_prompt` tokens, with `max_new` to follow, does not fit a context of `n_ctx` positions."""

    def __init__(
        self, what: str = "", *, n_prompt: int | None = None, n_ctx: int | None = None, max_new: int | None = None, **where: Any
    ) -> None:
        super().__init__(what, **where)
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx
        self.max_new = max_new


class TemplateError(Error, ValueError):
    """A chat template was refused, failed, or went over its budget."""


class NumericsError(Error, ArithmeticError):
    """NaN or infinity among the logits, at generation step `step`, in layer `layer` where known."""

    def __init__(self, message: str = "", *, step: int | None = None, layer: int | None = None) -> None:
        super().__init__(message)
        self.step = step
        self.layer = layer


class DownloadError(Error, OSError):
    """A model could not be fetched: no network, no such name, not allowed, or nothing in it that slm reads."""


class ClosedError(Error, RuntimeError):
    """Used after close()."""


class BusyError(Error, RuntimeError):
    """A session or generation that is already running was asked to run again."""


class InternalError(Error, SystemError):
    """A broken invariant: a defect of slm. Please report the message with `slm.cpu_info()`."""
