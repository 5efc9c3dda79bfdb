# SPDX-License-Identifier: Apache-2.0
"""The same bits, however the work is cut: threads, prefill chunks, cached or cold, streamed or not, and whatever tier runs."""

import kl
import numpy as np
import pytest
import tier_worker
import tiny_models

from slm import _core

HAS_BLIS = _core.cpu_info()["blas"].startswith("blis")
FORMS = [
    *(("Q4_1", "bf16"), ("Q4_1", "f32"), ("Q4_0", "bf16"), ("Q8_0", "bf16"), ("Q5_1", "bf16"), ("IQ4_NL", "bf16")),
    *(("F16", "bf16"), ("BF16", "bf16"), ("F32", "f32"), ("F32", "bf16")),
    *(("Q4_0", "int8"), ("F16", "int8")),
    *(("Q4_1", "bf16", "high"), ("Q8_0", "f32", "high"), ("BF16", "bf16", "high")),
]
# Through BLIS, f32 weights are promised to give the same bits for any thread count, and no more.
FORMS_OF_OUR_KERNELS = [form for form in FORMS if not (HAS_BLIS and form[0] == "F32")]
SPLIT = 301  # within a cache page and a segment


def same_bits(logits: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(logits.view(np.uint32), expected.view(np.uint32))


@pytest.fixture(scope="module", params=["llama_gqa_tied", "llama_mqa_wide_heads"])
def model(request):
    return tier_worker.long_model(request.param)


@pytest.fixture(scope="module")
def build(model, tmp_path_factory):
    """(type, kv, precision if not the default) -> (core model, the logits of all positions with one thread), made once."""
    made = {}

    def get(form):
        if form not in made:
            core = tiny_models.core_model(model, tmp_path_factory.mktemp("tiny") / "weights", *form, down_proj_group=16)
            made[form] = core, core.session().forward(model.ids, "all", threads=1)
        return made[form]

    return get


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_threads(build, model, form):
    core, expected = build(form)
    same_bits(core.session().forward(model.ids, "all", threads=2), expected)
    session = core.session()
    session.forward(model.ids[:-5], "none", threads=2)
    for i in range(-5, 0):  # decoding, with the threads in turns
        alone = session.fork().forward(model.ids[i : len(model.ids) + i + 1], threads=1)
        same_bits(session.forward(model.ids[i : len(model.ids) + i + 1], threads=2), alone)


@pytest.mark.parametrize("form", FORMS_OF_OUR_KERNELS, ids="-".join)
@pytest.mark.parametrize("chunk", [1, 7, 32, 512])
@pytest.mark.parametrize("threads", [1, 2])
def test_prefill_chunks(build, model, form, chunk, threads):
    core, expected = build(form)
    same_bits(core.session().forward(model.ids, "all", threads=threads, prefill_chunk=chunk), expected)


@pytest.mark.parametrize("form", FORMS_OF_OUR_KERNELS, ids="-".join)
def test_last_logits_and_single_tokens(build, model, form):
    core, expected = build(form)
    same_bits(core.session().forward(model.ids, "last"), expected[-1:])
    session = core.session()
    assert session.forward(model.ids[:SPLIT], "none") is None
    for position in range(SPLIT, SPLIT + 30):
        same_bits(session.forward(model.ids[position : position + 1]), expected[position : position + 1])


@pytest.mark.parametrize("form", FORMS_OF_OUR_KERNELS, ids="-".join)
def test_a_rewound_cache_is_as_good_as_new(build, model, form):
    core, expected = build(form)
    session = core.session()
    session.forward(model.ids, "none")
    for kept in (SPLIT, 64, 63, 1, 0):
        session.rewind(kept)
        session.forward(model.ids[:40], "none")  # what stood there is overwritten
        session.rewind(kept)
        same_bits(session.forward(model.ids[kept:], "all"), expected[kept:])
        assert session.length == len(model.ids)


@pytest.mark.parametrize("form", FORMS_OF_OUR_KERNELS, ids="-".join)
def test_forks_do_not_see_each_other(build, model, form):
    core, expected = build(form)
    trunk = core.session()
    trunk.forward(model.ids[:SPLIT], "none")
    fork = trunk.fork()
    other = fork.fork()
    other.forward(model.ids[:50], "none")  # the first write to a shared page copies it
    same_bits(fork.forward(model.ids[SPLIT:], "all"), expected[SPLIT:])
    other.rewind(20)
    other.forward(model.ids[:77], "none")
    same_bits(trunk.forward(model.ids[SPLIT:], "all"), expected[SPLIT:])
    del trunk, fork
    other.rewind(20)
    same_bits(other.forward(model.ids[20:], "all"), expected[20:])


@pytest.mark.parametrize("form", FORMS_OF_OUR_KERNELS, ids="-".join)
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(0.0, 0, 1.0), (1.0, 0, 1.0), (0.8, 20, 0.9)])
def test_generation_in_chunks_or_whole(build, model, form, temperature, top_k, top_p):
    core, _ = build(form)

    def tokens(whole: bool, threads: int, chunk: int, cached: int) -> list[int]:
        session = core.session()
        if cached:
            session.forward(model.ids[:cached], "none")
        generation = session.generate(None, model.ids[cached:SPLIT], 30, True, temperature, top_k, top_p, 7, 0, [], [])
        found: list[int] = []
        while True:
            _, new, finish, *_ = generation.next(whole, threads, chunk)
            found += new
            if finish is not None:
                assert finish == "length"
                return found

    expected = tokens(True, 1, 0, 0)
    assert len(expected) == 30
    if temperature == 0:
        session, greedy = core.session(), []
        logits = session.forward(model.ids[:SPLIT])
        for _ in range(30):
            greedy.append(int(logits[0].argmax()))
            logits = session.forward(greedy[-1:])
        assert expected == greedy
    for whole, threads, chunk, cached in [(False, 2, 7, 0), (False, 1, 1, 100), (True, 2, 512, SPLIT - 1), (False, 2, 32, 64)]:
        assert tokens(whole, threads, chunk, cached) == expected


def test_the_real_model(smollm2):
    """All recorded prompts as one long one: 354 tokens."""
    ids = [id for r in kl.load("smollm2-135m-instruct-q4_1") for id in r.ids]
    core = smollm2._core
    expected = core.session().forward(ids, "all", threads=1, prefill_chunk=512)
    for threads, chunk in [(1, 1), (2, 1), (1, 7), (2, 7), (1, 32), (2, 32), (2, 512)]:
        same_bits(core.session().forward(ids, "all", threads=threads, prefill_chunk=chunk), expected)
    session = core.session()
    session.forward(ids, "none")
    session.rewind(200)
    fork = session.fork()
    same_bits(fork.forward(ids[200:], "all"), expected[200:])
    same_bits(session.forward(ids[200:], "all"), expected[200:])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "top_p": 0.95, "seed": 11}], ids=["greedy", "sampled"])
def test_streamed_text_is_the_generated_text(smollm2, options):
    prompt = "Once upon a time, a gull asked"
    output = smollm2.generate(prompt, max_tokens=40, **options)
    chunks = list(smollm2.stream(prompt, max_tokens=40, **options))
    assert "".join(chunk.text for chunk in chunks) == output.text
    assert [id for chunk in chunks for id in chunk.tokens] == output.tokens
    assert len(chunks) > 5
    assert smollm2.generate(prompt, max_tokens=40, **options).text == output.text


def test_every_tier_gives_the_same_bits(tmp_path):
    """Quantized, f16 and bf16 models: each tier of this machine in a process of its own."""
    tiers = _core.cpu_info()["supported"]
    print(*tiers)
    lines = {tier: tier_worker.run(tier, "hash", tmp_path) for tier in tiers}
    assert len(lines["scalar"]) == len(tier_worker.HASH_CASES)
    assert not any("not finite" in line for line in lines["scalar"])
    for tier in tiers:
        assert lines[tier] == lines["scalar"], tier
