# SPDX-License-Identifier: Apache-2.0
"""How models write calls of tools into their answers: a style for each way that published chat templates have of it."""

import json
from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple, NoReturn

Call = tuple[str, dict[str, Any]]  # name and arguments
Read = tuple[str, list[Call]]  # the text without the calls, and those


class Style(NamedTuple):
    """sign: what a template of this style has in its source. mark: what begins a call in an answer, "" for no such thing."""

    sign: str
    mark: str
    read: Callable[[str], Read]


def call_of(value: Any, arguments: str) -> Call | None:
    """The call that a JSON value stands for, or None for anything else."""
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
        return None
    given = value.get(arguments)
    if isinstance(given, str):  # JSON within JSON, as OpenAI's dictionaries have it
        given = whole_json(given)
    return (name, given) if isinstance(given, dict) else None


def whole_json(text: str) -> Any:
    """None for what is not JSON, or too deep, or holds a number that is no finite float."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    def finite(number: str) -> float:
        value = float(number)
        return value if isfinite(value) else refuse(number)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError):
        return None


def read_tagged(text: str) -> Read:
    """Hermes, Qwen, SmolLM: <tool_call>{"name": ..., "arguments": ...}</tool_call>, several, with text around them."""
    first, *parts = text.split("<tool_call>")
    kept, calls = [first], []
    for part in parts:
        body, _, rest = part.partition("</tool_call>")
        call = call_of(whole_json(body), "arguments")
        if call is None:
            kept.append(f"<tool_call>{part}")
        else:
            calls.append(call)
            kept.append(rest)
    return ("".join(kept).strip(), calls) if calls else (text, [])


def read_bare(text: str) -> Read:
    """Llama 3: the whole answer is {"name": ..., "parameters": ...}."""
    call = call_of(whole_json(text.removeprefix("<|python_tag|>")), "parameters")
    return ("", [call]) if call else (text, [])


def read_list(text: str) -> Read:
    """Mistral: [TOOL_CALLS] [{"name": ..., "arguments": ...}, ...] at the end."""
    before, _, behind = text.partition("[TOOL_CALLS]")
    values = whole_json(behind)
    calls = [call_of(value, "arguments") for value in values] if isinstance(values, list) else []
    known = [call for call in calls if call is not None]
    return (before.strip(), known) if known and len(known) == len(calls) else (text, [])


STYLES = (
    Style("<tool_call>", "<tool_call>", read_tagged),
    Style("[TOOL_CALLS]", "[TOOL_CALLS]", read_list),
    Style('"parameters": ', "", read_bare),
)


def style_of(template: str) -> Style | None:
    """Of a chat template's source; None where it shows no calls in a style that is known here."""
    return next((style for style in STYLES if style.sign in template and "tool_calls" in template), None)
