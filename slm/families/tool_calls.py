# SPDX-License-Identifier: Apache-2.0
"""How models write calls of tools into their answers: a style for each way that published chat templates have of it."""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, NoReturn

from slm.errors import TemplateError

NAME = re.compile(r"[\w.:/-]+")
WORD = re.compile(r"([^\s{}\[\],:]+)(:?)")  # a key, or a value that JSON writes in the same way

Call = tuple[str, dict[str, Any]]  # name and arguments
Read = tuple[str, list[Call]]  # the text without the calls, and those
Messages = list[dict[str, Any]]


class Style(NamedTuple):
    """sign: what a template of this style has in its source. mark: what begins a call in an answer, "" for no such thing.

    say: a conversation in the words of the style, (messages, tools, template) -> messages, for its templates that do not know
    "tool_calls"; None where all of them do.
    """

    sign: str
    mark: str
    read: Callable[[str], Read]
    say: Callable[[Messages, Sequence[Any], str], Messages] | None = None


def call_of(value: Any, arguments: str, name: str = "name") -> Call | None:
    """The call that a JSON value stands for, or None for anything else. arguments, name: the keys of these two."""
    if not isinstance(value, dict) or not isinstance(called := value.get(name), str) or not called.strip():
        return None
    given = value.get(arguments)
    if isinstance(given, str):  # JSON within JSON, as OpenAI's dictionaries have it
        given = whole_json(given)
    return (called, given) if isinstance(given, dict) else None


def calls_of(value: Any, arguments: str = "arguments", name: str = "name") -> list[Call]:
    """Of one call, or of a list in which all values are calls; none for anything else."""
    calls = [call_of(each, arguments, name) for each in (value if isinstance(value, list) else [value])]
    known = [call for call in calls if call is not None]
    return known if len(known) == len(calls) else []


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


# ---- reading -------------------------------------------------------------------------------------------------------------


def read_between(text: str, begin: str, end: str, read: Callable[[str], list[Call]]) -> Read:
    """end may be left out, and is "" in a style without one."""
    first, *parts = text.split(begin)
    kept, calls = [first], []
    for part in parts:
        body, _, rest = part.partition(end) if end else (part, "", "")
        found = read(body)
        calls += found
        kept.append(rest if found else begin + part)
    return ("".join(kept).strip(), calls) if calls else (text, [])


def read_json(text: str, begin: str, end: str, arguments: str = "arguments", name: str = "name") -> Read:
    """{"name": ..., "arguments": ...} or a list of such between begin and end, several, with text around them."""
    return read_between(text, begin, end, lambda body: calls_of(whole_json(body), arguments, name))


def read_tagged(text: str) -> Read:
    """Hermes, Qwen: <tool_call>{"name": ..., "arguments": ...}</tool_call>, several; small models leave the tags of one out."""
    content, calls = read_json(text, "<tool_call>", "</tool_call>")
    return (content, calls) if calls else read_bare(text, "arguments")


def read_marked(text: str) -> Read:
    """Granite 3: <|tool_call|>[{"name": ..., "arguments": ...}, ...] at the end; some write <tool_call> as text instead."""
    return read_json(text, "<|tool_call|>", "<|/tool_call|>") if "<|tool_call|>" in text else read_tagged(text)


def read_escaped(text: str) -> Read:
    """FunctionGemma: <start_function_call>call:name{key:<escape>text<escape>,other:3}<end_function_call>, several."""
    return read_between(text, "<start_function_call>", "<end_function_call>", escaped_call)


def escaped_call(body: str) -> list[Call]:
    """As JSON, once its texts and keys are in quotes."""
    call, brace, rest = body.strip().partition("{")
    parts = f"{brace}{rest}".split("<escape>")
    arguments = "".join(json.dumps(part) if i % 2 else WORD.sub(quoted_key, part) for i, part in enumerate(parts))
    named = {"name": call.removeprefix("call:"), "arguments": whole_json(arguments)}
    return calls_of(named) if call.startswith("call:") else []


def quoted_key(word: re.Match[str]) -> str:
    return f"{json.dumps(word[1])}:" if word[2] else word[0]


def read_named(text: str) -> Read:
    """Mistral: [TOOL_CALLS] [{"name": ..., "arguments": ...}, ...] at the end; later [TOOL_CALLS]name[ARGS]{...}, several."""
    return read_between(text, "[TOOL_CALLS]", "", named_calls)


def named_calls(body: str) -> list[Call]:
    """Of a list, or of a name before its arguments. Between those some models write [CALL_ID] and an id, some nothing."""
    head, brace, rest = body.partition("{")
    name = head.strip().partition("[")[0]
    return calls_of({"name": name, "arguments": whole_json(brace + rest)} if NAME.fullmatch(name) else whole_json(body))


def read_bare(text: str, arguments: str = "parameters") -> Read:
    """Llama 3: the whole answer is {"name": ..., "parameters": ...}."""
    call = call_of(whole_json(text.removeprefix("<|python_tag|>")), arguments)
    return ("", [call]) if call else (text, [])


def read_lines(text: str) -> Read:
    """GLM-4: the whole answer is the name and, from the next line on, the arguments."""
    name, _, arguments = text.strip().partition("\n")
    calls = calls_of({"name": name, "arguments": whole_json(arguments)}) if NAME.fullmatch(name) else []
    return ("", calls) if calls else (text, [])


# ---- saying, where the template does not -----------------------------------------------------------------------------------


def called(message: dict[str, Any]) -> list[Call]:
    """What a message calls, as OpenAI's dictionaries have it."""
    given = message.get("tool_calls", [])
    calls = calls_of([call.get("function", call) for call in given])
    if given and not calls:
        raise ValueError('\'tool_calls\' of a message must be a list of {"function": {"name": ..., "arguments": {...}}}')
    return calls


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def in_content(message: dict[str, Any], text: str) -> dict[str, Any]:
    """A message that says its calls in its content."""
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    content = message.get("content", "")
    return rest | {"content": [*content, {"type": "text", "text": text}] if isinstance(content, list) else f"{content}{text}"}


def with_tools(messages: Messages, value: Any) -> Messages:
    """For templates that look for tools in the system message."""
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": ""}, *messages]
    return [messages[0] | {"tools": value}, *messages[1:]]


def say_json(messages: Messages, tools: Sequence[Any], template: str, begin: str, end: str) -> Messages:
    """SmolLM3, Nemotron-Mini: the template writes tools and their results."""

    def text(calls: list[Call]) -> str:
        return "\n".join(begin + written({"name": name, "arguments": arguments}) + end for name, arguments in calls)

    return [in_content(message, text(calls)) if (calls := called(message)) else message for message in messages]


def say_marked(messages: Messages, tools: Sequence[Any], template: str) -> Messages:
    """Granite 3 and Phi-4-mini: calls in one list, results in a role of their own; Phi's tools are JSON in the system message."""
    own_role = "assistant_tool_call" in template  # Granite 3.0 writes the mark for messages of this role
    said = []
    for message in messages:
        if calls := called(message):
            body = written([{"name": name, "arguments": arguments} for name, arguments in calls])
            end = "<|/tool_call|>" if "<|/tool|>" in template else ""
            message = in_content(message, body if own_role else f"<|tool_call|>{body}{end}")
            message |= {"role": "assistant_tool_call"} if own_role else {}
        said.append(message | {"role": "tool_response"} if message["role"] == "tool" else message)
    in_message = tools and "['tools']" in template
    return with_tools(said, written([tool.get("function", tool) for tool in tools])) if in_message else said


def say_lines(messages: Messages, tools: Sequence[Any], template: str) -> Messages:
    """GLM-4: a message for each call, its name as metadata; in the older template tools are part of the system message."""
    said = []
    for message in messages:
        calls = called(message)
        if message.get("content") or not calls:
            said.append(message | {"role": "observation"} if message["role"] == "tool" else message)
        said += [{"role": message["role"], "metadata": name, "content": written(arguments)} for name, arguments in calls]
    return with_tools(said, list(tools)) if tools and "['tools']" in template else said


ACTION = partial(read_json, begin="<|START_ACTION|>", end="<|END_ACTION|>", arguments="parameters", name="tool_name")
STYLES = (
    Style("<|START_ACTION|>", "<|START_ACTION|>", ACTION),  # Command R7B
    Style("<start_function_call>", "<start_function_call>", read_escaped),
    # Hermes, Qwen, SmolLM3, EXAONE 4, Granite 4
    Style("<tool_call>", "<tool_call>", read_tagged, partial(say_json, begin="<tool_call>", end="</tool_call>")),
    Style("[TOOL_CALLS]", "[TOOL_CALLS]", read_named),
    Style("<TOOLCALL>", "<TOOLCALL>", partial(read_json, begin="<TOOLCALL>", end="</TOOLCALL>")),  # Llama-Nemotron
    Style("<|tool_call|>", "<|tool_call|>", read_marked, say_marked),
    Style(
        "<|/tool|>", "<|tool_call|>", partial(read_json, begin="<|tool_call|>", end="<|/tool_call|>"), say_marked
    ),  # Phi-4-mini
    Style(  # Nemotron-Mini
        "<tool> ",
        "<toolcall>",
        partial(read_json, begin="<toolcall>", end="</toolcall>"),
        partial(say_json, begin="<toolcall> ", end=" </toolcall>"),
    ),
    Style("[gMASK]<sop>", "", read_lines, say_lines),
    Style('"parameters": ', "", read_bare),
)


def style_of(template: str) -> Style | None:
    """Of a chat template's source; None where it shows no calls in a style that is known here."""
    known = "tool_calls" in template
    return next((style for style in STYLES if style.sign in template and (known or style.say)), None)


def in_own_words(template: str, messages: Messages, tools: Sequence[Any]) -> Messages:
    """A conversation with calls and tools as a template reads it that does not know "tool_calls"; else as it is.

    Raises TemplateError for calls that nothing is known to write.
    """
    if "tool_calls" in template:
        return messages
    style = style_of(template)
    if style and style.say:
        return style.say(messages, tools, template)
    i = next((i for i, message in enumerate(messages) if message.get("tool_calls")), None)
    if i is not None:
        raise TemplateError(f"messages[{i}]['tool_calls']: the chat template has no place for them")
    return messages
