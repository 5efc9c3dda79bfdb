# SPDX-License-Identifier: Apache-2.0
"""Prompts that do not fit: an error, or cut as asked; what is left out is said, and what runs is exactly the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import slm
from slm.options import GenerateOptions
from slm.overflow import Fitted, fit_chat, fit_prompt, prompt_room

CONTEXT = 96


@pytest.fixture(scope="module")
def model(smollm2_path):
    with slm.load(smollm2_path, context=CONTEXT) as model:
        yield model


def options(overflow, max_tokens=4):
    return GenerateOptions(overflow=overflow, max_tokens=max_tokens)


def turns(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


# ---- the choice of tokens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overflow", "ids", "expected"),
    [
        ("oldest", [1, 2, 3, 4, 5, 6], Fitted([1, 2, 3, 4, 5, 6], 0)),
        ("oldest", [1, 2, 3, 4, 5, 6, 7, 8], Fitted([3, 4, 5, 6, 7, 8], 2)),
        ("oldest", [0, 2, 3, 4, 5, 6, 7, 8], Fitted([0, 4, 5, 6, 7, 8], 2)),  # 0 is bos
        ("middle", [1, 2, 3, 4, 5, 6, 7, 8], Fitted([1, 2, 3, 6, 7, 8], 2)),
        ("middle", [1, 2, 3, 4, 5, 6, 7], Fitted([1, 2, 3, 5, 6, 7], 1)),
    ],
)
def test_cut(overflow, ids, expected):
    assert fit_prompt("prompt", ids, 10, options(overflow), 0) == expected


@given(st.sampled_from(["oldest", "middle"]), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31 - 1), st.booleans())
def test_what_is_kept_fits_and_is_a_subsequence(overflow, n_prompt, n_ctx, max_tokens, with_bos):
    ids = list(range(100, 100 + n_prompt))
    bos = 100 if with_bos else None
    try:
        kept, n_cut = fit_prompt("prompt", ids, n_ctx, options(overflow, max_tokens), bos)
    except slm.ContextLengthError:
        assert n_ctx == 1  # one position cannot hold a prompt and an answer
        assert max_tokens > 0
        return
    assert len(kept) + n_cut == n_prompt
    assert kept == [id for id in ids if id in kept]
    assert kept[-1] == ids[-1]
    assert len(kept) + min(max_tokens, 1) <= n_ctx
    if n_cut:
        assert len(kept) + min(max_tokens, max(1, n_ctx // 2)) == n_ctx
        assert kept[0] == ids[0] or overflow == "oldest" or len(kept) == 1


def test_at_most_half_of_the_context_is_kept_free():
    assert [prompt_room(100, max_tokens) for max_tokens in (0, 1, 30, 50, 51, 10**6)] == [100, 99, 70, 50, 50, 50]


def words(messages):
    """A rendering of one id per word, 1 for each message, and 2 for what begins an answer."""
    return [id for message in messages for id in (1, *map(ord, message["content"]))] + [2]


SYSTEM = [{"role": "system", "content": "S"}]


@pytest.mark.parametrize(
    ("overflow", "n_ctx", "kept"),
    [
        ("oldest", 24, "S" "abc" "d" "efg" "h" "ij"),
        ("oldest", 20, "S" "efg" "h" "ij"),
        ("oldest", 12, "S" "ij"),
        ("middle", 20, "S" "abc" "d" "ij"),
    ],
)  # fmt: skip
def test_whole_turns_go_first(overflow, n_ctx, kept):
    messages = SYSTEM + turns("abc", "d", "efg", "h", "ij")
    ids, n_cut = fit_chat(words, messages, n_ctx, options(overflow), None)
    assert "".join(chr(id) for id in ids if id > 2) == kept
    assert n_cut == len(words(messages)) - len(ids)


@pytest.mark.parametrize("overflow", ["oldest", "middle"])
def test_tokens_go_where_turns_do_not_suffice(overflow):
    messages = SYSTEM + turns("abc", "d", "e" * 30)
    ids, n_cut = fit_chat(words, messages, 20, options(overflow), None)
    assert len(ids) == 16
    assert n_cut == len(words(messages)) - 16
    assert ids[-1] == 2
    assert (ids[:2] == [1, ord("S")]) == (overflow == "middle")


def test_calls_of_tools_go_with_their_question():
    tool = {"role": "tool", "content": "t" * 9}
    messages = [*turns("a", "b"), tool, *turns("c", "d"), *turns("e")]
    ids, _ = fit_chat(words, messages, 12, options("oldest"), None)
    assert "".join(chr(id) for id in ids if id > 2) == "cde"


# ---- models ----------------------------------------------------------------------------------------------------------

LONG = "One two three four five six seven eight nine ten. " * 20


def test_error_is_the_default(model):
    for call in (model.generate, model.stream, model.chat, model.session().send):
        with pytest.raises(slm.ContextLengthError):
            call(LONG, max_tokens=4)


@pytest.mark.parametrize("overflow", ["oldest", "middle"])
def test_what_runs_is_the_rest(model, overflow):
    ids = model.tokenizer.encode(LONG)
    kept, n_cut = fit_prompt("prompt", ids, CONTEXT, options(overflow, 8), model.tokenizer.bos_id)
    expected = model.generate(kept, max_tokens=8)
    output = model.generate(LONG, max_tokens=8, overflow=overflow)
    assert output.tokens == expected.tokens
    assert (output.usage.prompt_tokens, output.usage.cut_tokens) == (CONTEXT - 8, n_cut)
    assert f"{n_cut} prompt tokens cut" in repr(output)
    assert len(output.tokens) == 8
    assert [o.usage.cut_tokens for o in model.generate([LONG, "Hi"], max_tokens=1, overflow=overflow)] == [n_cut - 7, 0]
    with model.stream(LONG, max_tokens=8, overflow=overflow) as stream:
        assert stream.usage.cut_tokens == n_cut
        assert [id for chunk in stream for id in chunk.tokens] == expected.tokens


def test_a_prompt_that_fits_is_never_cut(model):
    assert model.generate("Hi", max_tokens=4, overflow="oldest").usage.cut_tokens == 0
    assert model.generate("Hi", max_tokens=4, overflow="oldest").tokens == model.generate("Hi", max_tokens=4).tokens


def test_an_answer_ends_with_the_context(model):
    output = model.generate("Hi", max_tokens=10_000, ignore_eos=True, overflow="oldest")
    assert output.finish_reason == "length"
    assert output.usage.prompt_tokens + len(output.tokens) in (CONTEXT, CONTEXT + 1)  # the last token need not run


def test_chat_leaves_out_turns(model):
    messages = turns("first question " * 8, "first answer " * 8, "second question " * 4, "second", "third question")
    tokenizer = model.tokenizer
    whole = len(tokenizer.apply_chat_template(messages))
    assert whole > CONTEXT
    shorter = tokenizer.apply_chat_template(messages[2:])
    output = model.chat(messages, max_tokens=8, overflow="oldest")
    assert output.tokens == model.generate(shorter, max_tokens=8).tokens
    assert output.usage.cut_tokens == whole - len(shorter)
    text = tokenizer.decode(shorter)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


def test_a_session_goes_on_and_on(model):
    session = model.session("Be brief.")
    for i in range(8):
        said = session.messages
        output = session.send(f"This is question number {i} of many.", max_tokens=8, overflow="oldest")
        asked = [*said, {"role": "user", "content": f"This is question number {i} of many."}]
        cold = model.chat(asked, max_tokens=8, overflow="oldest")
        assert output.tokens == cold.tokens
        assert (output.usage.prompt_tokens, output.usage.cut_tokens) == (cold.usage.prompt_tokens, cold.usage.cut_tokens)
        assert session.length <= CONTEXT
    assert output.usage.cut_tokens > 0
    assert len(session.messages) == 17  # nothing that was said is forgotten, the model only no longer sees it
    with pytest.raises(slm.ContextLengthError):
        session.send("And without overflow?", max_tokens=8)
    assert len(session.messages) == 17


def test_a_session_behind_given_tokens_is_cut_by_tokens(model):
    session = model.session()
    given = model.tokenizer.encode("A story: " + "once upon a time " * 15)
    session.append(given)
    output = session.send("What is this?", max_tokens=8, overflow="middle")
    question = model.tokenizer.apply_chat_template(turns("What is this?"))
    kept, n_cut = fit_prompt("", given + question, CONTEXT, options("middle", 8), model.tokenizer.bos_id)
    assert n_cut > 0
    assert output.tokens == model.generate(kept, max_tokens=8).tokens
    assert output.usage.cut_tokens == n_cut
    session.rewind(10)
    assert session.tokens == kept[:10]
    assert session.send("And now?", max_tokens=4).usage.prompt_tokens < CONTEXT


@pytest.mark.parametrize(("value", "exception"), [("left", ValueError), (None, TypeError), (1, TypeError)])
def test_wrong_overflow(model, value, exception):
    with pytest.raises(exception, match="overflow must be one of 'error', 'oldest', 'middle', not"):
        model.generate("Hi", overflow=value)
