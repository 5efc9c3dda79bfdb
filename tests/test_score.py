# SPDX-License-Identifier: Apache-2.0
"""score, logprobs and perplexity: against Transformers, fp32 references and plain definitions; the same bits whatever is scored
beside."""

import math
from types import SimpleNamespace

import kl
import numpy as np
import pytest
from folder_writer import write_folder
from real_models import path_or_skip
from test_accuracy import GEMMA3, QWEN2, REFERENCES, SMOLLM2
from test_batch import CONTEXT, ragged_prompts, small_model
from test_families import CASES, NAMES, context_of, write_gguf
from test_windows import signal_after

import slm
from slm import loader, scoring
from slm.scoring import encode_pairs, windows


def by_definition(logits, ids, n_scored):
    """Of logits [n_tokens, vocab_size] after each of ids."""
    at = np.arange(len(ids) - n_scored - 1, len(ids) - 1)
    targets = np.array(ids)[at + 1]
    return kl.log_softmax(logits[at])[np.arange(n_scored), targets], logits[at].argmax(axis=1) == targets


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_every_family_equal_transformers(name, tmp_path):
    """Of continuations that begin at several places of one text, some with other tokens than the text's."""
    case = CASES[name]
    core = loader.open_model(write_folder(tmp_path, case.config, case.arrays), context=context_of(case)).core
    ids, n = case.ids.tolist(), len(case.ids)
    best = case.logits.argmax(axis=1).tolist()
    texts = [ids, *([*ids[:k], best[k - 1]] for k in range(1, n)), *(ids[: k + 1] for k in range(1, n, 7))]
    counts = [n - 1] + [1] * (len(texts) - 1)
    tolerance = 1e-3 * np.abs(case.logits).max()
    for text, count, (logprobs, greedy) in zip(texts, counts, core.score(texts, counts), strict=True):
        expected, likeliest = by_definition(case.logits[: len(text)], text, count)
        assert np.abs(np.array(logprobs) - expected).max() < tolerance
        lead = np.sort(case.logits[len(text) - count - 1 : len(text) - 1], axis=1)
        if (lead[:, -1] - lead[:, -2] > tolerance).all():
            assert greedy == likeliest.all()


@pytest.mark.parametrize("name", [SMOLLM2, GEMMA3, QWEN2])
def test_scores_of_real_models_agree_with_fp32(name, smollm2_path):
    with slm.load(smollm2_path if name == SMOLLM2 else path_or_skip(name)) as model:
        scores = model.score((r.ids[:1], r.ids[1:]) for r in REFERENCES[name])
    differences = []
    for r, score in zip(REFERENCES[name], scores, strict=True):
        assert score.logprob / len(score.tokens) == pytest.approx(-r.nll, abs=0.02)
        n = len(r.greedy_ids)  # the likeliest tokens of the reference
        differences.append(np.array(score.token_logprobs[-n:]) - r.top_logprobs[-n - 1 : -1, 0])
    difference = float(np.abs(np.concatenate(differences)).mean())
    print(f"{name}: mean difference {difference:.4f} nat")
    assert difference < 0.05


@pytest.mark.parametrize(
    "kind", [("gemma3", "F16", "int8"), ("cohere2", "BF16", "bf16"), ("llama_gqa_tied", "Q4_1", "f32")], ids="-".join
)
def test_a_score_is_the_same_alone_and_beside_others(kind, tmp_path):
    core = small_model(tmp_path / "model.gguf", *kind)
    rng = np.random.default_rng(3)
    vocab_size = core.stats()["vocab_size"]
    texts = [
        [*prompt[: CONTEXT - 5], *rng.integers(0, vocab_size, 1 + i % 4).tolist()]
        for i, prompt in enumerate(ragged_prompts(core))
    ]
    counts = [1 + i % min(4, len(text) - 1) for i, text in enumerate(texts)]
    for i in range(40):  # choices behind one context, some of which begin alike, and the whole of it
        tail = rng.integers(0, 3, 1 + i % 5).tolist()
        texts.append(texts[0][:120] + tail)
        counts.append(len(tail))
    texts += [texts[0], texts[0], texts[1][:-1]]
    counts += [1, len(texts[0]) - 1, len(texts[1]) - 2]
    expected = []
    for i, (text, count) in enumerate(zip(texts, counts, strict=True)):
        expected += core.score([text], [count], 1)
        if i % 3 == 0:
            logprobs, likeliest = by_definition(core.session().forward(text, "all"), text, count)
            np.testing.assert_allclose(expected[-1][0], logprobs, rtol=0, atol=1e-5)
            assert expected[-1][1] == likeliest.all()
    for threads, chunk in [(1, 0), (2, 0), (3, 9), (2, 1)]:
        order = rng.permutation(len(texts)).tolist()
        found = core.score([texts[i] for i in order], [counts[i] for i in order], threads, chunk)
        assert found == [expected[i] for i in order]
    assert core.score([], []) == []


def test_ties_go_to_the_lowest_id(tmp_path):
    """All rows of the output layer are the same, and so are all logits."""
    case = CASES["phi2"]
    arrays = {name: array.copy() for name, array in case.arrays.items()}
    arrays["lm_head.weight"][:] = arrays["lm_head.weight"][:1]
    arrays["lm_head.bias"][:] = 0
    core = loader.open_model(write_gguf(tmp_path / "model.gguf", case._replace(arrays=arrays), "F16")).core
    n = core.stats()["vocab_size"]
    assert core.score([[3, 0], [3, 1], [3, 0, 0], [3, 0, n - 1]], [1, 1, 2, 2]) == [
        ([pytest.approx(-math.log(n))] * count, greedy) for count, greedy in [(1, True), (1, False), (2, True), (2, False)]
    ]


# ---- pairs ----------------------------------------------------------------------------------------------------------------


def test_where_a_continuation_begins(smollm2):
    tokenizer = smollm2.tokenizer

    def split(*pairs):
        return encode_pairs(tokenizer, smollm2.vocab_size, pairs)

    ids = tokenizer.encode("The sea is blue")
    expected = ids[:3], ids[3:]
    assert tokenizer.decode(ids[3:]) == " blue"
    # White space that ends the context counts to the continuation
    assert split(("The sea is", " blue"), ("The sea is ", "blue"), (ids[:3], " blue"), (ids[:3], ids[3:])) == [expected] * 4
    before, behind = split(("A:\n", "yes"))[0]
    assert (tokenizer.decode(before), tokenizer.decode(behind)) == ("A:", "\nyes")
    # "everything" is one token, which is not split; parts that are encoded alone are
    assert split(("an every", "thing")) == [(tokenizer.encode("an"), tokenizer.encode(" everything"))]
    assert split(("an every", tokenizer.encode("thing"))) == [(tokenizer.encode("an every"), tokenizer.encode("thing"))]
    # Nothing in front: the bos token; text is never a control token
    assert split(("", "yes"), ([], "yes"), (" ", "yes"))[:2] == [([tokenizer.bos_id], tokenizer.encode("yes"))] * 2
    assert split((" ", "yes")) == [([tokenizer.bos_id], tokenizer.encode(" yes"))]
    assert tokenizer.bos_id not in split(("<|im_start|>", "user"))[0][0]


def test_scores_of_pairs(smollm2):
    pairs = [("The capital of France is", " Paris"), ("The capital of France is", " a banana"), ("", "Hello")]
    paris, banana, hello = smollm2.score(pairs)
    assert paris.logprob > banana.logprob
    assert (paris.pieces, paris.is_greedy, banana.pieces, banana.is_greedy) == ([" Paris"], True, [" a", " banana"], False)
    assert banana.logprob == sum(banana.token_logprobs)
    assert hello.tokens == smollm2.tokenizer.encode("Hello")
    assert repr(banana) == f"Score(' a banana', logprob={banana.logprob:.4f}, 2 tokens)"
    ids = smollm2.tokenizer.encode("The capital of France is a banana")
    assert smollm2.logprobs(ids)[-2:].tolist() == banana.token_logprobs
    assert smollm2.logprobs(ids[:1]).shape == (0,)
    answer = smollm2.generate(ids, max_tokens=6, ignore_eos=True)
    assert smollm2.score([(ids, answer.tokens)])[0].is_greedy


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ("ab", TypeError, r"pairs must be a list of \(context, continuation\), not str"),
        (["ab"], TypeError, r"pairs\[0\] must be \(context, continuation\), not str"),
        ([("a", "b"), ("a",)], TypeError, r"pairs\[1\] must be \(context, continuation\), not tuple"),
        ([("a", 5)], TypeError, r"pairs\[0\]\[1\] must be a sequence of token ids, not int"),
        ([("a", "b"), ("a", "b\ud800")], ValueError, r"pairs\[1\]\[1\] holds a lone surrogate at index 1"),
        ([("a", "b"), ("a", "")], ValueError, r"pairs\[1\]: the continuation is empty"),
        ([("a", [99999])], ValueError, r"pairs\[0\]\[1\]\[0\] must be a token id from 0 to 49151"),
        ([([5] * 8192, [6]), ([5] * 8192, [6, 7])], slm.ContextLengthError, r"pairs\[1\] without its last token has 8193 tokens"),
    ],
)
def test_pairs_that_are_refused(smollm2, pairs, error, message):
    with pytest.raises(error, match=message):
        smollm2.score(pairs)


def test_an_interrupt_ends_a_score_and_nothing_else(smollm2):
    before = smollm2.score([("The sea", " is")])
    rng = np.random.default_rng(0)
    with signal_after(0.3), pytest.raises(KeyboardInterrupt):
        smollm2.score([(rng.integers(0, 49152, 500).tolist(), [1, 2]) for _ in range(50)])
    assert smollm2.score([("The sea", " is")]) == before


def test_an_error_names_the_text(tmp_path):
    case = CASES["phi2"]
    arrays = {name: array.copy() for name, array in case.arrays.items()}
    next(array for name, array in arrays.items() if "embed_tokens" in name)[7] = np.nan
    core = loader.open_model(write_gguf(tmp_path / "model.gguf", case._replace(arrays=arrays), "F16")).core
    with pytest.raises(slm.NumericsError, match=r"^text\[2\]: the model gave NaN or infinity at position \d"):
        core.score([[1, 2], [3, 4], [4, 7, 5]], [1, 1, 1])
    with pytest.raises(ValueError, match=r"^text\[1\]: tokens\[1\]: expected 0 to \d+, found 99999"):
        core.score([[1, 2], [3, 99999]], [1, 1])
    for text, n_scored in (([1, 2, 2**31 - 1, 4], 2), ([2**31 - 1, 2], 1)):  # also where a step ends before it
        with pytest.raises(ValueError, match=rf"^text\[1\]: tokens\[{text.index(2**31 - 1)}\]: expected 0 to \d+, found"):
            core.score([[1, 2, 3], text], [1, n_scored], prefill_chunk=2)
    with pytest.raises(ValueError, match=r"^n_scored\[0\]: expected 1 to 1, found 2"):
        core.score([[1, 2]], [2])


# ---- perplexity -----------------------------------------------------------------------------------------------------------


def guide(logits_of, ids, length, stride):
    """Negative log-likelihoods as in Transformers' guide: labels that an earlier window had are masked."""
    found, last = [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        labels = np.array(ids[begin:end])
        labels[: -(end - last)] = -100
        logprobs = kl.log_softmax(logits_of(ids[begin:end])[:-1])  # shifted: position i is asked for label i + 1
        found += [-logprobs[i, label] for i, label in enumerate(labels[1:]) if label != -100]
        last = end
        if end == len(ids):
            break
    return np.array(found)


@pytest.mark.parametrize("stride", [1, 10, 20, 39, None])
@pytest.mark.parametrize("n_tokens", [2, 40, 41, 79, 140])
def test_perplexity_in_windows(tmp_path_factory, stride, n_tokens):
    case = CASES["qwen2"]
    path = tmp_path_factory.getbasetemp() / "perplexity"
    if not path.exists():
        path.mkdir()
        write_folder(path, case.config, case.arrays)
    model = slm.load(path, context=40)
    ids = np.random.default_rng(n_tokens).integers(0, model.vocab_size, n_tokens).tolist()
    expected = guide(lambda window: model.forward(window).logits, ids, 40, stride or 20)
    found = model.perplexity(ids, stride=stride)
    assert found.tokens == n_tokens - 1 == len(expected)
    assert found.nll == pytest.approx(expected.mean(), abs=1e-5)
    assert found.value == pytest.approx(np.exp(expected.mean()), rel=1e-5)
    if n_tokens > 2:
        assert found.stderr == pytest.approx(found.value * expected.std(ddof=1) / np.sqrt(len(expected)), rel=1e-4)
    else:
        assert math.isnan(found.stderr)


def test_windows_come_in_parts(tmp_path, monkeypatch):
    case = CASES["qwen2"]
    model = slm.load(write_folder(tmp_path, case.config, case.arrays), context=40)
    ids = np.random.default_rng(0).integers(0, model.vocab_size, 100).tolist()
    whole, lengths = model.perplexity(ids, stride=7), []
    core = model._core

    def score(texts, counts, threads, **options):
        lengths.append(len(texts))
        return core.score(texts, counts, threads, **options)

    monkeypatch.setattr(scoring, "MOST_TOKENS", 160)
    found = scoring.measure_perplexity(SimpleNamespace(score=score), None, model.vocab_size, 40, ids, 7, model.threads, False)
    assert (found, lengths) == (whole, [4, 4, 2])


def test_windows_score_every_token_but_the_first_once():
    for n, length, stride in [(1, 5, 2), (5, 5, 4), (6, 5, 1), (23, 5, 3), (100, 7, 6)]:
        scored = [i for begin, end, k in windows(n, length, stride) for i in range(end - k, end)]
        assert scored == [*range(1, n)]
        assert all(0 <= begin < end - k and end - begin <= length for begin, end, k in windows(n, length, stride) if k)


def test_perplexity_of_text(smollm2, smollm2_path):
    text = "The quick brown fox jumps over the lazy dog. " * 4
    ids = smollm2.tokenizer.encode(text)  # this vocabulary puts nothing in front
    whole = smollm2.perplexity(text)
    assert whole == smollm2.perplexity(ids)
    assert whole.nll == pytest.approx(-smollm2.logprobs(ids).mean())
    assert repr(whole) == f"Perplexity({whole.value:.3f} ± {whole.stderr:.3f}, {len(ids) - 1} tokens)"
    with slm.load(smollm2_path, context=16) as model:
        assert model.perplexity(text).value > whole.value  # a short memory
    with pytest.raises(ValueError, match="stride must be an integer from 1 to 8191"):
        smollm2.perplexity(text, stride=8192)
    with pytest.raises(ValueError, match="text has too few tokens, 1"):
        smollm2.perplexity([5])
    with pytest.raises(ValueError, match="text holds a lone surrogate at index 2"):
        smollm2.perplexity("ab\ud800")


def test_a_special_token_stands_in_front_of_every_window(smollm2_path):
    """Gemma's vocabulary asks for bos: then the first token of a text is scored too."""
    with slm.load(path_or_skip(GEMMA3), context=10) as model:  # 9 tokens a window, 4 further each time
        text = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
        bos, *ids = model.tokenizer.encode(text)
        assert bos == model.tokenizer.bos_id
        assert len(ids) == 17
        found = model.perplexity(text)
        assert found.tokens == 17
        expected = [
            *model.logprobs([bos, *ids[:9]]),
            *model.logprobs([bos, *ids[4:13]])[-4:],
            *model.logprobs([bos, *ids[8:]])[-4:],
        ]
        assert found.nll == pytest.approx(-np.mean(expected))
