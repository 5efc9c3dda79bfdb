# SPDX-License-Identifier: Apache-2.0
"""The Python face on the real model: records, streams, stop strings, sessions, threads, interrupts."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import slm
from slm.output import Timings, Usage

REFERENCE = json.loads((Path(__file__).parent / "data" / "reference" / "smollm2-135m-instruct-q4_1.json").read_text())
PLAIN = {entry["id"]: entry for entry in REFERENCE if isinstance(entry["prompt"], str)}
PROMPT = PLAIN["plain"]["prompt"]


# ---- records ---------------------------------------------------------------------------------------------------------


def make_output(text="one\ntwo"):
    return slm.Output(text, [1, 2, 3], finish_reason="stop", usage=Usage(5, 3), timings=Timings(0.5, 0.25, 5, 2), seed=7)


def test_output_record():
    output = make_output()
    assert str(output) == "one\ntwo"
    assert f"{output:_>9}" == "__one\ntwo"
    assert repr(output) == r"Output('one\ntwo', 3 tokens, finish_reason='stop', seed=7, 8.0 tokens/s)"
    assert "\n" not in repr(make_output("x\n" * 500))
    assert len(repr(make_output("x\n" * 500))) < 200
    assert output.usage.total_tokens == 8
    assert (output.timings.prefill_tokens_per_second, output.timings.decode_tokens_per_second) == (10.0, 8.0)
    assert Timings(0.0, 0.0, 0, 0).decode_tokens_per_second == 0.0
    assert dataclasses.asdict(output)["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "cut_tokens": 0,
        "drafted_tokens": 0,
        "accepted_tokens": 0,
    }
    assert output.logprobs is None
    for record in (output, output.usage, output.timings, slm.Chunk("a", [1])):
        assert not hasattr(record, "__dict__")
        with pytest.raises(AttributeError):
            setattr(record, dataclasses.fields(record)[0].name, 0)


def test_output_html_escapes_the_text():
    html = make_output("<script>alert(1)</script>&")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in html


def test_openai_dictionaries():
    output = make_output()
    found = output.to_openai(model="tiny")
    assert found.pop("id").startswith("cmpl-")
    assert found.pop("created") > 1.7e9
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}}
    choice = {"index": 0, "text": "one\ntwo", "logprobs": None, "finish_reason": "stop"}
    assert found == {"object": "text_completion", "model": "tiny", "choices": [choice], "usage": usage}
    chat = dataclasses.replace(output, kind="chat.completion").to_openai()
    assert chat["id"].startswith("chatcmpl-")
    assert chat["id"] != dataclasses.replace(output, kind="chat.completion").to_openai()["id"]
    assert (chat["object"], chat["model"]) == ("chat.completion", "slm")
    message = {"role": "assistant", "content": "one\ntwo", "refusal": None}
    assert chat["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]


def test_kinds_of_outputs(smollm2):
    session = smollm2.session()
    session.send("Hi", max_tokens=1)
    outputs = [smollm2.generate("Hi", max_tokens=1), smollm2.chat("Hi", max_tokens=1), session.send("So?", max_tokens=1)]
    assert [output.kind for output in outputs] == ["text_completion", "chat.completion", "chat.completion"]
    assert outputs[2].to_openai()["usage"]["prompt_tokens_details"]["cached_tokens"] > 5


def test_html_of_records(smollm2):
    html = smollm2._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == html.count("</tr>") == len(smollm2.info.rows()) + 1
    assert "134,515,008" in html
    assert smollm2.info._repr_html_() in html.replace(html[html.rindex("<tr>") :], "</table>")
    score = slm.Score(-1.5, False, [-0.5, -1.0], [5, 6], ["<b>", "\n"])
    assert "<b>" not in score._repr_html_()
    assert (
        '<span title="p = 0.607, logprob = -0.500" style="background: hsl(73 70% 50% / 0.35)">&lt;b&gt;</span>'
        in score._repr_html_()
    )
    assert ">5 </span>" in dataclasses.replace(score, pieces=[])._repr_html_()
    assert repr(score) == r"Score('<b>\n', logprob=-1.5000, 2 tokens)"


def test_chunk_record():
    assert str(slm.Chunk("a", [1])) == "a"
    assert slm.Chunk("a", [1]).finish_reason is None


# ---- generate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", PLAIN)
def test_prompt_ids_and_records(smollm2, id):
    entry = PLAIN[id]
    output = smollm2.generate(entry["prompt"], max_tokens=4, ignore_eos=True)
    assert output.usage == Usage(len(entry["prompt_ids"]), 4)
    assert len(output.tokens) == 4
    assert output.finish_reason == "length"
    assert output.text == smollm2.tokenizer.decode(output.tokens)
    assert output.timings.prefill_tokens == len(entry["prompt_ids"])
    assert output.timings.decode_tokens == 3
    assert output.timings.prefill_seconds > 0 < output.timings.decode_seconds
    assert smollm2.generate(entry["prompt_ids"], max_tokens=4, ignore_eos=True).tokens == output.tokens


@pytest.mark.parametrize(
    "convert", [tuple, np.array, lambda ids: np.array(ids, np.uint16), lambda ids: [np.int64(id) for id in ids]]
)
def test_flat_ids_of_any_sequence(smollm2, convert):
    ids = PLAIN["plain"]["prompt_ids"]
    assert smollm2.generate(convert(ids), max_tokens=3).tokens == smollm2.generate(PROMPT, max_tokens=3).tokens


def test_a_list_gives_what_each_prompt_gives_alone(smollm2):
    prompts = [PROMPT, PLAIN["story"]["prompt_ids"], "x", (504, 3575), np.array([504])]
    options = {"max_tokens": 6, "temperature": 0.8, "seed": 11}
    together = smollm2.generate(prompts, **options)
    assert [output.tokens for output in together] == [smollm2.generate(prompt, **options).tokens for prompt in prompts]
    assert [output.seed for output in together] == [11] * 5
    assert smollm2.generate([]) == []
    assert smollm2.generate(()) == []
    rows = smollm2.generate(np.array([[504, 3575], [504, 2988]]), max_tokens=2)
    assert [row.tokens for row in rows] == [smollm2.generate([504, id], max_tokens=2).tokens for id in (3575, 2988)]


@pytest.mark.parametrize(
    ("prompt", "exception", "part"),
    [
        (None, TypeError, "prompt must be a str"),
        (3, TypeError, "prompt must be a str"),
        (b"text", TypeError, "prompt must be a str"),
        ({"role": "user"}, TypeError, "prompt must be a str"),
        (iter([1]), TypeError, "prompt must be a str"),
        ([{"role": "user", "content": "x"}], TypeError, r"chat\(\)"),
        (["a", 3], TypeError, r"prompt\[1\] must be a prompt"),
        ([1, "a"], TypeError, r"prompt\[0\] must be a prompt"),
        ([1, 2.0], TypeError, r"prompt\[1\] must be a token id, not float"),
        ([1, True], TypeError, r"prompt\[1\] must be a token id, not bool"),
        ([5, -1], ValueError, r"prompt\[1\] must be a token id from 0 to 49151, not -1"),
        ([49152], ValueError, r"prompt\[0\] must be a token id from 0 to 49151, not 49152"),
        ([[1], [2, 49152]], ValueError, r"prompt\[1\]\[1\] must be a token id from 0 to 49151, not 49152"),
        (np.array([0.5]), TypeError, "flat sequence of token ids, not float64"),
        (np.zeros((1, 1, 1), int), TypeError, "shape"),
        ("a\ud800", ValueError, "prompt holds a lone surrogate at index 1"),
        (["a", "\ud800"], ValueError, r"prompt\[1\] holds a lone surrogate at index 0"),
    ],
)
def test_wrong_prompts(smollm2, prompt, exception, part):
    with pytest.raises(exception, match=part):
        smollm2.generate(prompt, max_tokens=1)


def test_empty_prompt_is_the_bos_token(smollm2):
    bos = smollm2.tokenizer.bos_id
    expected = smollm2.generate([bos], max_tokens=3).tokens
    for empty in ("", np.array([], dtype=np.int32)):
        output = smollm2.generate(empty, max_tokens=3)
        assert (output.tokens, output.usage.prompt_tokens) == (expected, 1)


def test_max_tokens_zero(smollm2):
    output = smollm2.generate(PROMPT, max_tokens=0)
    assert (output.text, output.tokens, output.finish_reason) == ("", [], "length")


def test_seed_replays_and_is_drawn(smollm2):
    options = {"max_tokens": 8, "temperature": 1.5}
    first = smollm2.generate("Once", **options)
    assert smollm2.generate("Once", **options, seed=first.seed).tokens == first.tokens
    assert len({tuple(smollm2.generate("Once", **options).tokens) for _ in range(4)}) > 1
    assert len({smollm2.generate("Once", max_tokens=0).seed for _ in range(4)}) == 4


def test_top_k_one_and_tiny_top_p_are_greedy(smollm2):
    greedy = smollm2.generate(PROMPT, max_tokens=5).tokens
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}):
        assert smollm2.generate(PROMPT, max_tokens=5, **{"temperature": 1.0, **options}, seed=3).tokens == greedy


def test_unknown_options(smollm2):
    for call in (smollm2.generate, smollm2.stream, smollm2.chat, smollm2.session().send):
        with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
            call("x", max_new_tokens=3)


# ---- context ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(smollm2_path):
    with slm.load(smollm2_path, context=32) as model:
        yield model


def test_context_is_never_cut(short):
    ids = list(range(100, 132))
    for prompt, n in ((ids, 32), ([*ids, 5], 33), (ids * 100, 3200)):
        with pytest.raises(slm.ContextLengthError) as caught:
            short.generate(prompt, max_tokens=5)
        assert (caught.value.n_prompt, caught.value.n_ctx, caught.value.max_new) == (n, 32, 5)
        assert str(n) in str(caught.value)
    with pytest.raises(
        slm.ContextLengthError, match=r"prompt\[1\] has 32 tokens and the context 32 positions, which leaves no room"
    ):
        short.generate(["fine", ids], max_tokens=5)
    with pytest.raises(slm.ContextLengthError, match="the conversation has"):
        short.chat("word " * 30)
    with pytest.raises(slm.ContextLengthError):
        short.forward([*ids, 5])
    assert short.generate(ids, max_tokens=0).finish_reason == "length"
    assert short.forward(ids, logits="last").logits.shape == (1, short.vocab_size)


def test_generation_ends_with_the_context(short):
    output = short.generate(list(range(100, 120)), max_tokens=100, ignore_eos=True)
    assert output.finish_reason == "length"
    assert 12 <= len(output.tokens) <= 13  # the last token needs no position of its own
    assert short.context == 32


# ---- forward ---------------------------------------------------------------------------------------------------------


def test_forward(smollm2):
    ids = PLAIN["story"]["prompt_ids"]
    everything = smollm2.forward(ids)
    last = smollm2.forward(np.array(ids), logits="last")
    assert everything.logits.shape == (len(ids), smollm2.vocab_size)
    assert everything.logits.dtype == np.float32
    assert np.array_equal(everything.logits[-1:], last.logits)
    assert np.array_equal(smollm2.forward(PROMPT).logits, smollm2.forward(smollm2.tokenizer.encode(PROMPT)).logits)
    assert int(last.logits.argmax()) == smollm2.generate(ids, max_tokens=1, ignore_eos=True).tokens[0]
    assert repr(last) == "Forward(logits=float32[1, 49152])"


@pytest.mark.parametrize(
    ("tokens", "options", "exception", "part"),
    [
        ([], {}, ValueError, "tokens is empty"),
        (b"text", {}, TypeError, "tokens must be a sequence of token ids"),
        ([[1]], {}, TypeError, r"tokens\[0\] must be a token id"),
        ([1, 99999], {}, ValueError, r"tokens\[1\] must be a token id from 0 to 49151"),
        ([1], {"logits": "none"}, ValueError, "logits must be 'all' or 'last', not 'none'"),
        ([1], {"logits": None}, ValueError, "logits must be 'all' or 'last', not None"),
    ],
)
def test_wrong_forward(smollm2, tokens, options, exception, part):
    with pytest.raises(exception, match=part):
        smollm2.forward(tokens, **options)


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["The capital of France is", "Write this in Japanese and with emoji: 東京 😀", "1, 2, 3,"])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "seed": 5}])
def test_a_stream_says_what_generate_says(smollm2, prompt, options):
    whole = smollm2.generate(prompt, max_tokens=24, **options)
    chunks = list(smollm2.stream(prompt, max_tokens=24, **options))
    assert "".join(map(str, chunks)) == whole.text
    assert [id for chunk in chunks for id in chunk.tokens] == whole.tokens
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == whole.finish_reason


def test_stream_checks_at_the_call(smollm2):
    with pytest.raises(ValueError, match="max_tokens"):
        smollm2.stream("x", max_tokens=-1)
    with pytest.raises(TypeError, match="prompt must be one prompt"):
        smollm2.stream(["a", "b"])


def test_closing_a_stream(smollm2):
    with smollm2.stream(PROMPT) as stream:
        assert next(stream).text
    assert list(stream) == []
    stream.close()
    for chunk in smollm2.stream(PROMPT):
        assert chunk.text
        break


# ---- stop strings ----------------------------------------------------------------------------------------------------

STORY = "Once upon a time, in a small village by the sea"


@pytest.fixture(scope="module")
def story(smollm2):
    return smollm2.generate(STORY, max_tokens=40, ignore_eos=True)


def stops_in(text, tokenizer, tokens):
    """Strings of the text that begin and end inside of tokens, with other text behind them."""
    borders, offset = [], 0
    for id in tokens:
        offset += len(tokenizer.decode([id]))
        borders.append(offset)
    for border in borders[3:30:6]:
        stop = text[border - 2 : border + 3]
        if text.find(stop) == border - 2:
            yield stop


def test_stop_strings_across_tokens_never_leak(smollm2, story):
    tried = list(stops_in(story.text, smollm2.tokenizer, story.tokens))
    assert len(tried) >= 3
    for stop in tried:
        expected = story.text[: story.text.index(stop)]
        output = smollm2.generate(STORY, max_tokens=40, ignore_eos=True, stop=stop)
        assert (output.text, output.finish_reason) == (expected, "stop")
        shown = ""
        for chunk in smollm2.stream(STORY, max_tokens=40, ignore_eos=True, stop=[stop, "\0never"]):
            shown += chunk.text
            assert expected.startswith(shown)  # nothing of the stop string, not for a moment
        assert shown == expected


def test_the_start_of_a_stop_string_at_the_end_is_text(smollm2, story):
    output = smollm2.generate(STORY, max_tokens=40, ignore_eos=True, stop=story.text[-4:] + "\0")
    assert (output.text, output.finish_reason) == (story.text, "length")


def test_the_first_of_several_stops_wins(smollm2, story):
    stops = list(stops_in(story.text, smollm2.tokenizer, story.tokens))
    output = smollm2.generate(STORY, max_tokens=40, ignore_eos=True, stop=stops[::-1])
    assert output.text == story.text[: min(map(story.text.index, stops))]


# ---- chat and sessions -----------------------------------------------------------------------------------------------


def test_chat_is_the_template_and_generate(smollm2):
    messages = [
        {"role": "system", "content": "You are a terse assistant."},
        {"role": "user", "content": "Name three uses of a paper clip."},
    ]
    ids = smollm2.tokenizer.apply_chat_template(messages)
    assert smollm2.chat(messages, max_tokens=8).tokens == smollm2.generate(ids, max_tokens=8).tokens
    one = smollm2.chat("Hi", max_tokens=8)
    assert one.tokens == smollm2.chat([{"role": "user", "content": "Hi"}], max_tokens=8).tokens
    with pytest.raises(TypeError, match=r"generate\(\) has no option 'tools'"):
        smollm2.generate("Hi", tools=[])


READS_ALL = (
    "{% for t in tools or [] %}tool {{ t.function.name }}\n{% endfor %}{% for d in documents or [] %}{{ d.text }}\n{% endfor %}"
    "{{ mood }}\n{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one
        b: the other
    """
    return a + b


def test_chat_and_session_hand_on_what_the_template_reads(smollm2):
    keywords = {"tools": [add], "documents": [{"text": "a document"}], "chat_template": READS_ALL}
    ids = smollm2.tokenizer.apply_chat_template(chat_of("Hi"), **keywords, mood="glad")
    assert smollm2.tokenizer.decode(ids).startswith("tool add\na document\nglad\n<|im_start|>user\nHi")
    expected = smollm2.generate(ids, max_tokens=8).tokens
    assert smollm2.chat("Hi", **keywords, chat_template_kwargs={"mood": "glad"}, max_tokens=8).tokens == expected
    session = smollm2.session(**keywords, chat_template_kwargs={"mood": "glad"})
    assert session.send("Hi", max_tokens=8).tokens == expected
    assert session.tokens[: len(ids)] == ids
    fork = session.fork()
    assert fork.send("Hi", max_tokens=4).tokens == session.send("Hi", max_tokens=4).tokens
    messages = chat_of("Count.", "One, two,")
    goes_on = smollm2.tokenizer.apply_chat_template(messages, continue_final_message=True)
    assert smollm2.chat(messages, continue_final_message=True, max_tokens=4).usage.prompt_tokens == len(goes_on)
    for name in ("tools", "messages", "tokenize"):
        with pytest.raises(ValueError, match=f"chat_template_kwargs is for what only the template reads; '{name}'"):
            smollm2.session(chat_template_kwargs={name: 1})
    with pytest.raises(TypeError, match="chat_template_kwargs must be a mapping"):
        smollm2.chat("Hi", chat_template_kwargs=[1])


def test_chat_without_template(smollm2, monkeypatch):
    base = slm.load_tokenizer(smollm2.info.path)
    base.chat_templates = {}
    monkeypatch.setattr(smollm2, "tokenizer", base)
    with pytest.raises(slm.TemplateError, match="no chat template"):
        smollm2.chat("Hi")
    with pytest.raises(slm.TemplateError, match="no chat template"):
        smollm2.session().send("Hi")
    with pytest.raises(slm.TemplateError, match="no chat template"):
        smollm2.session(documents=[])


def test_a_template_that_writes_nothing(smollm2):
    for call in (partial(smollm2.chat, chat_template="{{ '' }}"), smollm2.session(chat_template="{{ '' }}").send):
        with pytest.raises(slm.TemplateError, match="the chat template writes nothing for this conversation"):
            call("Hi")


@pytest.mark.parametrize(
    ("keywords", "exception", "part"),
    [
        ({"chat_template": "nope"}, ValueError, "chat_template must be a Jinja template or a name .*, not 'nope'"),
        ({"chat_template": "{% for %}"}, slm.TemplateError, "the chat template failed"),
        ({"chat_template": 3}, TypeError, "chat_template must be a str"),
        ({"tools": [print], "chat_template": "{{ tools }}"}, TypeError, r"tools\[0\] must be a mapping"),
        ({"documents": [{"text": "x"}]}, slm.TemplateError, "documents: the chat template has no place for them"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, slm.TemplateError, "reads no variable 'enable_thinking'"),
        ({"max_tokens": 3}, TypeError, r"session\(\) has no option 'max_tokens': send\(\) and stream\(\) of the session take it"),
        ({"sytem": "x"}, TypeError, r"session\(\) has no option 'sytem'; did you mean 'system'\?"),
        ({"documents": ["x"]}, TypeError, r"documents\[0\] must be a mapping"),
        ({"chat_template_kwargs": {"a": {1}}}, TypeError, r"chat_template_kwargs\['a'\] must be plain data"),
        ({"system": "\ud800"}, ValueError, "system holds a lone surrogate at index 0"),
    ],
)
def test_a_session_is_refused_before_anything_is_said(smollm2, keywords, exception, part):
    with pytest.raises(exception, match=part):
        smollm2.session(**keywords)


def chat_of(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_session_equals_a_cold_chat(smollm2):
    session = smollm2.session()
    said = []
    for question in ("My name is Ada.", "What is my name?", "Spell it backwards."):
        said.append(question)
        cold = smollm2.chat(chat_of(*said), max_tokens=12)
        warm = session.send(question, max_tokens=12)
        assert warm.tokens == cold.tokens
        assert warm.usage == cold.usage
        said.append(warm.text)
        assert session.messages == chat_of(*said)
        assert session.length == len(session.tokens)
    assert warm.timings.prefill_tokens < cold.timings.prefill_tokens / 2  # only the new turn was computed


def test_session_stream_and_system(smollm2):
    session = smollm2.session("You are terse.")
    text = "".join(map(str, session.stream("Hi", max_tokens=6)))
    assert session.messages == [{"role": "system", "content": "You are terse."}, *chat_of("Hi", text)]
    assert text == smollm2.session("You are terse.").send("Hi", max_tokens=6).text
    with pytest.raises(TypeError, match="system must be"):
        smollm2.session(3)


def test_rewind_takes_back_turns(smollm2):
    session = smollm2.session()
    session.send("My name is Ada.", max_tokens=6)
    length, tokens, messages = session.length, session.tokens, session.messages
    first = session.send("What is my name?", max_tokens=6)
    session.rewind(length)
    assert (session.length, session.tokens, session.messages) == (length, tokens, messages)
    assert session.send("What is my name?", max_tokens=6).tokens == first.tokens
    session.rewind(0)
    assert (session.length, session.messages) == (0, [])
    for wrong, exception in ((-1, ValueError), (1, ValueError), (True, TypeError), (1.0, TypeError)):
        with pytest.raises(exception, match="n_tokens"):
            session.rewind(wrong)


def test_rewind_into_a_turn_keeps_its_tokens(smollm2):
    session = smollm2.session()
    session.send("Count to three.", max_tokens=8)
    kept = session.tokens[:-4]
    session.rewind(len(kept))
    assert (session.tokens, session.messages) == (kept, [])
    session.send("Go on.", max_tokens=2)
    assert session.tokens[: len(kept)] == kept
    assert session.messages[0] == {"role": "user", "content": "Go on."}


def test_append_is_raw_and_stays(smollm2):
    tokenizer = smollm2.tokenizer
    session = smollm2.session()
    session.send("Hi", max_tokens=4)
    before = session.tokens
    raw = tokenizer.encode("<|im_end|>\nA note in between.\n", parse_special=True)
    session.append(raw)
    assert session.tokens == before + raw
    session.append([])
    output = session.send("Again", max_tokens=4)
    rest = tokenizer.encode("<|im_start|>user\nAgain<|im_end|>\n<|im_start|>assistant\n", parse_special=True)
    assert session.tokens[: len(before) + len(raw) + len(rest)] == before + raw + rest
    assert output.tokens == smollm2.generate(before + raw + rest, max_tokens=4).tokens
    with pytest.raises(ValueError, match=r"ids\[0\] must be a token id from 0 to 49151"):
        session.append([-1])
    with pytest.raises(TypeError, match="ids must be a sequence"):
        session.append("text")


def test_a_copy_is_a_fork(smollm2):
    session = smollm2.session()
    session.send("Hi", max_tokens=4)
    other, tokens = copy.copy(session), session.tokens
    other.send("So?", max_tokens=4)
    assert session.tokens == tokens == other.tokens[: len(tokens)]


def test_fork_is_independent(smollm2):
    session = smollm2.session()
    session.send("My name is Ada.", max_tokens=6)
    fork = session.fork()
    tokens = session.tokens
    there = fork.send("What is my name?", max_tokens=6)
    assert session.tokens == tokens
    assert session.send("What is my name?", max_tokens=6).tokens == there.tokens
    assert fork.tokens == session.tokens


def test_session_hits_the_context_and_lives(short):
    session = short.session("")
    with pytest.raises(slm.ContextLengthError):
        session.send("word " * 40)
    assert (session.length, session.messages) == (0, [{"role": "system", "content": ""}])
    assert session.send("a", max_tokens=2).tokens
    with pytest.raises(slm.ContextLengthError):
        session.append(range(100, 130))


def test_open_stream_makes_a_session_busy(smollm2):
    session = smollm2.session()
    stream = session.stream("Count to ten.", max_tokens=20)
    next(stream)
    for call in (
        lambda: session.send("x"),
        lambda: session.rewind(0),
        session.fork,
        lambda: session.append([1]),
        lambda: session.length,
    ):
        with pytest.raises(slm.BusyError, match="open stream"):
            call()
    stream.close()
    assert session.messages[-1]["role"] == "assistant"
    assert session.send("x", max_tokens=2).tokens
    stream = session.stream("y", max_tokens=20)
    next(stream)
    del stream  # dropping it frees the session too
    assert session.send("z", max_tokens=2).tokens
    assert len(session.messages) == 8


def test_a_session_in_two_threads_is_busy_not_broken(smollm2):
    session = smollm2.session()
    session.append(range(100, 1100))
    started = threading.Event()

    def talk():
        started.set()
        session.send("Tell me a story.", max_tokens=60, ignore_eos=True)

    thread = threading.Thread(target=talk)
    thread.start()
    started.wait()
    busy = 0
    while thread.is_alive():
        try:
            session.send("x", max_tokens=1)
        except slm.BusyError:
            busy += 1
            time.sleep(0.01)
    thread.join()
    assert busy
    assert session.messages[0]["content"] in ("Tell me a story.", "x")


# ---- closing, threads, signals ---------------------------------------------------------------------------------------


def test_closed_model(smollm2_path):
    model = slm.load(smollm2_path, context=64)
    session = model.session()
    stream = model.stream(PROMPT, max_tokens=4)
    first = next(stream)
    with model as same:
        assert same is model
    model.close()
    assert "closed" in repr(model)
    for call in (
        lambda: model.generate("x"),
        lambda: model.stream("x"),
        lambda: model.chat("x"),
        lambda: model.forward([1]),
        model.session,
        lambda: session.send("x"),
        session.fork,
    ):
        with pytest.raises(slm.ClosedError, match="closed"):
            call()
    rest = "".join(map(str, stream))  # what runs holds the weights
    assert first.text + rest == " Paris.\n\n"[: len(first.text + rest)]


def test_closing_gives_the_memory_back(smollm2_path):
    if sys.platform != "linux":
        pytest.skip("needs /proc")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    slm.load(smollm2_path, context=64).close()
    before = resident()
    for _ in range(3):
        model = slm.load(smollm2_path, context=64)
        assert resident() - before > 50 << 20
        model.close()
    assert resident() - before < 20 << 20


def test_threads_give_the_serial_answers(smollm2):
    prompts = [PROMPT, STORY, "def f(x):", "1, 2, 3,"]
    serial = [smollm2.generate(prompt, max_tokens=8).tokens for prompt in prompts]
    answers = [[None] * len(prompts) for _ in range(8)]
    barrier = threading.Barrier(8)

    def work(worker):
        barrier.wait()
        for i in range(len(prompts)):
            j = (i + worker) % len(prompts)
            answers[worker][j] = smollm2.generate(prompts[j], max_tokens=8).tokens

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert answers == [serial] * 8


INTERRUPTED = """
import os, signal, sys, threading, time
import slm

model = slm.load(sys.argv[1])
expected = model.generate("The capital of France is", max_tokens=3).tokens
best = {}
for kind, delay in 3 * [("prefill", 0.07), ("decode", 0.4), ("stream", 0.3), ("session", 0.5)]:
    sent = []

    def interrupt():
        time.sleep(delay)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    session = model.session()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        if kind == "prefill":
            while True:
                model.forward(range(100, 4100), logits="last")
        elif kind == "decode":
            while True:
                model.generate("Once", max_tokens=8000, ignore_eos=True)
        elif kind == "stream":
            for chunk in model.stream("Once", max_tokens=8000, ignore_eos=True):
                pass
        else:
            session.send("Tell me a story.", max_tokens=8000, ignore_eos=True)
        sys.exit(f"{kind}: not interrupted")
    except KeyboardInterrupt:
        best[kind] = min(best.get(kind, 9), time.perf_counter() - sent[0])
    thread.join()
    assert model.generate("The capital of France is", max_tokens=3).tokens == expected
    assert (session.length, session.messages) == (0, []), session
    assert session.send("Hi", max_tokens=2).tokens == model.chat("Hi", max_tokens=2).tokens
print(max(best.values()))
"""


def test_ctrl_c_returns_within_100_ms_and_the_model_lives(smollm2_path):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(smollm2_path)], text=True, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 0.1  # of three tries each: a busy machine may delay any of them


def test_the_gil_is_free_while_the_model_runs(smollm2):
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.005)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    smollm2.forward(range(100, 1100), logits="last")
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    assert len(ticks) > seconds / 0.05  # with the GIL held it would tick once


# ---- import, tokenizer -----------------------------------------------------------------------------------------------


def test_import_is_light(tmp_path):
    program = """
import sys, time
import numpy
start = time.perf_counter()
import slm
seconds = time.perf_counter() - start
late = {"jinja2", "tqdm", "torch", "transformers", "slm.families.registry", "slm.loader"}
early = late & set(sys.modules)
import slm.loader
of_folders = {"slm.formats.folder", "slm.formats.peft", "slm.families.llama", "slm.families.tokenizer_json"}
print(seconds, *sorted(early | of_folders & set(sys.modules)))
"""
    # Compiled modules, as an installed package has them; the first run writes them.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    times = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True, env=env)
        seconds, *modules = done.stdout.split()
        assert modules == []
        times.append(float(seconds))
    assert min(times) < 0.06


def test_public_names():
    for name in slm.__all__:
        assert getattr(slm, name).__doc__ or name == "cpu_info"
    assert slm.__version__
    with pytest.raises(AttributeError):
        getattr(slm, "nothing")  # noqa: B009


def test_inspect_reads_the_header(smollm2, smollm2_path):
    info = slm.inspect(smollm2_path, context=64)
    assert (info.name, info.parameters, info.context) == (smollm2.info.name, smollm2.info.parameters, 64)
    assert smollm2.info.context == smollm2.context == 8192


def test_tokenizer(smollm2, smollm2_path):
    tokenizer = slm.load_tokenizer(smollm2_path)
    assert tokenizer.vocab_size == len(tokenizer) == 49152
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert set(tokenizer.end_ids) >= {2}
    assert tokenizer.token_id("<|im_end|>") == 2
    assert tokenizer.token_id("no such piece") is None
    assert tokenizer.token_bytes(504) == b"The"
    assert set(tokenizer.control_ids) >= {0, 1, 2}
    text = "a\0b é 東京 😀 <|im_end|>\r\n\t"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids)) == tokenizer.decode(tuple(ids)) == text
    assert tokenizer.decode(504) == "The"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([1, 504, 2]) == "<|im_start|>The<|im_end|>"
    assert tokenizer.decode([1, 504, 2], skip_special_tokens=True) == "The"
    assert "49152" in repr(tokenizer)


@pytest.mark.parametrize(
    ("call", "exception", "part"),
    [
        (lambda t: t.encode(3), TypeError, "text must be a str, not int 3"),
        (lambda t: t.encode(b"x"), TypeError, "text must be a str"),
        (lambda t: t.encode("x", add_special_tokens=1), TypeError, "add_special_tokens must be True or False"),
        (lambda t: t.encode("x", parse_special=None), TypeError, "parse_special must be True or False"),
        (lambda t: t.encode("\ud800"), ValueError, "text holds a lone surrogate at index 0"),
        (lambda t: t.encode_with_offsets("a\udfff"), ValueError, "text holds a lone surrogate at index 1"),
        (lambda t: t.encode_batch(["", "\ud800"]), ValueError, r"texts\[1\] holds a lone surrogate at index 0"),
        (lambda t: t.token_id("\ud800"), ValueError, "piece holds a lone surrogate at index 0"),
        (lambda t: t.encode("x" * (64 << 20) + "x"), slm.LimitError, "at most 67108864, found 67108865"),
        (lambda t: t.decode("x"), TypeError, "ids must be"),
        (lambda t: t.decode([49152]), ValueError, r"ids\[0\] must be a token id from 0 to 49151, not 49152"),
        (lambda t: t.decode(-1), ValueError, r"ids\[0\] must be a token id from 0 to 49151, not -1"),
        (lambda t: t.decode(None), TypeError, r"ids\[0\] must be a token id, not NoneType"),
        (lambda t: t.token_bytes(49152), ValueError, "id must be an integer from 0 to 49151, not 49152"),
        (lambda t: t.token_id(3), TypeError, "piece must be a str"),
    ],
)
def test_wrong_tokenizer_arguments(smollm2, call, exception, part):
    with pytest.raises(exception, match=part):
        call(smollm2.tokenizer)


def test_models_without_tokenizer_take_ids(smollm2, monkeypatch):
    ids = PLAIN["plain"]["prompt_ids"]
    expected = smollm2.generate(ids, max_tokens=4, ignore_eos=True).tokens
    monkeypatch.setattr(smollm2, "tokenizer", None)
    output = smollm2.generate(ids, max_tokens=4, ignore_eos=True)
    assert (output.tokens, output.text) == (expected, "")
    with pytest.raises(ValueError, match="no tokenizer"):
        smollm2.generate("text")
    with pytest.raises(ValueError, match="stop is given, and the model has no tokenizer"):
        smollm2.generate(ids, stop="x")
    with pytest.raises(ValueError, match="no bos token"):
        smollm2.generate([[]])
    with pytest.raises(slm.TemplateError, match="no tokenizer"):
        smollm2.chat("x")


def test_progress_of_a_load(smollm2_path):
    seen = []
    slm.load(smollm2_path, context=64, progress=lambda done, total: seen.append((done, total))).close()
    assert seen == sorted(seen)
    assert seen[-1][0] <= seen[-1][1]

    def refuse(done, total):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        slm.load(smollm2_path, context=64, progress=refuse)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
