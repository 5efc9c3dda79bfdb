# SPDX-License-Identifier: Apache-2.0
"""generate(), stream() and forward() on the real model: prompts, options, the context's end, stop strings."""

import json
from pathlib import Path

import numpy as np
import pytest

import slm
from slm.output import Usage

REFERENCE = json.loads((Path(__file__).parent / "data" / "reference" / "smollm2-135m-instruct-q4_1.json").read_text())
PLAIN = {entry["id"]: entry for entry in REFERENCE if isinstance(entry["prompt"], str)}
PROMPT = PLAIN["plain"]["prompt"]


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


# ---- context ---------------------------------------------------------------------------------------------------------


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
