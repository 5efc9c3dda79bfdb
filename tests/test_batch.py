# SPDX-License-Identifier: Apache-2.0
"""Batches and drafts change the time and nothing else: the tokens, texts and ends of each prompt run alone, without a draft."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import tiny_models
from test_families import CASES, write_gguf
from test_windows import signal_after

import slm
from slm import loader

CONTEXT = 400
# Windows and soft caps, a parallel residual, layers of several kinds, one KV head. No F32: BLIS promises less.
MODELS = [
    ("gemma3", "F16", "bf16"),
    ("gemma3", "F16", "int8"),
    ("gemma2", "F16", "f32"),
    ("cohere2", "BF16", "bf16"),
    ("llama_mqa_wide_heads", "Q8_0", "bf16"),
    ("llama_gqa_tied", "Q4_1", "f32"),
]
# Of ragged_prompts, the tokens that prompts share with another and do not run: what would save fewer than 32 is not branched off.
SHARED = [33, 33, 70, 70, 149, 149, 149, 149]
SAMPLED = {"temperature": 1.2, "top_k": 40, "top_p": 0.9}


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def core(request, tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "model.gguf", *request.param)


def small_model(path, name, type_name, kv):
    if name in CASES:
        write_gguf(path, CASES[name], type_name, context_length=("uint32", CONTEXT))
    else:
        model = tiny_models.load(name)
        tiny_models.write_gguf(path, replace(model, config=replace(model.config, max_position_embeddings=CONTEXT)), type_name)
    return loader.open_model(path, kv=kv).core


def arguments(max_tokens=12, end_tokens=(), draft="none", temperature=0.0, top_k=0, top_p=1.0):
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "draft": draft, "end_tokens": end_tokens}
    return {"tokenizer": None, "max_tokens": max_tokens, "ignore_eos": False, "seed": 5, "sample": 0, "stop": (), **options}


def alone(core, prompt, **options):
    return core.session().generate(prompt=prompt, **arguments(**options)).next(True, 1)


def ragged_prompts(core, n=38):
    """Of all lengths, more than run at once; some begin alike, some are the same, some the beginning of others."""
    rng = np.random.default_rng(7)
    vocab_size = core.stats()["vocab_size"]
    prompts = [rng.integers(0, vocab_size, length).tolist() for length in rng.integers(1, 90, n)]
    stem = rng.integers(0, vocab_size, 150).tolist()
    for i, length in enumerate((150, 150, 149, 100, 70, 40, 33, 31, 3)):
        prompts[4 * i] = stem[:length] + prompts[4 * i][: 8 * (i % 3)]
    prompts[-1] = prompts[-3] = prompts[0]
    prompts[1] = rng.integers(0, vocab_size, CONTEXT).tolist()  # one token, and the context is full
    return prompts


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_each_prompt_gives_what_it_gives_alone(core, options):
    prompts = ragged_prompts(core)
    first = [alone(core, prompt, **options)[1] for prompt in prompts]
    tokens, counts = np.unique(list(chain(*first)), return_counts=True)
    ends = tokens[np.argsort(-counts)[:3]].tolist()  # texts end after this many tokens and that
    options = options | {"end_tokens": ends}
    expected = [alone(core, prompt, **options) for prompt in prompts]
    assert len({len(tokens) for _, tokens, *_ in expected}) > 1
    for threads, draft, order in [(1, "none", 1), (2, "lookup", -1), (3, "none", -1), (2, "none", 1)]:
        found = core.generate(prompts=prompts[::order], threads=threads, **arguments(draft=draft, **options))[::order]
        assert [piece[:3] for piece in found] == [piece[:3] for piece in expected]
        shared = [piece[5] for piece in found]
        assert sorted(shared) == [0] * 30 + SHARED
        assert all(prefill >= 0 and decode >= 0 for _, _, _, prefill, decode, *_ in found)
    assert core.generate(prompts=[], **arguments()) == []


def with_guesses(core, **options):
    """A session, and a prompt of which it holds the first 100 tokens, but others are told in their place: what follows the
    prompt, with every sixth token wrong, so that drafts are right now and then. And what follows in truth."""
    prompt = np.random.default_rng(9).integers(0, core.stats()["vocab_size"], 110).tolist()
    tokens = alone(core, prompt, **options | {"max_tokens": 80})[1]
    told = prompt[-5:] + [(token + (i % 6 == 5)) % core.stats()["vocab_size"] for i, token in enumerate(tokens)]

    def start():
        session = core.session()
        session.forward(prompt[:100], "none")
        return session, {"prompt": told + prompt[100:], "n_held": len(told)}

    return start, tokens


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_drafts_change_nothing(core, options):
    """The tokens, how far the session has come, and what it says next: nothing is left of what was guessed and not drawn."""
    start, truth = with_guesses(core, **options)
    for max_tokens, end_tokens in [(0, []), (1, []), (2, []), (7, []), (30, truth[20:21]), (1000, [])]:
        states = []
        for draft, whole in [("none", True), ("lookup", True), ("lookup", False)]:
            session, prompt = start()
            run = session.generate(**prompt, **arguments(max_tokens, end_tokens, draft, **options))
            pieces = [run.next(whole, 2)]
            while pieces[-1][2] is None:
                pieces.append(run.next(whole, 2))
            tokens = list(chain.from_iterable(piece[1] for piece in pieces))
            state = (tokens, pieces[-1][2], session.length, session.kv_bytes, session.rewind_limit)
            session.rewind(max(session.length - 64, 0))
            states.append((*state, session.forward([*tokens[:3], 3], "all").tobytes()))
        assert states[1:] == states[:1] * 2
        n_drafted, n_accepted = pieces[-1][6:8]
        if len(tokens) > 12:
            assert 0 < n_accepted < n_drafted
        assert tokens[:80] == truth[: len(tokens)]


def test_drafts_end_where_they_are_wrong(core):
    start, _ = with_guesses(core)
    session, prompt = start()
    *_, n_drafted, n_accepted, _ = session.generate(**prompt, **arguments(100, draft="lookup", temperature=30.0)).next(True)
    assert n_accepted < 10
    assert n_drafted < 60


# ---- through the Python face, with the real model ---------------------------------------------------------------------------


def same(a, b):
    return (a.text, a.tokens, a.finish_reason, a.seed) == (b.text, b.tokens, b.finish_reason, b.seed)


def test_64_prompts_in_any_order_by_any_threads(smollm2, smollm2_path):
    """Of 1 to 60 tokens, drawn by temperature: texts and probabilities are those of each prompt alone, to the last bit."""
    story = smollm2.tokenizer.encode(
        "Once upon a time there was a lighthouse keeper who counted ships, and wrote down their names. " * 10
    )
    rng = np.random.default_rng(1)
    prompts = [story[start : start + size] for start, size in zip(rng.integers(0, 20, 64), rng.integers(1, 61, 64), strict=True)]
    options = {"max_tokens": 4, "temperature": 0.9, "seed": 2, "logprobs": 2}
    expected = [smollm2.generate(prompt, **options) for prompt in prompts]
    for threads in (1, 2, 3):
        with slm.load(smollm2_path, threads=threads) as model:
            order = rng.permutation(64)
            for i, output in zip(order, model.generate([prompts[i] for i in order], **options), strict=True):
                assert same(output, expected[i])
                assert output.logprobs == expected[i].logprobs


def test_texts_stops_and_usage(smollm2):
    text = "One, two, three, four. One, two, three, four. One, two,"
    prompts = [text, "The sea is", "The sea is", "", [5, 6, 7]]
    options = {"max_tokens": 12, "stop": ["four", "\n\n"], "seed": 3}
    expected = [smollm2.generate(prompt, **options) for prompt in prompts]
    assert expected[0].finish_reason == "stop"
    for draft in (None, "lookup"):
        outputs = smollm2.generate(prompts, draft=draft, **options)
        assert all(map(same, outputs, expected))
        assert [output.usage.prompt_tokens for output in outputs] == [output.usage.prompt_tokens for output in expected]
    single = smollm2.generate(text, draft="lookup", **options)
    assert same(single, expected[0])
    assert single.usage.drafted_tokens >= single.usage.accepted_tokens > 0
    with smollm2.stream(text, draft="lookup", **options) as stream:
        chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == expected[0].text
    assert list(chain.from_iterable(chunk.tokens for chunk in chunks)) == expected[0].tokens
    with pytest.raises(ValueError, match="draft must be one of 'lookup', not 'model'"):
        smollm2.generate(text, draft="model")


def test_a_session_drafts_from_its_earlier_turns(smollm2):
    question = "Say this again: the quick brown fox jumps over the lazy dog near the old river bank."
    plain, drafting = smollm2.session(), smollm2.session()
    for _ in range(2):
        expected, output = plain.send(question, max_tokens=24), drafting.send(question, max_tokens=24, draft="lookup")
        assert (output.text, output.tokens) == (expected.text, expected.tokens)
        assert (drafting.tokens, drafting.messages) == (plain.tokens, plain.messages)
    assert output.usage.accepted_tokens > 0


def test_an_interrupt_ends_a_batch_and_nothing_else(smollm2):
    before = smollm2.generate("The sea", max_tokens=4)
    with signal_after(0.3), pytest.raises(KeyboardInterrupt):
        smollm2.generate(["The sea", "A hill"] * 40, max_tokens=500, ignore_eos=True)
    assert smollm2.generate("The sea", max_tokens=4).tokens == before.tokens


def test_an_error_names_the_prompt(smollm2, tmp_path):
    with pytest.raises(slm.ContextLengthError, match=r"prompt\[1\]"):
        smollm2.generate(["a", [5] * 9000], max_tokens=1)
    case = CASES["phi2"]
    arrays = {name: array.copy() for name, array in case.arrays.items()}
    next(array for name, array in arrays.items() if "embed_tokens" in name)[7] = np.nan
    core = loader.open_model(write_gguf(tmp_path / "model.gguf", case._replace(arrays=arrays), "F16")).core
    with pytest.raises(slm.NumericsError, match=r"^prompt\[2\]: the model gave NaN or infinity at position \d"):
        core.generate(prompts=[[1, 2], [3], [4, 7, 5]], **arguments())
