# SPDX-License-Identifier: Apache-2.0
"""Calls of tools in answers: each style read as published templates write it, what is no call left alone, a whole round."""

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slm
from slm.chat import ChatTemplate
from slm.families.tool_calls import STYLES, Style, read_json, style_of
from slm.generation import read_calls

CHAT = Path(__file__).parent / "data" / "chat"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CALLS = [("weather", {"city": "Århus", "days": 3, "more": {"a": [1, None, "}"]}}), ("nothing", {})]


# Their way to write calls, by published templates and the documentation of FunctionGemma and Nemotron-Mini.
ACTION = """{%- for message in messages %}
{%- if message.tool_calls %}<|START_ACTION|>[
    {% for call in message.tool_calls %}
    {%- set function = call.function %}
    {"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ function.name }}", "parameters": {{ function.arguments | tojson }}}
    {%- if not loop.last %},{% endif %}
    {% endfor %}
]<|END_ACTION|><|END_OF_TURN_TOKEN|>{% else %}{{ message.content }}{% endif %}
{%- endfor %}"""
ESCAPED = """{%- macro written(value) -%}
{%- if value is string %}<escape>{{ value }}<escape>
{%- elif value is mapping %}{
{%- for key, each in value | dictsort %}{{ key }}:{{ written(each) }}{% if not loop.last %},{% endif %}{% endfor %}}
{%- elif value is iterable %}[{% for each in value %}{{ written(each) }}{% if not loop.last %},{% endif %}{% endfor %}]
{%- else %}{{ value | tojson }}{% endif %}{%- endmacro %}
{%- for message in messages %}{{ message.content }}{% for call in message.tool_calls or [] -%}
<start_function_call>call:{{ call.function.name }}{{ written(call.function.arguments) }}<end_function_call>
{%- endfor %}{% endfor %}{% if not add_generation_prompt %}<end_of_turn>{% endif %}"""

NAMED = """{%- for message in messages %}{{ message.content }}{% for call in message.tool_calls or [] %}[TOOL_CALLS]
{{- call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}
{%- if not add_generation_prompt %}</s>{% endif %}"""
CALL_ID = NAMED.replace("[ARGS]", "[CALL_ID]{{ call.id }}[ARGS]")
TOOLCALL = """{%- for message in messages %}{{ message.content }}{% if message.tool_calls %}<TOOLCALL>[
{%- for call in message.tool_calls %}{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
{%- if not loop.last %}, {% endif %}{% endfor %}]</TOOLCALL>{% endif %}{% endfor %}
{%- if not add_generation_prompt %}<|eot_id|>{% endif %}"""
# These do not know "tool_calls".
ROLES = """{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
IN_TAGS = "{% if tools %}{{ tools | tojson }} call by <tool_call></tool_call>{% endif %}" + ROLES
MARKED = "{% if tools %}{{ tools | tojson }} call by <|tool_call|>{% endif %}" + ROLES
MINI = "{% for tool in tools or [] %}<tool> {{ tool | tojson }} </tool>{% endfor %}" + ROLES
OWN_ROLES = """{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}
{%- if message.role == "assistant_tool_call" %}<|assistant|><|tool_call|>{{ message.content }}<|end|>
{%- elif message.role in ("user", "assistant", "tool_response") %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endif %}
{%- endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
IN_SYSTEM = """{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}
{%- if message['tools'] %}<|tool|>{{ message['tools'] }}<|/tool|>{% endif %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
LINES = """[gMASK]<sop>{% if tools %}<|system|>{{ tools | tojson }}{% endif %}{% for message in messages %}<|{{ message.role }}|>
{{- message.metadata }}
{{ message.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% else %}<|user|>{% endif %}"""
OLD_LINES = (
    LINES.replace("{% if tools %}<|system|>{{ tools | tojson }}{% endif %}", "")
    .replace("<|{{", "{% if message['tools'] %}<|system|>{{ message['tools'] | tojson }}{% endif %}{% if message.content %}<|{{")
    .replace("content }}{% endfor", "content }}{% endif %}{% endfor")
)


def written(template, calls):
    """The answer that a template writes of calls: what stands between the prompt and the end of the turn."""
    tool_calls = [{"id": "123456789", "type": "function", "function": {"name": n, "arguments": a}} for n, a in calls]
    question = [{"role": "user", "content": "x"}]
    chat = ChatTemplate(template, SPECIAL, [])
    prompt, _ = chat.render(question, True)
    whole, _ = chat.render([*question, {"role": "assistant", "content": "", "tool_calls": tool_calls}], False)
    assert whole.startswith(prompt.removesuffix("<think>\n"))
    return whole[len(prompt.removesuffix("<think>\n")) :]


@pytest.mark.parametrize(
    ("name", "n_calls", "ends"),
    [
        ("thinking", 2, "<|im_end|>\n"),
        ("inst", 2, "</s>"),
        ("header_ids", 1, "<|eot_id|>"),
        (ACTION, 2, "<|END_OF_TURN_TOKEN|>"),
        (ESCAPED, 2, "<end_of_turn>"),
        (NAMED, 2, "</s>"),
        (CALL_ID, 2, "</s>"),
        (TOOLCALL, 2, "<|eot_id|>"),
        (IN_TAGS, 2, "<|end|>"),
        (MARKED, 2, "<|end|>"),
        (OWN_ROLES, 2, "<|end|>"),
        (IN_SYSTEM, 2, "<|end|>"),
        (MINI, 2, "<|end|>"),
        (LINES, 1, "<|user|>"),
    ],
    ids=lambda value: value if str(value).isidentifier() else "",
)
def test_what_templates_write_is_read_back(name, n_calls, ends):
    template = name if "{" in name else (CHAT / f"{name}.jinja").read_text()
    answer = written(template, CALLS[:n_calls])
    text, calls = style_of(template).read(answer[: answer.rindex(ends)])
    assert (text.replace("<think>\n\n</think>", "").strip(), calls) == ("", CALLS[:n_calls])


def test_templates_without_a_known_style_have_none():
    for name in ("turns", "plain_roles", "documents"):
        assert style_of((CHAT / f"{name}.jinja").read_text()) is None


SCHEMA = {"type": "function", "function": {"name": "f", "description": "<|end|>"}}
BODY = '{"name": "f", "description": "<|end|>"}'
ARGUMENTS = '{"a": "é"}'
F = '{"name": "f", "arguments": {"a": "é"}}'
FULL = json.dumps(SCHEMA)
A_ROUND = [
    {"role": "user", "content": "x"},
    {
        "role": "assistant",
        "content": "So: ",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": "é"}}},
            {"function": {"name": "f", "arguments": ARGUMENTS}},
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "y"},
]


END = "<|end|>"


@pytest.mark.parametrize(
    ("template", "tools", "calls", "role"),
    [
        (
            IN_TAGS,
            f"[{FULL}] call by <tool_call></tool_call>",
            f"So: <tool_call>{F}</tool_call>\n<tool_call>{F}</tool_call>",
            "tool",
        ),
        (MINI, f"<tool> {FULL} </tool>", f"So: <toolcall> {F} </toolcall>\n<toolcall> {F} </toolcall>", "tool"),
        (MARKED, f"[{FULL}] call by <|tool_call|>", f"So: <|tool_call|>[{F}, {F}]", "tool_response"),
        (OWN_ROLES, f"[{FULL}]", f"<|tool_call|>So: [{F}, {F}]", "tool_response"),
        (IN_SYSTEM, f"<|system|><|tool|>[{BODY}]<|/tool|><|end|>", f"So: <|tool_call|>[{F}, {F}]<|/tool_call|>", "tool_response"),
    ],
    ids=["in_tags", "mini", "marked", "own_roles", "in_system"],
)
def test_templates_that_do_not_know_tool_calls(template, tools, calls, role):
    """They get tools, calls and results in their own words; nor does a control token come of these."""
    text, guards = ChatTemplate(template, SPECIAL, [END, "<|tool_call|>"]).render(A_ROUND, True, tools=[SCHEMA])
    assert text == f"{tools}<|user|>x{END}<|assistant|>{calls}{END}<|{role}|>y{END}<|assistant|>"
    assert len(text[: text.index(END) + 1].encode()) in guards


@pytest.mark.parametrize("template", [LINES, OLD_LINES], ids=["lines", "old_lines"])
def test_a_line_and_arguments(template):
    text, _ = ChatTemplate(template, SPECIAL, []).render(A_ROUND, True, tools=[SCHEMA])
    call = f"<|assistant|>f\n{ARGUMENTS}"
    assert text == f"[gMASK]<sop><|system|>[{FULL}]<|user|>\nx<|assistant|>\nSo: {call}{call}<|observation|>\ny<|assistant|>"


def test_content_in_parts_keeps_its_parts():
    parts = [{"type": "text", "text": "So: "}]
    message = {"role": "assistant", "content": parts, "tool_calls": A_ROUND[1]["tool_calls"]}
    template = ChatTemplate("<tool_call>{{ messages[0].content | map(attribute='text') | join }}", SPECIAL, [])
    assert template.render([message], False)[0] == f"<tool_call>So: <tool_call>{F}</tool_call>\n<tool_call>{F}</tool_call>"


def test_a_system_message_stays():
    for template in (IN_SYSTEM, OLD_LINES):
        system = {"role": "system", "content": "z"}
        text, _ = ChatTemplate(template, SPECIAL, []).render([system, *A_ROUND], True, tools=[SCHEMA])
        assert (text.count("<|system|>"), text.count("z")) == (1 + (template is OLD_LINES), 1)


@pytest.mark.parametrize("wrong", ["x", [1], [{"name": 1}], [{"name": "f", "arguments": {}}, {}], {"name": "f"}])
def test_wrong_calls_in_a_conversation(wrong):
    with pytest.raises(ValueError, match=r"'tool_calls'.* must be a list of"):
        ChatTemplate(IN_TAGS, SPECIAL, []).render([{"role": "assistant", "content": "", "tool_calls": wrong}], True)


def test_a_template_without_a_place_for_tools_refuses_them(smollm2):
    assert "tools" not in smollm2.tokenizer.chat_templates["default"]
    for call in (smollm2.chat, smollm2.session, smollm2.tokenizer.apply_chat_template):
        with pytest.raises(slm.TemplateError, match="tools: the chat template has no place for them"):
            call(*([] if call == smollm2.session else [[ASKED]]), tools=[weather])
    for content in (None, "Well."):
        called = {"role": "assistant", "content": content, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
        with pytest.raises(slm.TemplateError, match=r"messages\[1\]\['tool_calls'\]: the chat template has no place for them"):
            smollm2.chat([ASKED, called])
    assert smollm2.chat([ASKED], tools=[], max_tokens=1).usage.completion_tokens == 1


CALL = '{"name": "f", "arguments": {}}'
ACTIONS, CALLS_ESCAPED, TAGGED, LIST, TAGGED_LIST, MARKS, ENDED_MARKS, MINIS, LINE, BARE = (style.read for style in STYLES)


@pytest.mark.parametrize(
    ("read", "answer", "text", "calls"),
    [
        (TAGGED, 'Let me see. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> ', "Let me see.", [("f", {"a": 1})]),
        (TAGGED, '<tool_call>\n{"name": "f", "arguments": "{\\"a\\": 1}"}', "", [("f", {"a": 1})]),  # cut before its end
        (TAGGED, f"<tool_call>{CALL}</tool_call><tool_call>{{</tool_call>", "<tool_call>{</tool_call>", [("f", {})]),
        (LIST, '[TOOL_CALLS][{"name": "f", "arguments": {}}]', "", [("f", {})]),
        (
            LIST,
            '[TOOL_CALLS]f[ARGS]{"a": "}{[ARGS]"}[TOOL_CALLS] f-2 {"a": 1}\n',
            "",
            [("f", {"a": "}{[ARGS]"}), ("f-2", {"a": 1})],
        ),
        (LIST, f"Well. [TOOL_CALLS]{CALL}", "Well.", [("f", {})]),
        (TAGGED, f"<tool_call>[{CALL}, {CALL}]</tool_call>", "", [("f", {}), ("f", {})]),
        (TAGGED, f"\n{CALL}\n", "", [("f", {})]),  # Qwen2.5-Coder-0.5B leaves the tags out
        (TAGGED_LIST, f"Well. <TOOLCALL>[{CALL}]</TOOLCALL>", "Well.", [("f", {})]),
        (MARKS, f"Well. <|tool_call|> [{CALL}]\n", "Well.", [("f", {})]),
        (MARKS, f"<tool_call>[{CALL}]", "", [("f", {})]),
        (ENDED_MARKS, f"<|tool_call|>{CALL}<|/tool_call|><|tool_call|>[{CALL}]", "", [("f", {}), ("f", {})]),
        (MINIS, f"<toolcall> {CALL} </toolcall>", "", [("f", {})]),
        (LINE, 'get.x\n{"a":\n1}\n', "", [("get.x", {"a": 1})]),
        (ACTIONS, '<|START_ACTION|>[{"tool_name": "f", "parameters": {}}]', "", [("f", {})]),  # as the text says to write it
        (
            CALLS_ESCAPED,
            "<start_function_call>call:f{a:<escape>{b:1},<escape>,c:-1.5}<end_function_call> ",
            "",
            [("f", {"a": "{b:1},", "c": -1.5})],
        ),
        (CALLS_ESCAPED, "<start_function_call>call:f{}<end_function_call>So.", "So.", [("f", {})]),
        (BARE, '<|python_tag|>{"name": "f", "parameters": {"a": "b"}}', "", [("f", {"a": "b"})]),
    ],
)
def test_variants(read, answer, text, calls):
    assert read(answer) == (text, calls)


BROKEN = [
    "", "Hello", "{", "[]", "null", "<tool_call>", "</tool_call>", "<tool_call></tool_call>", "[TOOL_CALLS]", "[TOOL_CALLS] [1]",
    '{"name": "Ada", "age": 36}', '{"name": 1, "parameters": {}}', '{"name": "f", "parameters": [1]}', '[{"name": "f"}]',
    '<tool_call>{"name": "f", "arguments": 1}',
    '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>', '{"name": "f", "parameters": {"a": -1e999}}',
    '[TOOL_CALLS] [{"name": "f", "arguments": {}}, 3]', '{"name": "f", "parameters": ' + "9" * 5000 + "}",
    "<|START_ACTION|>[]", '<|START_ACTION|>[{"name": "f", "parameters": {}}]<|END_ACTION|>', "<start_function_call>call:f",
    "<start_function_call>f{}", "<start_function_call>call:f{a:<escape>b}", "<start_function_call>call:f{a:b}",
    "<start_function_call>call:f" + "{a:" * 100_000, "<start_function_call>call:f{" + "a" * 1_000_000,
    "[TOOL_CALLS]f[ARGS]", "[TOOL_CALLS]f[ARGS][]", '[TOOL_CALLS]so, f{"a": 1}', '[TOOL_CALLS]f[ARGS]{"a": 1} and',
    "<|tool_call|>[]", "<|tool_call|>[{}]<|/tool_call|>", '<|tool_call|>[{"name": "f", "arguments": {}}, {}]',
    "<TOOLCALL>f</TOOLCALL>", "f\n", "f\n[1]", 'The answer\n{"a": 1}', '\n{"a": 1}', "f\n" + '{"a":' * 100_000,
    "<toolcall>" * 10_000, "<tool_call>" * 10_000, "<|tool_call|>" * 10_000, "[TOOL_CALLS]f{" * 10_000,
    '{"name": "", "arguments": {}}', '{"name": "", "parameters": {}}', "<start_function_call>call:{}<end_function_call>",
    '<tool_call>{"name": " ", "arguments": {}}</tool_call>', "{" * 100_000, "<tool_call>" + '{"a":' * 100_000,
    "[TOOL_CALLS]" + "[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_what_is_no_call_stays_text(style):
    for answer in BROKEN:
        assert style.read(answer) == (answer, [])


PIECES = [
    "<|START_ACTION|>",
    "<start_function_call>call:f{",
    "a:",
    "<escape>",
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "f[ARGS]{",
    "<|tool_call|>",
    "<|/tool_call|>",
    "<toolcall>",
    "</TOOLCALL>",
    "f\n",
    '{"name": "f"',
    ', "arguments": {}}',
    "[",
    "]",
    "x",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES)))
def test_nothing_raises(pieces):
    for style in STYLES:
        text, calls = style.read("".join(pieces))
        assert isinstance(text, str)
        assert all(isinstance(name, str) and isinstance(arguments, dict) for name, arguments in calls)


def test_marks_that_are_control_tokens_are_seen(smollm2):
    """A text leaves control tokens out, and so the marks of most styles; here two of another vocabulary's stand for them."""
    style = Style("", "<|im_start|>", partial(read_json, begin="<|im_start|>", end="<|im_end|>"))
    said = f"Well. <|im_start|>{CALL}<|im_end|><|im_start|>[{CALL}]"
    tokens = smollm2.tokenizer.encode(said, add_special_tokens=False, parse_special=True)
    text = said.replace("<|im_start|>", "").replace("<|im_end|>", "")
    content, calls = read_calls(style, smollm2.tokenizer, text, tokens)
    assert (content, [call.name for call in calls]) == ("Well.", ["f", "f"])


def weather(city: str) -> str:
    """Get the weather.

    Args:
        city: The city
    """
    return f"rain in {city}"


def test_a_round_with_a_tool(smollm2):
    template = (CHAT / "thinking.jinja").read_text()
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    options = {"tools": [weather], "chat_template": template, "constrain": slm.choice([call])}
    output = smollm2.chat(messages, **options)
    assert (output.text, output.tool_calls) == ("", [slm.ToolCall("weather", {"city": "Oslo"})])
    assert "calls weather" in repr(output)
    choice = output.to_openai()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
    result = {"role": "tool", "tool_call_id": output.tool_calls[0].id, "content": weather(**output.tool_calls[0].arguments)}
    text = smollm2.tokenizer.apply_chat_template([*messages, output.message, result], chat_template=template, tokenize=False)
    assert text.index(call) < text.index("rain in Oslo")
    outputs = smollm2.chat(messages, n=2, temperature=1.0, **options)
    assert [each.tool_calls for each in outputs] == [output.tool_calls] * 2
    del options["tools"]
    assert smollm2.chat(messages, **options).text == call


# ---- sessions --------------------------------------------------------------------------------------------------------

TALK = {"tools": [weather], "chat_template": (CHAT / "thinking.jinja").read_text()}
ASKED = {"role": "user", "content": "What is the weather in Oslo and Rome?"}
TWO_CALLS = "\n".join(
    f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>' for city in ("Oslo", "Rome")
)
CALLING = {"constrain": slm.choice([TWO_CALLS])}


def results(output):
    return [{"role": "tool", "tool_call_id": call.id, "content": weather(**call.arguments)} for call in output.tool_calls]


def test_a_session_calls_tools_as_chat_does(smollm2, tmp_path):
    session = smollm2.session("Be brief.", **TALK)
    called = session.send(ASKED["content"], **CALLING)
    assert (called.text, called.tool_calls) == ("", [slm.ToolCall("weather", {"city": city}) for city in ("Oslo", "Rome")])
    system = {"role": "system", "content": "Be brief."}
    assert session.messages == [system, ASKED, called.message]
    length, n_prompt = session.length, called.usage.prompt_tokens
    before = session.fork()
    session.save(tmp_path / "talk")
    answer = session.send(results(called), max_tokens=12)
    messages = [system, ASKED, called.message, *results(called)]
    cold = smollm2.chat(messages, max_tokens=12, **TALK)
    assert answer.tokens == cold.tokens
    # The calls run again where the template writes them in other tokens than those drawn; what is before them never does.
    assert answer.timings.prefill_tokens <= cold.timings.prefill_tokens - n_prompt
    assert session.messages == [*messages, answer.message]
    again = slm.Session.open(smollm2, tmp_path / "talk")
    assert again.messages == before.messages
    assert [other.send(results(called), max_tokens=12).tokens for other in (before, again)] == [answer.tokens] * 2
    session.rewind(length)  # behind a turn of one message, before one of two
    assert session.messages == [system, ASKED, called.message]


def test_streamed_calls_are_there_at_the_end(smollm2):
    session = smollm2.session(**TALK)
    with session.stream([ASKED], **CALLING) as stream:
        assert "".join(chunk.text for chunk in stream) == TWO_CALLS
    calls = stream.output.tool_calls
    assert [call.name for call in calls] == ["weather"] * 2
    assert [call["id"] for call in session.messages[-1]["tool_calls"]] == [call.id for call in calls]
    session = smollm2.session(**TALK)
    stream = session.stream(ASKED, constrain=slm.regex(r'<tool_call>\{"name": "f", "arguments": \{\}\}</tool_call>[a-z]{99}'))
    while "</tool_call>" not in stream.output.text:
        next(stream)
    stream.close()  # an answer that was not finished calls nothing
    assert stream.output.tool_calls == []
    assert session.messages == [ASKED, {"role": "assistant", "content": stream.output.text}]


def test_what_is_said_is_kept_as_it_was(smollm2):
    session = smollm2.session(**TALK)
    said = {"role": "user", "content": "Hi"}
    session.send(said, max_tokens=2)
    said["content"] = "Ho"
    session.messages[0]["content"] = "Ha"
    assert session.messages[0]["content"] == "Hi"
    for wrong, exception, part in (
        (3, TypeError, "message must be a str, a mapping with a role and content, or a sequence"),
        ([{"role": "user", "content": "x"}, "y"], TypeError, r"message\[1\] must be"),
        ([], ValueError, "message is an empty sequence"),
        ({"role": "user", "content": b"x"}, TypeError, r"message\['content'\] must be plain data"),
        ({"content": "x"}, ValueError, "must have a 'role'"),
    ):
        with pytest.raises(exception, match=part):
            session.send(wrong)
    assert len(session.messages) == 2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("weather", '{"a": "\\ud800"}'),
        ("weather", '{"a": ' + "[" * 70 + "]" * 70 + "}"),
        ("weather", '{"a": NaN}'),
        ("\\ud800", "{}"),
    ],
)
def test_a_call_that_no_conversation_can_hold_stays_text(smollm2, name, arguments):
    call = f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'
    session = smollm2.session(**TALK)
    output = session.send(ASKED, constrain=slm.choice([call]))
    assert (output.text, output.tool_calls) == (call, [])


def test_a_message_does_not_share_what_its_calls_hold():
    from slm.output import Output, Timings, ToolCall, Usage

    call = ToolCall("f", {"a": [1]})
    output = Output("", [], finish_reason="stop", usage=Usage(1, 1), timings=Timings(0, 0, 1, 0), seed=0, tool_calls=[call])
    message = output.message
    call.arguments["a"].append(2)
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": [1]}
