# SPDX-License-Identifier: Apache-2.0
"""From logits to tokens: against Transformers, against NumPy, by distribution; and the same for any batch, order and threads.

A model whose output layer is zero gives the logits that logit_bias says: the core's samplers run on chosen rows.
"""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny_models

import slm
from slm.generation import core_arguments
from slm.options import GenerateOptions

with np.load(Path(__file__).parent / "data" / "oracle" / "sampling.npz") as file:
    LOGITS, TOKENS, SCORES, CASES = file["logits"], file["tokens"], file["scores"], json.loads(str(file["cases"]))
VOCAB = LOGITS.shape[1]
CONTEXT = 500


def options_of(case):
    """Of the JSON; keys and -inf are strings there."""
    bias = case.get("logit_bias")
    return case if bias is None else case | {"logit_bias": {int(id): float(value) for id, value in bias.items()}}


def core_of(path, vocab_size, blank):
    model = tiny_models.load("llama_gqa_tied")
    embeddings = np.resize(model.weights["embed_tokens"], (vocab_size, model.config.hidden_size))
    head = np.zeros_like(embeddings) if blank else embeddings[::-1].copy()
    weights = model.weights | {"embed_tokens": embeddings, "lm_head": head}
    config = replace(model.config, vocab_size=vocab_size, max_position_embeddings=CONTEXT)
    return tiny_models.core_model(replace(model, config=config, weights=weights), path, "F16")


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    return core_of(tmp_path_factory.mktemp("model") / "weights", VOCAB, blank=True)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return core_of(tmp_path_factory.mktemp("model") / "weights", 300, blank=False)


def arguments(**options):
    return core_arguments(None, (), GenerateOptions(**options))


def tokens_of(core, prompt, **options):
    return core.session().generate(prompt=prompt, **arguments(**options)).next(True, 1)[1]


# ---- one row ---------------------------------------------------------------------------------------------------------


def reference(logits, tokens, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, repetition_penalty=1.0,
              presence_penalty=0.0, frequency_penalty=0.0, penalty_window=64, no_repeat_ngram=0, logit_bias=()):  # fmt: skip
    """What the tokens are drawn by: logits, -inf where one is not to be drawn. With temperature 0 those that the largest is
    taken of."""
    x = logits.astype(np.float64)
    for id, bias in dict(logit_bias).items():
        x[id] += bias
    for id, count in Counter(tokens[-penalty_window:]).items():
        x[id] = x[id] * repetition_penalty if x[id] < 0 else x[id] / repetition_penalty
        x[id] -= presence_penalty + count * frequency_penalty
    n = no_repeat_ngram
    if n:
        seen = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
        x[[id for id in range(len(x)) if tuple([*tokens, id][-n:]) in seen and len(tokens) + 1 >= n]] = -np.inf
    if temperature == 0:
        return x
    x /= temperature
    if 0 < top_k < len(x):
        x[x < np.sort(x)[-top_k]] = -np.inf
    if top_p < 1:
        order = np.argsort(-x, kind="stable")
        mass_before = np.cumsum(softmax(x)[order]) - softmax(x)[order]
        x[order[mass_before >= top_p]] = -np.inf
    p = softmax(x)
    x[p < min_p * p.max()] = -np.inf
    if typical_p < 1:
        p = softmax(x)
        information = np.where(p > 0, -np.log(np.maximum(p, 1e-300)), np.inf)
        distance = abs(information - np.sum(p[p > 0] * information[p > 0]))
        order = np.argsort(distance, kind="stable")
        last = order[np.argmax(np.cumsum(p[order]) >= typical_p - 1e-12)]
        x[distance > distance[last] + 1e-9] = -np.inf
    return x


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


@pytest.mark.parametrize("i", range(len(CASES)), ids=lambda i: ",".join(CASES[i]))
def test_the_reference_does_as_transformers_does(i):
    for row, tokens, theirs in zip(LOGITS, TOKENS.tolist(), SCORES[i], strict=True):
        ours = reference(row, tokens, **options_of(CASES[i]))
        at_the_edge = 0
        if CASES[i].get("top_p", 1) < 1 and len(set(row)) < VOCAB // 2:  # of equal logits it keeps others, but as many
            at_the_edge = np.isfinite(ours).sum() == np.isfinite(theirs).sum()
        if not at_the_edge:
            np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
        both = np.isfinite(ours) & np.isfinite(theirs)
        np.testing.assert_allclose(ours[both], theirs[both], rtol=1e-5, atol=1e-5)


MORE_CASES = [  # that Transformers has not
    {"temperature": 1.0, "presence_penalty": 1.5},
    {"temperature": 1.0, "frequency_penalty": 0.4, "penalty_window": 10},
    {"temperature": 1.0, "repetition_penalty": 1.4, "presence_penalty": -0.5, "frequency_penalty": 0.3, "penalty_window": 7},
    {"temperature": 1.0, "penalty_window": 1, "repetition_penalty": 2.0, "top_k": 9, "typical_p": 0.9},
    {"temperature": 1.4, "frequency_penalty": 0.2, "no_repeat_ngram": 2, "min_p": 0.05, "logit_bias": {"5": 1.0}},
]


def draws(core, prompt, count, **options):
    pieces = core.generate(prompts=[prompt], **arguments(max_tokens=1, n=count, seed=1, **options))
    return [token for piece in pieces for token in piece[1]]


def surprise(counts, p):
    """How far the counts of a sample lie from probabilities p, in standard deviations of a normal variable: chi-square of cells
    of at least 5 expected, by Wilson and Hilferty (1931)."""
    order = np.argsort(-p)
    expected, found, cells = 0.0, 0.0, []
    for i in order[p[order] > 0]:
        expected, found = expected + p[i] * counts.sum(), found + counts[i]
        if expected >= 5:
            cells.append((expected, found))
            expected = found = 0.0
    cells[-1] = (cells[-1][0] + expected, cells[-1][1] + found)
    df = len(cells) - 1
    if df == 0:
        return 0.0
    chi2 = sum((found - expected) ** 2 / expected for expected, found in cells)
    return ((chi2 / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))


@pytest.mark.parametrize("case", CASES + MORE_CASES, ids=",".join)
def test_draws_are_distributed_as_the_reference_says(blank, case):
    """No token is drawn that is cut off, and the others as often as they should be: at other seeds each row would fail wrongly
    with a probability of 3e-7 (5 standard deviations)."""
    options = options_of(case)
    for row, tokens in zip(LOGITS, TOKENS.tolist(), strict=True):
        p = softmax(reference(row, tokens, **options))
        bias = dict(enumerate(row.tolist()))
        for id, value in options.get("logit_bias", {}).items():
            bias[id] += value
        counts = np.bincount(draws(blank, tokens, 250, **options | {"logit_bias": bias}), minlength=VOCAB)
        assert counts[p == 0].sum() == 0
        assert surprise(counts, p) < 5


def test_many_draws(blank):
    """A whole text is one sample of its row: more draws than above, and along the index of the generator."""
    row = LOGITS[5]
    for options in (
        {"temperature": 1.0},
        {"temperature": 2.0, "top_p": 0.9},
        {"temperature": 1.5, "typical_p": 0.9, "min_p": 0.01},
    ):
        found = np.concatenate(
            [
                tokens_of(blank, [1], max_tokens=CONTEXT, seed=seed, logit_bias=dict(enumerate(row.tolist())), **options)
                for seed in range(20)
            ]
        )
        assert len(found) == 20 * CONTEXT
        p = softmax(reference(row, [1], **options))
        assert set(found) <= set(np.flatnonzero(p))
        assert surprise(np.bincount(found, minlength=VOCAB), p) < 5
        pairs = np.bincount(VOCAB * found[:-1:2] + found[1::2], minlength=VOCAB * VOCAB)  # a draw says nothing of the next
        assert surprise(pairs, np.outer(p, p).reshape(-1)) < 5


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1.0, 100.0])
def test_hard_rows(blank, temperature):
    """Ids stay in the vocabulary and what is banned is banned, whatever the row; with all banned it is an error that names it."""
    low, high, edge = -np.inf, 1e9, np.float32(1e9)
    rows = [
        ({}, set(range(VOCAB))),
        (dict.fromkeys(range(1, VOCAB), low), {0}),
        (dict.fromkeys(range(VOCAB - 1), low), {VOCAB - 1}),
        ({17: high}, {17}),
        ({id: -high for id in range(VOCAB) if id not in (3, 60)}, {3, 60}),
        ({id: float(edge) for id in range(40)}, set(range(40))),
    ]
    cuts = [{}, {"top_k": 1}, {"top_k": 3}, {"top_p": 5e-324}, {"top_p": 0.5}, {"min_p": 1.0}, {"typical_p": 1e-9}]
    for bias, allowed in rows:
        for cut in cuts:
            for seed in (0, 2**64 - 1):
                found = tokens_of(blank, [5], max_tokens=8, temperature=temperature, seed=seed, logit_bias=bias, **cut)
                assert set(found) <= allowed
                if temperature == 0 or cut in ({"top_p": 5e-324},):
                    assert found == [min(allowed)] * 8  # ties to the lowest id
    everything = dict.fromkeys(range(VOCAB), low)
    with pytest.raises(ValueError, match="no token is left to draw: all of them are banned"):
        tokens_of(blank, [5], max_tokens=8, temperature=temperature, logit_bias=everything)
    with pytest.raises(ValueError, match=r"prompt\[1\]: no token is left to draw"):
        blank.generate(prompts=[[5], list(range(VOCAB))], **arguments(temperature=temperature, no_repeat_ngram=1, max_tokens=1))


def test_what_overflows_is_an_error(blank):
    bias = {4: 1e9}
    with pytest.raises(ValueError, match="the logit of token 4 has become inf: expected a finite number or -inf"):
        tokens_of(blank, [4], max_tokens=1, logit_bias=bias, repetition_penalty=1e-300)


# ---- texts -------------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "temperature": 1.3, "top_k": 100, "top_p": 0.98, "min_p": 0.001, "typical_p": 0.97, "repetition_penalty": 1.2,
    "presence_penalty": 0.3, "frequency_penalty": 0.1, "penalty_window": 20, "no_repeat_ngram": 3,
    "logit_bias": {7: 2.0, 8: -np.inf},
}  # fmt: skip
GREEDY = EVERYTHING | {"temperature": 0.0}


def test_greedy_texts_are_those_of_the_reference(core):
    """Step by step from the logits of forward(), the penalties of the text so far."""
    prompt = np.random.default_rng(3).integers(0, 300, 40).tolist()
    plain = tokens_of(core, prompt, max_tokens=60)
    texts = set()
    for options in ({"repetition_penalty": 1.1}, {"presence_penalty": 0.4, "penalty_window": 9}, {"frequency_penalty": 0.2},
                    {"no_repeat_ngram": 1}, {"no_repeat_ngram": 2}, {"logit_bias": {plain[0]: -np.inf}}, GREEDY):  # fmt: skip
        found = tokens_of(core, prompt, max_tokens=60, **options)
        texts.add(tuple(found))
        logits = core.session().forward(prompt + found, "all")[len(prompt) - 1 :]
        for i, token in enumerate(found):
            scores = reference(logits[i], prompt + found[:i], **{"temperature": 0.0} | options)
            assert scores[token] > scores.max() - 1e-6
            assert np.isfinite(scores[token])
    assert len(texts) == 7
    assert tuple(plain) not in texts


@pytest.mark.parametrize("options", [GREEDY, EVERYTHING, EVERYTHING | {"top_k": 0}], ids=["greedy", "sampled", "without top_k"])
def test_any_batch_order_threads_and_draft(core, options):
    rng = np.random.default_rng(4)
    stem = rng.integers(0, 300, 60).tolist()
    prompts = [stem[:length] + rng.integers(0, 9, 5).tolist() for length in (0, 3, 60, 60, 45, 59, 20)] * 2
    options = options | {"max_tokens": 25, "seed": 8}
    expected = [tokens_of(core, prompt, **options) for prompt in prompts]
    for threads, draft, order in [(1, None, 1), (2, "lookup", -1), (3, "lookup", 1), (2, None, -1)]:
        found = core.generate(prompts=prompts[::order], threads=threads, **arguments(draft=draft, **options))
        assert [piece[1] for piece in found[::order]] == expected
    session = core.session()
    session.forward(prompts[2][:50], "none")
    running = session.generate(prompt=prompts[2], n_held=50, **arguments(draft="lookup", **options))
    tokens, finish = [], None
    while finish is None:
        _, new, finish, *_ = running.next(False, 2)
        tokens += new
    assert tokens == expected[2]


def test_n_samples(core):
    """The i-th is the one that `sample` = i gives alone, for any n and any batch; the prompt runs once."""
    prompts = [list(range(110)), [5], list(range(60))]
    options = {"max_tokens": 12, "temperature": 1.2, "seed": 3}
    expected = [
        [core.session().generate(prompt=prompt, **arguments(**options) | {"sample": i}).next(True, 1)[1] for i in range(5)]
        for prompt in prompts
    ]
    assert len({tuple(tokens) for texts in expected for tokens in texts}) == 15
    for n, threads, order in [(5, 1, 1), (5, 2, -1), (3, 2, 1), (1, 1, 1)]:
        found = core.generate(prompts=prompts[::order], threads=threads, **arguments(n=n, **options))
        texts = [[piece[1] for piece in found[i : i + n]] for i in range(0, len(found), n)]
        assert texts == [samples[:n] for samples in expected[::order]]
        assert sum(piece[5] for piece in found) == (60 if n == 1 else n * 59 + (n - 1) * 109)
    with pytest.raises(ValueError, match="n: one session takes one sample"):
        core.session().generate(prompt=[1], **arguments(**options) | {"n": 2})
    with pytest.raises(ValueError, match=r"prompt\[1\]: expected at least one token"):
        core.generate(prompts=[[1], []], **arguments(n=3, **options))


def test_n_samples_of_the_real_model(smollm2):
    options = {"max_tokens": 6, "temperature": 1.0, "seed": 4}
    one = smollm2.generate("The sea", **options)
    outputs = smollm2.generate("The sea", n=3, **options)
    assert [output.seed for output in outputs] == [4, 4, 4]
    assert outputs[0].text == one.text
    assert len({output.text for output in outputs}) == 3
    lists = smollm2.generate(["A hill", "The sea"], n=3, **options)
    assert [[output.text for output in samples] for samples in lists][1] == [output.text for output in outputs]
    assert smollm2.generate([], n=3, **options) == []
    assert [type(samples) for samples in smollm2.generate(["A hill"], n=1, **options)] == [slm.Output]
    answers = smollm2.chat("Say something.", n=2, **options)
    assert answers[0].text == smollm2.chat("Say something.", **options).text
    with pytest.raises(ValueError, match=r"n must be 1 for stream\(\)"):
        smollm2.stream("The sea", n=2, **options)
    with pytest.raises(ValueError, match=r"n must be 1 for send\(\)"):
        smollm2.session().send("The sea", n=2, **options)


def test_an_error_in_a_draw_leaves_the_session_usable(core):
    """The text so far is there, and the state is that of its tokens."""
    prompt = list(range(30))
    bias = dict.fromkeys(range(30, 300), -np.inf)
    session = core.session()
    running = session.generate(prompt=prompt, **arguments(no_repeat_ngram=1, logit_bias=bias | {5: 1.0}, max_tokens=9))
    for _ in range(2):  # a later call goes on, and finds the same
        with pytest.raises(ValueError, match="no token is left to draw"):
            running.next(True, 1)
        assert session.length == 29
    running.close()
    session.forward([29], "none")
    np.testing.assert_array_equal(session.forward([3]), core.session().forward([*prompt, 3]))


# ---- log-probabilities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, GREEDY, EVERYTHING], ids=["greedy", "penalties", "sampled"])
def test_logprobs_are_those_of_the_plain_logits(core, options):
    """Of forward(): before all that changes them. They change no token, and are the same for any batch, threads, draft."""
    prompts = [list(range(50)), [5, 6, 7], list(range(45))]
    options = options | {"max_tokens": 15, "seed": 3}
    alone = [core.session().generate(prompt=p, **arguments(logprobs=4, **options)).next(True, 1) for p in prompts]
    for prompt, (_, tokens, *_, rows) in zip(prompts, alone, strict=True):
        assert tokens == tokens_of(core, prompt, **options)
        logits = core.session().forward(prompt + tokens, "all")[len(prompt) - 1 : -1].astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for token, row, p in zip(tokens, rows, expected, strict=True):
            order = np.argsort(-p, kind="stable")[:4]
            assert [id for id, _ in row] == [token, *order]
            np.testing.assert_allclose([logprob for _, logprob in row], p[[token, *order]], rtol=0, atol=2e-6)
    for threads, draft, order in [(2, None, 1), (1, "lookup", -1)]:
        found = core.generate(prompts=prompts[::order], threads=threads, **arguments(draft=draft, logprobs=4, **options))
        assert [piece[8] for piece in found[::order]] == [piece[8] for piece in alone]
    running = core.session().generate(prompt=prompts[0], **arguments(logprobs=4, **options))
    pieces = [running.next(False, 1) for _ in range(15)]
    assert [row for piece in pieces for row in piece[8]] == alone[0][8]
    wide = core.session().generate(prompt=prompts[0], **arguments(logprobs=400, **options)).next(True, 1)[8]
    assert [len(row) for row in wide] == [301] * 15  # there are no more tokens
    assert [row[:5] for row in wide] == alone[0][8]


def test_logprobs_of_the_real_model(smollm2):
    prompt = "The capital of France is"
    plain = smollm2.generate(prompt, max_tokens=8)
    output = smollm2.generate(prompt, max_tokens=8, logprobs=3)
    assert (output.tokens, output.text) == (plain.tokens, plain.text)
    assert [of.token for of in output.logprobs] == output.tokens
    assert all(of.top[0].token == of.token and len(of.top) == 3 for of in output.logprobs)  # greedy
    assert "".join(of.piece for of in output.logprobs) == output.text
    (score,) = smollm2.score([(smollm2.tokenizer.encode(prompt), output.tokens)])
    np.testing.assert_allclose([of.logprob for of in output.logprobs], score.token_logprobs, rtol=0, atol=1e-6)
    with smollm2.stream(prompt, max_tokens=8, logprobs=3) as stream:
        assert [of for chunk in stream for of in chunk.logprobs] == output.logprobs
    assert smollm2.generate([prompt], max_tokens=8, logprobs=3)[0].logprobs == output.logprobs
    assert smollm2.chat("Hi", max_tokens=2, logprobs=1).logprobs[1].top[0].bytes
    assert smollm2.session().send("Hi", max_tokens=2, logprobs=1).logprobs[1].top[0].bytes
    assert smollm2.generate(prompt, max_tokens=0, logprobs=3).logprobs == []
    assert f"logprob = {output.logprobs[0].logprob:.3f}" in output._repr_html_()
    (choice,) = output.to_openai()["choices"]
    assert choice["logprobs"]["tokens"][0] == output.logprobs[0].piece
    assert choice["logprobs"]["text_offset"][:2] == [0, len(output.logprobs[0].piece)]
    assert choice["logprobs"]["top_logprobs"][0][output.logprobs[0].piece] == choice["logprobs"]["token_logprobs"][0]
    (choice,) = smollm2.chat("Hi", max_tokens=2, logprobs=2).to_openai()["choices"]
    first = choice["logprobs"]["content"][0]
    assert bytes(first["bytes"]).decode() == first["token"] == first["top_logprobs"][0]["token"]
    assert len(first["top_logprobs"]) == 2


def test_echo(smollm2):
    prompt, options = "The capital of France is", {"max_tokens": 4}
    ids = smollm2.tokenizer.encode(prompt)
    plain = smollm2.generate(prompt, **options)
    output = smollm2.generate(prompt, echo=True, **options)
    assert (output.text, output.tokens, output.logprobs) == (prompt + plain.text, ids + plain.tokens, None)
    assert output.usage == plain.usage
    known = smollm2.generate(prompt, echo=True, logprobs=3, **options)
    assert known.tokens == [of.token for of in known.logprobs] == output.tokens
    assert (known.logprobs[0].logprob, known.logprobs[0].top) == (None, ())
    assert known.logprobs[len(ids) :] == smollm2.generate(prompt, logprobs=3, **options).logprobs
    (score,) = smollm2.score([(ids[:1], ids[1:])])
    found = [of.logprob for of in known.logprobs[1 : len(ids)]]
    np.testing.assert_allclose(found, score.token_logprobs, rtol=0, atol=1e-6)
    for of in known.logprobs[1 : len(ids)]:
        assert len(of.top) == 3
        assert of.top[0].logprob >= of.top[1].logprob >= of.top[2].logprob
        assert of.logprob <= of.top[0].logprob
    only = smollm2.generate(prompt, echo=True, logprobs=3, max_tokens=0)
    assert (only.text, only.logprobs) == (prompt, known.logprobs[: len(ids)])
    with smollm2.stream(prompt, echo=True, logprobs=3, **options) as stream:
        chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == known.text
    assert [of for chunk in chunks for of in chunk.logprobs] == known.logprobs
    together = smollm2.generate([prompt, "The sea"], echo=True, logprobs=3, **options)
    assert (together[0].text, together[0].logprobs) == (known.text, known.logprobs)
    samples = smollm2.generate(prompt, echo=True, n=2, temperature=1.0, **options)
    assert all(sample.text.startswith(prompt) for sample in samples)
    assert smollm2.chat(prompt, echo=True, **options).text.endswith(smollm2.chat(prompt, **options).text)
    assert known.to_openai()["choices"][0]["logprobs"]["token_logprobs"][0] is None
    assert known._repr_html_().count("logprob =") == len(known.tokens) - 1
    long = smollm2.generate([5] * 400, echo=True, logprobs=1, max_tokens=1)  # in several steps
    assert len(long.logprobs) == 401
    for call in (smollm2.session().send, smollm2.session().stream):
        with pytest.raises(ValueError, match="echo is not for a session"):
            call("x", echo=True)


# ---- processors ----------------------------------------------------------------------------------------------------------


def test_processors_set_the_logits(core):
    """They see the text so far and what penalties have left, and what they leave is drawn from."""
    prompt, seen = [7, 8, 9], []

    def note(tokens, logits):
        assert (tokens.dtype, logits.dtype, logits.shape) == (np.int32, np.float32, (300,))
        seen.append((tokens, logits.copy()))

    def only(tokens, logits):
        logits[np.arange(300) != 10 * len(tokens)] = -np.inf
        return logits  # the array itself may come back

    for options in ({}, {"temperature": 1.0, "top_k": 3}, {"temperature": 1.0, "top_p": 0.9, "draft": "lookup"}, {"logprobs": 2}):
        seen.clear()
        call = arguments(max_tokens=5, processors=(note, only), logit_bias={4: -np.inf}, **options)
        _, tokens, *_, rows = core.session().generate(prompt=prompt, **call).next(True, 1, 0, call["processors"])
        assert tokens == [30, 40, 50, 60, 70]
        assert [list(ids) for ids, _ in seen] == [prompt + tokens[:i] for i in range(5)]
        logits = core.session().forward(prompt + tokens, "all")[2:-1]
        logits[:, 4] = -np.inf
        np.testing.assert_array_equal([row for _, row in seen], logits)
        if options.get("logprobs"):
            assert [row[0][0] for row in rows] == tokens
            assert all(row[1][1] > row[0][1] for row in rows)  # the model finds others likelier
    together = core.generate(prompts=[prompt, [5]], **arguments(max_tokens=2, temperature=1.0, n=2, processors=only))
    assert [piece[1] for piece in together] == [[30, 40], [30, 40], [10, 20], [10, 20]]


def test_wrong_processors(smollm2):
    """An exception is raised as it is, and objects stay usable."""

    def fails(tokens, logits):
        if len(tokens) > 6:
            raise KeyError("lost")

    def fills(value):
        return lambda tokens, logits: logits.fill(value)

    def resizes(tokens, logits):
        logits.resize(5, refcheck=False)

    prompt = "The capital of France is"
    expected = smollm2.generate(prompt, max_tokens=6)
    for processor, error, part in [
        (fails, KeyError, "lost"),
        (fills(np.nan), ValueError, "the logit of token 0 has become nan"),
        (fills(np.inf), ValueError, "the logit of token 0 has become inf"),
        (fills(-np.inf), ValueError, "no token is left to draw"),
        (lambda tokens, logits: logits + 1, TypeError, r"processors\[0\] must change logits in place and return None"),
        (lambda tokens: None, TypeError, "positional argument"),
        (resizes, ValueError, "the array of logits has another size"),
    ]:
        with pytest.raises(error, match=part):
            smollm2.generate(prompt, max_tokens=6, processors=processor)
        with pytest.raises(error, match=part):
            smollm2.generate([prompt, "The sea"], max_tokens=6, processors=(processor,))
    session = smollm2.session()
    with pytest.raises(KeyError, match="lost"):
        session.send(prompt, max_tokens=6, processors=fails)
    assert session.messages == []
    assert session.send(prompt, max_tokens=6).text == smollm2.chat(prompt, max_tokens=6).text
    assert smollm2.generate(prompt, max_tokens=6).tokens == expected.tokens
    flaky = iter([True, True, False] + [True] * 20)

    def once(tokens, logits):
        if not next(flaky):
            raise ZeroDivisionError

    with smollm2.stream(prompt, max_tokens=6, processors=once) as stream:
        tokens = next(stream).tokens + next(stream).tokens
        with pytest.raises(ZeroDivisionError):
            next(stream)
        tokens += [token for chunk in stream for token in chunk.tokens]  # it goes on where it was
    assert tokens == expected.tokens


def test_a_processor_may_generate(smollm2):
    calls = []

    def asks(tokens, logits):
        calls.append(smollm2.generate("The sea", max_tokens=2).text)

    assert smollm2.generate("A hill", max_tokens=3, processors=asks).text == smollm2.generate("A hill", max_tokens=3).text
    assert calls == [smollm2.generate("The sea", max_tokens=2).text] * 3


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_under_a_constraint(smollm2, temperature):
    """Log-probabilities are over what is allowed, and processors see and change no more than that."""
    prompt = "The capital of France is"
    options = {"constrain": slm.choice([" Paris", " Rome", " a banana"]), "temperature": temperature, "seed": 2}
    plain = smollm2.generate(prompt, **options)
    output = smollm2.generate(prompt, logprobs=1024, **options)
    assert output.tokens == plain.tokens
    logits = smollm2.forward(smollm2.tokenizer.encode(prompt), logits="last").logits[0].astype(np.float64)
    first = [of.token for of in output.logprobs[0].top]
    assert len(first) > 3
    np.testing.assert_allclose([of.logprob for of in output.logprobs[0].top], np.log(softmax(logits[first])), atol=2e-6)
    assert [of.token for of in output.logprobs] == output.tokens
    assert all(of.logprob == 0 for of in output.logprobs if len(of.top) == 1)  # nothing else could come
    starts = []

    def not_paris(tokens, logits):
        starts.append(set(np.flatnonzero(np.isfinite(logits))))
        allowed = [id for id in np.flatnonzero(np.isfinite(logits)) if b"P" in smollm2.tokenizer.token_bytes(int(id))]
        logits[allowed] = -np.inf
        logits[5] = 1e6  # was not allowed and is not now

    other = smollm2.generate(prompt, processors=not_paris, logprobs=2, **options)
    assert starts[0] == set(first)
    assert other.text in (" Rome", " a banana")
    assert smollm2.generate([prompt], processors=not_paris, logprobs=2, **options)[0].logprobs == other.logprobs


def test_with_the_real_model(smollm2):
    prompt = "A, B, C. A, B, C. A, B, C. A,"
    plain = smollm2.generate(prompt, max_tokens=12)
    banned = smollm2.generate(prompt, max_tokens=12, logit_bias={plain.tokens[0]: -math.inf})
    assert banned.tokens[0] != plain.tokens[0]
    once = smollm2.generate(prompt, max_tokens=30, no_repeat_ngram=2)
    ids = smollm2.tokenizer.encode(prompt) + once.tokens
    new = list(pairwise(ids))[-len(once.tokens) :]
    assert len(set(new)) == len(new)
    with pytest.raises(ValueError, match="logit_bias: expected token ids from 0 to 49151, found 49152"):
        smollm2.generate(prompt, logit_bias={49152: 1.0})
    with pytest.raises(slm.ContextLengthError):
        smollm2.generate([5] * 9000, repetition_penalty=1.2)
