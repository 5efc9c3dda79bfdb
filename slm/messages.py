# SPDX-License-Identifier: Apache-2.0
"""Conversations as plain data: messages, documents, tools and variables from outside, checked and copied."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from slm.errors import UnsupportedError
from slm.options import check_text, refuse_type, shown
from slm.tools import tool_schemas

MAX_DEPTH = 64
TEMPLATE_KEYWORDS = ("messages", "add_generation_prompt", "continue_final_message", "tokenize")
SPEAKERS = ("system", "developer", "user", "assistant")
REASONING = ("reasoning_content", "thinking", "reasoning")  # fields of a message that templates read reasoning from

Messages = Sequence[Mapping[str, Any]]
Documents = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any] | Callable[..., Any]]


def template_keywords(tools: Any, documents: Any, chat_template: Any, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keywords of Tokenizer.apply_chat_template() for a model's answer, as plain data. more: variables of the template."""
    keywords = {
        "tools": None if tools is None else plain(tool_schemas(tools), "tools", 1),
        "documents": None if documents is None else plain_documents(documents),
        "chat_template": chat_template,
    }
    if more is None:
        return keywords
    if not isinstance(more, Mapping):
        refuse_type("chat_template_kwargs", "a mapping of names to values", more)
    for name in more:
        if name in keywords or name in TEMPLATE_KEYWORDS:
            raise ValueError(f"chat_template_kwargs is for what only the template reads; {name!r} is not among that")
    return keywords | plain(more, "chat_template_kwargs", 1)


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """A deep copy of a conversation as plain data, so that a template meets no object with methods of its own."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        refuse_type("messages", "a sequence of mappings with a role and content", messages)
    if not messages:
        raise ValueError("messages is empty; a conversation has at least one message")
    copied = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            refuse_type(f"messages[{i}]", "a mapping with a role and content, as Output.message is", message)
        if not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{i}] must have a 'role' that is a str, not {shown(message.get('role'))}")
        # As Transformers does: what is None counts as absent, and reasoning stands under each name that templates read.
        known = {key: value for key, value in plain(message, f"messages[{i}]", 1).items() if value is not None}
        if "content" not in known and not known.get("tool_calls"):
            raise ValueError(f"messages[{i}] has no 'content'; only a message with 'tool_calls' may be without")
        calls = known.get("tool_calls", [])
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise ValueError(f"messages[{i}]['tool_calls'] must be a list of mappings, not {shown(calls)}")
        reasoning = next((known[name] for name in REASONING if name in known), None)
        copied.append(known if reasoning is None else {"thinking": reasoning} | known | {"reasoning_content": reasoning})
    return copied


def are_text_parts(message: Mapping[str, Any], i: int) -> bool:
    """Is the content of messages[i] a list of parts, as OpenAI's client has them? Other lists, such as what a tool has found, are
    the template's own affair; but what is said in a str and not in a part, templates that read parts leave out in silence."""
    content = message.get("content")
    if not isinstance(content, list):
        return False
    typed = [isinstance(part, dict) and isinstance(part.get("type"), str) for part in content]
    is_said = message["role"] in SPEAKERS and any(isinstance(part, str) for part in content)
    if not any(typed) and not is_said:
        return not content
    for j, (part, is_typed) in enumerate(zip(content, typed, strict=True)):
        where = f"messages[{i}]['content'][{j}]"
        if not is_typed:
            raise ValueError(f"{where} must be a part {{'type': 'text', 'text': ...}}, not {shown(part)}")
        if part["type"] != "text":
            raise UnsupportedError(f"{where} is a part of the type {shown(part['type'])}; models read the type 'text' alone")
        if not isinstance(part.get("text"), str):
            raise ValueError(f"{where} must have a 'text' that is a str, not {shown(part.get('text'))}")
    return True


def plain_documents(documents: Any) -> list[Any]:
    if not isinstance(documents, Sequence) or isinstance(documents, str | bytes):
        refuse_type("documents", "a sequence of mappings with a title and text", documents)
    for i, document in enumerate(documents):
        if not isinstance(document, Mapping):
            refuse_type(f"documents[{i}]", "a mapping with a title and text", document)
    return plain(documents, "documents", 1)


def plain(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"{where[:64]}... is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return str.__str__(check_text(where, value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                refuse_type(f"a key of {where}", "a str", key)
        return {str.__str__(check_text(where, key)): plain(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    refuse_type(where, "plain data (str, numbers, bool, None, lists, mappings)", value)


def strings(value: Any) -> Iterator[str]:
    """All strings of plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
