# SPDX-License-Identifier: Apache-2.0
"""Named activations: against Transformers (tests/oracle/make_activations.py), on every tier bit for bit, captured and edited."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import test_families
import tier_worker
from folder_writer import write_folder

import slm
from slm import _core
from slm.activations import LAYER_SITES

PROMPT = "The capital of France is"
with np.load(Path(__file__).parent / "data" / "oracle" / "activations.npz") as file:
    ORACLE = {key: file[key] for key in file}
ROWS = ORACLE.pop("rows")


def sites_of(model: slm.Model) -> list[str]:
    return ["embed", *(f"layer.{i}.{site}" for i in range(model.num_hidden_layers) for site in LAYER_SITES), "final_norm"]


def editable(model: slm.Model) -> list[str]:
    return [site for site in sites_of(model) if not site.endswith("weights")]


def same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.fixture(scope="module")
def ids(smollm2) -> list[int]:
    return smollm2.tokenizer.encode("The keys to the cabinet are on the table, and the cat is under it.")[:16]


# ---- what they are ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in ORACLE if "/" in key}))
def test_sites_agree_with_transformers(name, tmp_path):
    case = test_families.CASES[name]
    expected = {key.split("/")[1]: array for key, array in ORACLE.items() if key.startswith(f"{name}/")}
    with slm.load(write_folder(tmp_path / "model", case.config, case.arrays)) as model:
        sites = sites_of(model)
        assert {*sites} == {*expected}
        found = model.forward(case.ids, capture=sites).activations
    assert [*found] == sites
    for site in sites:
        array = found[site]
        assert array.shape == (case.config.get("num_attention_heads", 4), 72, 72) if "weights" in site else (72, 64)
        rows = array[:, ROWS] if "weights" in site else array[ROWS]
        assert np.abs(rows - expected[site]).max() < 2e-5 * np.abs(expected[site]).max(), site


@pytest.fixture(scope="module")
def hashes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiers")
    return {tier: tier_worker.run(tier, "activations", folder) for tier in _core.cpu_info()["supported"]}


def test_every_tier_threads_and_chunks_give_the_same_bits(hashes):
    """Each process compares logits with and without taps."""
    assert all(len(lines) == len(tier_worker.ACTIVATION_CASES) for lines in hashes.values())
    assert len({tuple(lines) for lines in hashes.values()}) == 1


def test_capture_of_all_changes_no_bit(smollm2, ids):
    plain = smollm2.forward(ids).logits
    result = smollm2.forward(ids, capture=sites_of(smollm2))
    same_bits(result.logits, plain)
    same_bits(smollm2.forward(ids, logits="last", capture="embed").logits, plain[-1:])
    assert repr(smollm2.forward(ids[:2], capture="embed")) == "Forward(logits=float32[2, 49152], embed=float32[2, 576])"
    weights = result.activations["layer.7.attn_weights"]
    assert np.abs(weights.sum(axis=-1) - 1).max() < 1e-6
    assert not np.triu(weights, 1).any()
    # A layer adds what its blocks give.
    arrays = result.activations
    total = arrays["layer.3.out"] + arrays["layer.4.attn_out"] + arrays["layer.4.mlp_out"]
    np.testing.assert_allclose(arrays["layer.4.out"], total, rtol=1e-4, atol=1e-4)


def test_unembed(smollm2, ids):
    result = smollm2.forward(ids, capture="layer.29.out")
    rows = result.activations["layer.29.out"]
    same_bits(smollm2.unembed(rows), result.logits)
    same_bits(smollm2.unembed(rows[-1:].astype(np.float64)), result.logits[-1:])
    same_bits(smollm2.unembed(np.tile(rows, (40, 1)))[-len(ids) :], result.logits)  # more than one step
    assert smollm2.unembed(rows[:0]).shape == (0, 49152)
    with pytest.raises(ValueError, match=r"hidden: expected an array \[n, 576\], found one of shape \(576,\)"):
        smollm2.unembed(rows[0])
    with pytest.raises(TypeError, match="hidden must be an array of floats, not of int64"):
        smollm2.unembed(np.zeros((1, 576), np.int64))
    with pytest.raises(slm.NumericsError, match="rows 0 to 0"):
        smollm2.unembed(np.full((1, 576), np.nan))


# ---- edits --------------------------------------------------------------------------------------------------------------


def test_edits_that_change_nothing_change_no_bit(smollm2, ids):
    def in_place(rows):
        rows += 0.0

    plain = smollm2.forward(ids).logits
    same_bits(smollm2.forward(ids, edit=dict.fromkeys(editable(smollm2), in_place)).logits, plain)
    same_bits(smollm2.forward(ids, edit=dict.fromkeys(editable(smollm2), lambda rows: rows.astype(float))).logits, plain)
    text = smollm2.generate(PROMPT, max_tokens=12)
    assert smollm2.generate(PROMPT, max_tokens=12, edit=dict.fromkeys(editable(smollm2), in_place)).tokens == text.tokens


@pytest.mark.parametrize("site", ["embed", "layer.12.out", "layer.29.out", "final_norm"])
def test_patching_gives_the_other_prompts_logits(smollm2, ids, site):
    other = smollm2.tokenizer.encode("A tale of two cities, and of one river that runs between them both.")[: len(ids)]
    assert len(other) == len(ids)
    captured = smollm2.forward(other, capture=site)
    patched = smollm2.forward(ids, capture=site, edit={site: lambda rows: captured.activations[site]})
    same_bits(patched.logits, captured.logits)
    same_bits(patched.activations[site], captured.activations[site])  # as edited


def test_each_site_reaches_the_logits(smollm2, ids):
    plain = smollm2.forward(ids).logits
    for name in ("embed", *(f"layer.5.{site}" for site in LAYER_SITES if site != "attn_weights"), "final_norm"):
        assert (smollm2.forward(ids, edit={name: lambda rows: rows * 1.5}).logits != plain).any(), name


def test_an_edit_of_what_attention_reads_leaves_a_parallel_mlp_alone(tmp_path):
    """Where both read one norm's output."""
    case = test_families.CASES["cohere"]
    with slm.load(write_folder(tmp_path / "model", case.config, case.arrays)) as model:
        sites = ["layer.0.mlp_in", "layer.0.mlp_out"]
        plain = model.forward(case.ids, capture=sites).activations
        found = model.forward(case.ids, capture=sites, edit={"layer.0.attn_in": lambda rows: rows * 2}).activations
        for site in sites:
            same_bits(found[site], plain[site])


def test_a_pass_gives_all_rows_and_positions(smollm2):
    seen = []

    def note(rows, positions):
        seen.append((rows.shape, rows.dtype, positions.dtype, positions.tolist()))

    smollm2.forward(list(range(300)), logits="last", edit={"layer.0.out": note})  # more than a step has otherwise
    assert seen == [((300, 576), np.float32, np.int64, list(range(300)))]


def steer(smollm2, scale=1.0):
    vector = np.random.default_rng(5).standard_normal(576).astype(np.float32) * scale

    def add(rows, positions):
        rows[positions >= 3] += vector

    return {"layer.9.out": add}


def test_generate_is_a_loop_of_edited_passes(smollm2):
    edit = steer(smollm2)
    tokens = smollm2.tokenizer.encode(PROMPT)
    n = len(tokens)
    for _ in range(10):
        tokens.append(int(smollm2.forward(tokens, logits="last", edit=edit).logits[0].argmax()))
    output = smollm2.generate(PROMPT, max_tokens=10, ignore_eos=True, edit=edit)
    assert output.tokens == tokens[n:] != smollm2.generate(PROMPT, max_tokens=10, ignore_eos=True).tokens
    with smollm2.stream(PROMPT, max_tokens=10, ignore_eos=True, edit=edit) as stream:
        assert [token for chunk in stream for token in chunk.tokens] == output.tokens
    assert smollm2.generate(PROMPT, max_tokens=10, ignore_eos=True, edit=edit, draft="lookup").tokens == output.tokens


def test_a_batch_gives_what_each_gives_alone(smollm2):
    edit = steer(smollm2)
    start = (
        "Once upon a time there was a small town by the sea, where everybody knew everybody, and nobody ever locked a door. " * 2
    )
    prompts = [PROMPT, start + "One day", start + "The mayor", "2 + 2 =", start]
    alone = [smollm2.generate(prompt, max_tokens=8, edit=edit) for prompt in prompts]
    together = smollm2.generate(prompts, max_tokens=8, edit=edit)
    assert [output.tokens for output in together] == [output.tokens for output in alone]
    assert sum(output.timings.prefill_tokens for output in together) < sum(output.timings.prefill_tokens for output in alone)
    samples = {"n": 3, "temperature": 1.0, "seed": 4, "max_tokens": 8}
    first = smollm2.generate(PROMPT, edit=edit, **samples)
    assert [s.tokens for s in first] == [s.tokens for s in smollm2.generate([PROMPT], edit=edit, **samples)[0]]


def test_echo_has_the_edited_log_probabilities(smollm2):
    edit = steer(smollm2)
    ids = smollm2.tokenizer.encode(PROMPT)
    output = smollm2.generate(ids, max_tokens=1, echo=True, logprobs=1, edit=edit)
    logits = smollm2.forward(ids, edit=edit).logits.astype(np.float64)
    expected = [row[token] - np.log(np.exp(row).sum()) for row, token in zip(logits[:-1], ids[1:], strict=True)]
    np.testing.assert_allclose([p.logprob for p in output.logprobs[1 : len(ids)]], expected, atol=1e-4)


def test_a_session_keeps_what_was_edited(smollm2):
    edited, plain = smollm2.session(), smollm2.session()
    answer = edited.send("Name a color.", max_tokens=6, edit=steer(smollm2))
    assert answer.tokens != plain.send("Name a color.", max_tokens=6).tokens
    seen = []
    edited.send("And one more.", max_tokens=2, edit={"embed": lambda rows, positions: seen.extend(positions)})
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert seen[0] >= len(answer.tokens)


# ---- what goes wrong ------------------------------------------------------------------------------------------------------

WRONG = [
    (lambda rows: rows[:1], ValueError, r"edit of layer.3.mlp_in: expected an array of shape \(5, 576\), found \(1, 576\)"),
    (lambda rows: rows[0], ValueError, r"expected an array of shape \(5, 576\), found \(576,\)"),
    (lambda rows: rows.astype(int), TypeError, "edit of layer.3.mlp_in: expected an array of floats, found dtype"),
    (lambda rows: rows * 1j, TypeError, "expected an array of floats, found dtype"),
    (lambda rows: 3, TypeError, "must change its array in place and return None, or return an array, not <class 'int'>"),
    (lambda rows: rows * np.nan, ValueError, r"edit of layer.3.mlp_in: element \[0, 0\] has become NaN or infinite"),
    (lambda rows: rows + np.float64(1e300), ValueError, "has become NaN or infinite"),
    (lambda rows: rows.resize((1, 1), refcheck=False), ValueError, r"found \(1, 1\)"),
    (lambda rows: 1 / 0, ZeroDivisionError, "division"),
    (lambda rows: next(iter(())), RuntimeError, "raised StopIteration"),
]


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(("function", "exception", "message"), WRONG)
def test_what_a_function_gives_is_checked(smollm2, function, exception, message):
    plain = smollm2.generate(PROMPT, max_tokens=3).tokens
    with pytest.raises(exception, match=message):
        smollm2.forward(smollm2.tokenizer.encode(PROMPT), edit={"layer.3.mlp_in": function})
    with pytest.raises(exception, match=message):
        smollm2.generate(PROMPT, edit={"layer.3.mlp_in": function})
    with pytest.raises(exception, match=message):
        smollm2.generate([PROMPT, PROMPT], edit={"layer.3.mlp_in": function})
    assert smollm2.generate(PROMPT, max_tokens=3).tokens == plain


def test_a_row_that_overflows_is_seen_wherever_it_is(smollm2, ids):
    def add(rows, positions):
        rows[positions == 0] = 3e38

    last = f"layer.{smollm2.num_hidden_layers - 1}"
    with pytest.raises(slm.NumericsError, match="position 0"):
        smollm2.forward(ids, logits="last", edit={f"{last}.attn_out": add, f"{last}.mlp_out": add})
    # Nor do rows that are captured hold what is no number.
    with pytest.raises(slm.NumericsError, match="position 0"):
        smollm2.forward(ids, logits="last", capture=f"{last}.out", edit={f"{last}.attn_out": add, f"{last}.mlp_out": add})


def test_an_exception_keeps_what_came(smollm2):
    whole = smollm2.generate(PROMPT, max_tokens=6, ignore_eos=True)

    def end(rows, positions):
        if positions[0] == 8:  # the fourth token is fed
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        smollm2.generate(PROMPT, max_tokens=6, ignore_eos=True, edit={"layer.20.attn_out": end})
    assert caught.value.output.tokens == whole.tokens[:4]
    session = smollm2.session()
    with pytest.raises(KeyboardInterrupt):
        session.send("x" * 9, edit={"embed": lambda rows, positions: end(rows, np.array([8]))})
    assert session.length == 0
    assert session.messages == []


def test_functions_may_use_slm(smollm2, ids):
    plain, inside = smollm2.forward(ids).logits, []
    session = smollm2.session()

    def use(rows, positions):
        if not inside:
            inside.append(smollm2.forward(ids).logits)
            with pytest.raises(slm.BusyError):
                session.send("x")

    session.send("Hi", max_tokens=1, edit={"layer.1.out": use})
    same_bits(inside[0], plain)
    # Another thread waits for its turn meanwhile.
    found = []
    others = [threading.Thread(target=lambda: found.append(smollm2.forward(ids).logits)) for _ in range(3)]
    same_bits(smollm2.forward(ids, edit={"layer.1.out": lambda rows: [other.start() for other in others] and None}).logits, plain)
    for other in others:
        other.join()
    for logits in found:
        same_bits(logits, plain)


def test_what_was_captured_belongs_to_the_caller(smollm2, ids):
    kept = []

    def keep(rows):
        kept.append(rows)

    before = sys.getrefcount(keep)
    result = smollm2.forward(ids, capture="layer.2.out", edit={"layer.2.out": keep})
    array = result.activations["layer.2.out"]
    same_bits(kept[0], array)
    copy = array.copy()
    kept[0][:] = 7
    smollm2.forward(ids[::-1], capture="layer.2.out")
    same_bits(array, copy)
    assert array.flags.owndata
    counts = sys.getrefcount(kept[0]), sys.getrefcount(keep)
    assert counts == (2, before)


ARGUMENTS = [
    ({"capture": "layer.30.out"}, ValueError, "there is no layer.30.out; the model has layers 0 to 29"),
    (
        {"capture": ["layer.0.out", "layer.3.attnout"]},
        ValueError,
        "no site is named 'layer.3.attnout'; did you mean 'layer.<i>.attn_out'",
    ),
    ({"capture": "layer.-1.out"}, ValueError, "no site is named 'layer.-1.out'; did you mean 'layer.<i>.out'"),
    ({"capture": "hidden"}, ValueError, "no site is named 'hidden'; there are embed, layer.<i>.attn_in, "),
    ({"capture": "layer.00.out"}, ValueError, "no site is named 'layer.00.out'"),
    ({"capture": [["embed"]]}, TypeError, "a site of capture must be a str, not list"),
    ({"capture": 3}, TypeError, "capture must be names of sites, not int 3"),
    ({"capture": [3]}, TypeError, "a site of capture must be a str, not int 3"),
    ({"edit": {"layer.30.out": len}}, ValueError, "edit: there is no layer.30.out; the model has layers 0 to 29"),
    ({"edit": {"layer.1.q": len}}, ValueError, "edit: no site is named 'layer.1.q'"),
    ({"edit": {"layer.1.attn_weights": len}}, slm.UnsupportedError, "layer.1.attn_weights can be captured, not edited"),
    ({"edit": {"embed": 3}}, TypeError, r"edit\['embed'\] must be a function of an array, not int 3"),
    ({"edit": len}, TypeError, "edit must be a mapping of sites to functions"),
]


@pytest.mark.parametrize(("keywords", "exception", "message"), ARGUMENTS)
def test_arguments_are_checked(smollm2, keywords, exception, message):
    with pytest.raises(exception, match=message):
        smollm2.forward([1, 2], **keywords)
    if "edit" in keywords:
        with pytest.raises(exception, match=message):
            smollm2.generate("x", **keywords)
        with pytest.raises(exception, match=message):
            smollm2.generate([], **keywords)


def test_weights_that_no_memory_holds(smollm2):
    """270 matrices of 8192 x 8192: 72 GB."""
    with pytest.raises(MemoryError, match=r"what capture asks for takes 72.5 GB, and .* are available"):
        smollm2.forward([1] * 8192, capture=[f"layer.{i}.attn_weights" for i in range(30)])


TAPS = [
    ([("embed", 0, np.zeros((2, 576), np.float32))], TypeError, "expected a tuple"),
    ((("embed", 0, np.zeros((3, 576), np.float32)),), ValueError, "embed: expected a contiguous, writable float32 array of 1152"),
    ((("embed", 0, np.zeros((2, 576))),), ValueError, "float32"),
    ((("embed", 0, np.zeros((576, 2), np.float32).T),), ValueError, "contiguous"),
    ((("layer.0.out", 0, len),), ValueError, "the site 'layer.0.out' is not known"),
    ((("out", -1, len),), ValueError, "layer.-1"),
    ((("embed", 1, len),), ValueError, "layer.1"),
    ((("attn_weights", 1, len),), slm.UnsupportedError, "layer.1.attn_weights"),
    ((("out", 2**70, len),), OverflowError, "too big"),
    ((("out", np.int64(1), len),), TypeError, "must be int, not numpy.int64"),
    ((("out", 1, None),), TypeError, "layer.1.out: expected an array or a function, found <class 'NoneType'>"),
]


@pytest.mark.parametrize(("taps", "exception", "message"), TAPS)
def test_the_boundary_checks_taps(smollm2, taps, exception, message):
    session = smollm2._open_core().session()
    with pytest.raises(exception, match=message):
        session.forward([1, 2], taps=taps)
    session.forward([1, 2])


def test_only_a_pass_captures(smollm2):
    arguments = {"tokenizer": None, "max_tokens": 2, "ignore_eos": True, "temperature": 0.0, "top_k": 0, "top_p": 1.0}
    arguments |= {"seed": 0, "sample": 0, "stop": (), "end_tokens": ()}
    core, taps = smollm2._open_core(), (("embed", 0, np.zeros((2, 576), np.float32)),)
    with pytest.raises(TypeError, match="embed: expected a function, found"):
        core.generate(prompts=[[1, 2]], taps=taps, **arguments)
    generation = core.session().generate(prompt=[1, 2], **arguments)
    with pytest.raises(TypeError, match="embed: expected a function, found"):
        generation.next(True, taps=taps)
    assert len(generation.next(True)[1]) == 2


def test_a_model_that_embeds_refuses(minilm_path):
    with slm.load(minilm_path) as model:
        for call in (lambda: model.forward([1], capture="embed"), lambda: model.unembed(np.zeros((1, 384)))):
            with pytest.raises(slm.UnsupportedError, match="it embeds"):
                call()
