# SPDX-License-Identifier: Apache-2.0
"""Text that comes in, and text that goes out."""

import json
import os
import re
import sys
from typing import Any


def ask() -> str:
    """A line that is typed; stdout may be a file, which takes the answers alone."""
    if sys.stdout.isatty():
        return input("> ")
    print("> ", end="", file=sys.stderr, flush=True)
    return input()


def given_text(argument: str | None, what: str, path: str | None = None) -> str:
    """An argument, what a file holds, or for "-" and for none at all what is piped in."""
    if argument not in (None, "-"):
        return argument
    if path not in (None, "-"):
        with open(path, "rb") as file:
            data = file.read()
    else:
        if argument is None and path is None and sys.stdin.isatty():
            raise ValueError(f"no {what} is given: pass it as an argument, or pipe it in")
        data = sys.stdin.buffer.read()
    source = "stdin" if path in (None, "-") else path
    try:
        text = data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"the {what} from {source}: {error}") from error
    if not text:
        raise ValueError(f"the {what} from {source} is empty")
    return text


def json_file(path: str, option: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return from_json(file.read(), f"{option} {path}")


def from_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error


def printable(text: str) -> str:
    """The text as a terminal may have it: a model must not send it commands."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text) if sys.stdout.isatty() else text


def note(text: str, faint: bool = False) -> None:
    line = f"slm: {text}"
    if faint and sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR"):
        line = f"\x1b[2m{line}\x1b[0m"
    print(line, file=sys.stderr, flush=True)


def sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
