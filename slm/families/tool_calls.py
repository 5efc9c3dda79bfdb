# SPDX-License-Identifier: Apache-2.0
"""How models write calls of tools into their answers: a style for each way that published chat templates have of it."""

import json
import re
from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple, NoReturn

WORD = re.compile(r"([^\s{}\[\],:]+)(:?)")  # a key, or a value that JSON writes in the same way

Call = tuple[str, dict[str, Any]]  # name and arguments
Read = tuple[str, list[Call]]  # the text without the calls, and those


class Style(NamedTuple):
    """sign: what a template of this style has in its source. mark: what begins a call in an answer, "" for no such thing."""

    sign: str
    mark: str
    read: Callable[[str], Read]


def call_of(value: Any, arguments: str, name: str = "name") -> Call | None:
    """The call that a JSON value stands for, or None for anything else. arguments, name: the keys of these two."""
    if not isinstance(value, dict) or not isinstance(called := value.get(name), str):
        return None
    given = value.get(arguments)
    if isinstance(given, str):  # JSON within JSON, as OpenAI's dictionaries have it
        given = whole_json(given)
    return (called, given) if isinstance(given, dict) else None


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
    return read_between(text, "<tool_call>", "</tool_call>", lambda body: call_of(whole_json(body), "arguments"))


def read_between(text: str, begin: str, end: str, read: Callable[[str], Call | None]) -> Read:
    first, *parts = text.split(begin)
    kept, calls = [first], []
    for part in parts:
        body, _, rest = part.partition(end)
        call = read(body)
        if call is None:
            kept.append(begin + part)
        else:
            calls.append(call)
            kept.append(rest)
    return ("".join(kept).strip(), calls) if calls else (text, [])


def read_escaped(text: str) -> Read:
    """FunctionGemma: <start_function_call>call:name{key:<escape>text<escape>,other:3}<end_function_call>, several."""
    return read_between(text, "<start_function_call>", "<end_function_call>", escaped_call)


def escaped_call(body: str) -> Call | None:
    """As JSON, once its texts and keys are in quotes."""
    call, brace, rest = body.strip().partition("{")
    parts = f"{brace}{rest}".split("<escape>")
    arguments = "".join(json.dumps(part) if i % 2 else WORD.sub(quoted_key, part) for i, part in enumerate(parts))
    named = {"name": call.removeprefix("call:"), "arguments": whole_json(arguments)}
    return call_of(named, "arguments") if call.startswith("call:") else None


def quoted_key(word: re.Match[str]) -> str:
    return f"{json.dumps(word[1])}:" if word[2] else word[0]


def read_bare(text: str) -> Read:
    """Llama 3: the whole answer is {"name": ..., "parameters": ...}."""
    call = call_of(whole_json(text.removeprefix("<|python_tag|>")), "parameters")
    return ("", [call]) if call else (text, [])


def read_list(text: str) -> Read:
    """Mistral: [TOOL_CALLS] [{"name": ..., "arguments": ...}, ...] at the end."""
    before, _, behind = text.partition("[TOOL_CALLS]")
    return read_values(text, before, whole_json(behind), "arguments", "name")


def read_action(text: str) -> Read:
    """Command R7B: <|START_ACTION|>[{"tool_call_id": ..., "tool_name": ..., "parameters": ...}, ...]<|END_ACTION|> at the end."""
    before, _, behind = text.partition("<|START_ACTION|>")
    return read_values(text, before, whole_json(behind.partition("<|END_ACTION|>")[0]), "parameters", "tool_name")


def read_values(text: str, before: str, values: Any, arguments: str, name: str) -> Read:
    """All values are calls, or it is all text."""
    calls = [call_of(value, arguments, name) for value in values] if isinstance(values, list) else []
    known = [call for call in calls if call is not None]
    return (before.strip(), known) if known and len(known) == len(calls) else (text, [])


STYLES = (
    Style("<|START_ACTION|>", "<|START_ACTION|>", read_action),
    Style("<start_function_call>", "<start_function_call>", read_escaped),
    Style("<tool_call>", "<tool_call>", read_tagged),
    Style("[TOOL_CALLS]", "[TOOL_CALLS]", read_list),
    Style('"parameters": ', "", read_bare),
)


def style_of(template: str) -> Style | None:
    """Of a chat template's source; None where it shows no calls in a style that is known here."""
    return next((style for style in STYLES if style.sign in template and "tool_calls" in template), None)
