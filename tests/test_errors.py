# SPDX-License-Identifier: Apache-2.0
"""Messages say what, where, expected and found; names from files cannot forge them."""

import copy
import inspect
import pickle
from pathlib import Path

import pytest

from slm import _core, errors
from slm.errors import ContextLengthError, Error, FormatError, LimitError, NumericsError, UnsupportedError, quoted

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Error)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_message_is_enough(kind):
    """The C boundary makes each class from a message, then sets attributes."""
    error = kind("what went wrong")
    error.index = 3
    assert str(error) == "what went wrong"
    assert isinstance(error, Error)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.FormatError, ValueError),
        (errors.UnsupportedError, ValueError),
        (errors.LimitError, ValueError),
        (errors.ContextLengthError, LimitError),
        (errors.TemplateError, ValueError),
        (errors.NumericsError, ArithmeticError),
        (errors.DownloadError, OSError),
        (errors.ClosedError, RuntimeError),
        (errors.BusyError, RuntimeError),
        (errors.InternalError, SystemError),
    ],
)
def test_hierarchy(kind, builtin):
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "what"),
        ({"path": "a.gguf"}, "a.gguf: what"),
        (
            {"path": Path("a.gguf"), "offset": 946, "field": "n_kv", "expected": "1", "found": "2", "code": "GGUF_COUNT"},
            "a.gguf: what, at byte 0x3b2 (n_kv): expected 1, found 2 [GGUF_COUNT]",
        ),
        ({"field": "tensors", "found": "none"}, "what (tensors): found none"),
        ({"offset": 0, "expected": "x"}, "what, at byte 0x0: expected x"),
    ],
)
@pytest.mark.parametrize("kind", [FormatError, UnsupportedError, LimitError])
def test_message_shape(kind, where, message):
    error = kind("what", **where)
    assert str(error) == message
    for name, value in where.items():
        assert getattr(error, name) == value


def test_limit_error():
    error = LimitError("too many", path="a", limit="n_kv", value=70_000, maximum=65_536)
    assert str(error) == "a: too many (n_kv): expected at most 65536, found 70000"
    assert (error.limit, error.value, error.maximum, error.field) == ("n_kv", 70_000, 65_536, "n_kv")


def test_context_length_error():
    error = ContextLengthError("the prompt is too long", n_prompt=9, n_ctx=8, max_new=1)
    assert (error.n_prompt, error.n_ctx, error.max_new) == (9, 8, 1)
    assert str(error) == "the prompt is too long"


def test_numerics_error():
    assert (NumericsError("x", step=3, layer=2).step, NumericsError("x").layer) == (3, None)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_cross_processes(duplicate):
    error = LimitError("too many", path="a", offset=16, limit="n_kv", value=2, maximum=1, code="C")
    again = duplicate(error)
    assert type(again) is LimitError
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("token_embd.weight", "'token_embd.weight'"),
        (b"bytes", "'bytes'"),
        ("\x1b[2Jclear", "'\\x1b[2Jclear'"),
        ("line\nERROR: forged", "'line\\nERROR: forged'"),
        ("\u202eright to left", "'\\u202eright to left'"),
        (b"\xff\xfe", "'\\udcff\\udcfe'"),
        ("x" * 64, repr("x" * 64)),
        ("x" * 65, repr("x" * 64) + "..."),
        ("é".encode() * 1000, repr("é" * 64) + "..."),
        (b"a" + "é".encode() * 1000, repr("a" + "é" * 63) + "..."),
        ("", "''"),
    ],
)
def test_quoted(name, shown):
    assert quoted(name) == shown
    assert quoted(name).isprintable()


def test_errors_of_the_core_are_these_classes():
    with pytest.raises(FormatError) as caught:
        _core.split_strings(b"\x01" + bytes(7) + b"a" + b"\xff" * 8, 2, 100)
    assert caught.value.index == 1
    joined, offsets, consumed = _core.split_strings(b"\x01" + bytes(7) + b"a" + bytes(8) + b"rest", 2, 100)
    assert (joined, offsets.tolist(), consumed) == (b"a", [0, 1, 1], 17)
