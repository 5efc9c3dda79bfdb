# SPDX-License-Identifier: Apache-2.0
"""Make tests/data/chat/cases.json: conversations rendered by Transformers (5 or later), and the schemas it makes of functions.

    pip install ".[oracle]" && python tests/oracle/make_chat.py

The templates are the *.jinja files beside it, which use what published templates use, and those in the files of
tests/data/vocab that hold one. "cases" holds, per template and conversation, an index into "texts" for each of "arguments"; null
where Transformers refuses.
"""

import json
import sys
from pathlib import Path

from gguf import GGUFReader
from transformers.utils.chat_template_utils import _normalize_chat_messages, get_json_schema, render_jinja_template

TESTS = Path(__file__).parent.parent
DATA = TESTS / "data"
sys.path.insert(0, str(TESTS))
from chat_tools import SPECIAL, TOOLS  # noqa: E402


def turns(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "number", "description": "the first; größer als 0"},
                "b": {"type": ["integer", "string"]},
                "rest": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["a"],
        },
    },
}
SYSTEM = [{"role": "system", "content": "  You are terse. "}]
CALL = [
    {"role": "user", "content": "What is 1 + 2?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "2"}}}],
    },
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "add", "content": "3"},
]
CONVERSATIONS = {
    "one": turns("Hi"),
    "three": turns(" a ", "b\n", "c\n\nd"),
    "system": SYSTEM + turns("Hi", "yo", "Grüße, 東京 😀"),
    "system later": turns("a", "b") + SYSTEM + turns("c"),
    "switch": [{"role": "system", "content": "Answer. /no_think "}, *turns("Hi", "\n\nyo")],
    "call": CALL,
    "called": [*SYSTEM, *CALL, {"role": "assistant", "content": "It is 3."}, {"role": "user", "content": "Thanks"}],
    "arguments as text": [
        CALL[0],
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1}'}}]},
    ],
    "think": turns("q", "<think>\nhm\n</think>\n\nanswer", "q2"),
    "reasoning": [*turns("q"), {"role": "assistant", "content": "so", "reasoning": "hm"}, *turns("q2")],
    "thinking last": [*turns("q"), {"role": "assistant", "content": "so ", "thinking": "hm\n"}],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "image"}, {"type": "text", "text": "there"}]}
    ],
    "tools in a message": [{"role": "system", "content": "s", "tools": "[]"}, *turns("Hi")],
    "unfinished": turns("Count.", "One, two, "),
}
DOCUMENTS = [{"title": "One", "text": "first <b>text</b>"}, {"title": "Zwei", "text": "ä", "page": 3}]
SCHEMAS = [ADD, get_json_schema(TOOLS[3])]
ARGUMENTS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "tools": SCHEMAS},
    {"add_generation_prompt": True, "documents": DOCUMENTS},
    {
        "add_generation_prompt": True,
        "tools": SCHEMAS,
        "documents": DOCUMENTS,
        "enable_thinking": False,
        "controls": {"citations": 1},
    },
    {"add_generation_prompt": True, "tools": SCHEMAS, "tools_in_user_message": False, "date_string": "1 May", "thinking": True},
    {"add_generation_prompt": True, "enable_thinking": False, "builtin_tools": ["search", "code_interpreter"]},
    {"add_generation_prompt": False, "continue_final_message": True},
    {"add_generation_prompt": False, "continue_final_message": "reasoning_content"},
]


def rendered(source, messages, arguments):
    try:
        texts, _ = render_jinja_template([_normalize_chat_messages(messages)], chat_template=source, **SPECIAL, **arguments)
    except Exception:
        return None
    return texts[0]


def main():
    templates = {path.name: path.read_text() for path in sorted((DATA / "chat").glob("*.jinja"))}
    for path in sorted((DATA / "vocab").glob("*.gguf")):
        field = GGUFReader(path).get_field("tokenizer.chat_template")
        if field is not None:
            templates[path.name] = field.contents()
    texts = {}
    cases = {
        template: {
            name: [
                None if text is None else texts.setdefault(text, len(texts))
                for text in (rendered(source, messages, arguments) for arguments in ARGUMENTS)
            ]
            for name, messages in CONVERSATIONS.items()
        }
        for template, source in templates.items()
    }
    schemas = [get_json_schema(tool) for tool in TOOLS]
    fixture = {"conversations": CONVERSATIONS, "arguments": ARGUMENTS, "schemas": schemas, "cases": cases, "texts": list(texts)}
    text = json.dumps(fixture, ensure_ascii=False, separators=(",", ":")).replace('","', '",\n"')
    (DATA / "chat" / "cases.json").write_text(text + "\n")
    print(f"{len(templates)} templates, {len(CONVERSATIONS)} conversations, {len(texts)} texts, {len(text)} characters")


if __name__ == "__main__":
    main()
