# SPDX-License-Identifier: Apache-2.0
"""chat() and sessions on the real model: what templates are given, turns, rewinds, forks, and a session that is busy."""

import copy
import threading
import time
from functools import partial

import pytest

import slm


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
