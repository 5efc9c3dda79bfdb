# SPDX-License-Identifier: Apache-2.0
"""Layers with windows hold only the pages that a query can reach: how much that is, how far a session can go back, and that
conversations never notice."""

import gc
import signal
from pathlib import Path

import numpy as np
import pytest
from gguf_writer import tiny_llama, write_gguf

import slm

CONTEXT, WINDOW, PAGE = 1 << 16, 24, 64
# Rewrites what it said before: the number of messages stands in front.
TEMPLATE = (
    "{{ messages | length }}|{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def window_model(path: Path, template: str = TEMPLATE, window: int = WINDOW) -> slm.Model:
    """Matrices as F16: no BLIS, and so the same bits for any chunks."""
    metadata, tensors = tiny_llama(layers=2, kv_heads=4)
    tensors |= {name: ("F16", shape, data.astype("<f2")) for name, (_, shape, data) in tensors.items() if len(shape) == 2}
    more = {"llama.context_length": CONTEXT, "llama.attention.sliding_window": window}
    metadata |= {key: ("uint32", value) for key, value in more.items()} | {"tokenizer.chat_template": ("string", template)}
    write_gguf(path / "window.gguf", metadata, tensors)
    return slm.load(path / "window.gguf", threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with window_model(tmp_path_factory.mktemp("window")) as model:
        yield model


def tokens_of(n: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 259, n)


@pytest.mark.parametrize("window", [1, 24, 64, 65, 1000])
@pytest.mark.parametrize(("chunk", "length"), [(0, 3000), (64, 3000), (1, 750), (100, 750)])
def test_pages_held_are_those_that_a_query_can_reach(window, chunk, length, tmp_path):
    with window_model(tmp_path, window=window) as model:
        core = model._core
        session = core.session()
        page_bytes = PAGE * 4 * (8 + 16) * 2  # 4 heads of 8, values padded to 16, bf16
        for end in range(0, length, 250):
            session.forward(tokens_of(250, end), "none", 1, chunk)
            end += 250
            # A query that follows a rewind by 64 positions is the first that may come.
            first = max(0, end - PAGE - window + 1) // PAGE
            assert session.kv_bytes == 2 * page_bytes * (-(-end // PAGE) - first)
            assert session.rewind_limit == (first * PAGE + window - 1 if first else 0)
            assert session.rewind_limit <= max(0, end - PAGE)
        most = slm.inspect(tmp_path / "window.gguf", context=length).kv_bytes
        assert session.kv_bytes <= most <= 2 * page_bytes * -(-length // PAGE)
        assert model.info.kv_bytes == slm.inspect(tmp_path / "window.gguf").kv_bytes == core.stats()["kv_bytes"]
        assert core.stats()["kv_bytes"] < CONTEXT * page_bytes / PAGE / 5


@pytest.mark.parametrize("window", [1, 1000, CONTEXT])
def test_few_tokens_after_many_are_shared_out_by_segments_and_give_the_same_bits(window, tmp_path):
    """2400 positions are ten segments of attention: eight tokens run them in three waves, one token in one."""
    with window_model(tmp_path, window=window) as model:
        core, ids = model._core, tokens_of(2411)
        session = core.session()
        session.forward(ids[:2390], "none", 1, 500)
        whole = session.fork().forward(ids[2390:], "all", 1)
        for threads in (1, 2, 3):
            for n in (1, 2, 8):
                fork = session.fork()
                for at in range(0, 21, n):
                    step = fork.forward(ids[2390 + at : min(2390 + at + n, 2411)], "all", threads)
                    np.testing.assert_array_equal(step, whole[at : at + n])


def test_a_rewind_past_a_window_is_refused_and_changes_nothing(model):
    core, ids = model._core, tokens_of(700)
    whole = core.session().forward(ids, "all")
    session = core.session()
    session.forward(ids, "none")
    limit = session.rewind_limit
    assert 560 < limit <= 700 - PAGE
    for n_tokens in (1, 100, limit - 1):
        with pytest.raises(
            ValueError, match=rf"n_tokens: expected 0 or {limit} to 700, found {n_tokens}: the windows of earlier"
        ):
            session.rewind(n_tokens)
        assert (session.length, session.rewind_limit) == (700, limit)
    for n_tokens in (699, 640, 639, limit + 5, limit):
        fork = session.fork()
        fork.rewind(n_tokens)
        np.testing.assert_array_equal(fork.forward(ids[n_tokens:], "all"), whole[n_tokens:])
    for n_tokens in range(650, limit - 1, -3):  # back in steps: there is no way round the limit
        session.rewind(n_tokens)
        assert session.rewind_limit == limit
        np.testing.assert_array_equal(session.fork().forward(ids[n_tokens : n_tokens + 3], "all"), whole[n_tokens : n_tokens + 3])
    session.rewind(0)
    assert (session.length, session.rewind_limit, session.kv_bytes) == (0, 0, 0)
    np.testing.assert_array_equal(session.forward(ids, "all"), whole)


def test_a_failed_call_leaves_the_window_where_it_began(model):
    """The last chunk fails long after the window of the first one was out of reach."""
    core, ids = model._core, tokens_of(900)
    whole = core.session().forward(ids, "all")
    session = core.session()
    session.forward(ids[:333], "none")
    held = session.kv_bytes
    with signal_after(0.05), pytest.raises(KeyboardInterrupt):
        session.forward(np.tile(ids, 70), "none", 1, 16)
    assert (session.length, session.kv_bytes) == (333, held)
    np.testing.assert_array_equal(session.forward(ids[333:], "all"), whole[333:])


class signal_after:
    """KeyboardInterrupt on this, the main thread, after some seconds of real time.

    Without garbage collection: an exception in a callback of the collector, and hypothesis has one, is swallowed.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        gc.disable()
        self.before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        gc.enable()


# ---- conversations ---------------------------------------------------------------------------------------------------


def test_a_template_that_rewrites_the_beginning_runs_the_conversation_anew(model):
    session = model.session()
    for i in range(3):
        question = f"{i} " + 200 * "the "
        messages = [*session.messages, {"role": "user", "content": question}]
        answer = session.send(question, max_tokens=7, ignore_eos=True)
        assert answer.tokens == model.chat(messages, max_tokens=7, ignore_eos=True).tokens
        assert session.length == answer.usage.prompt_tokens + 6
        assert session._core.rewind_limit > 0


def test_an_interrupted_turn_is_as_if_never_asked(tmp_path):
    with window_model(tmp_path, TEMPLATE.replace("{{ messages | length }}|", "")) as model:
        options = {"max_tokens": 5, "ignore_eos": True}
        session, other = model.session("s" * 100), model.session("s" * 100)
        for each in (session, other):
            each.append(tokens_of(300).tolist())
            each.send("one", **options)
        state = session.tokens, session.messages
        with signal_after(0.2), pytest.raises(KeyboardInterrupt):
            session.send("two", max_tokens=CONTEXT - 1000, ignore_eos=True)
        fork = session.fork()
        for each in (session, fork):
            assert each.messages == state[1]
            assert 300 < each.length < len(state[0])  # of the answer, as text, what its tokens would be again
            assert each.tokens == state[0][: each.length]
            assert each._core.length == 0  # it went too far to come back: all of it runs again
        expected = other.send("three", **options)
        for each in (session, fork):
            answer = each.send("three", **options)
            assert (answer.tokens, answer.usage.prompt_tokens) == (expected.tokens, expected.usage.prompt_tokens)
            assert each.tokens == other.tokens
        with signal_after(0.2), pytest.raises(KeyboardInterrupt):
            session.send("four", max_tokens=CONTEXT - 2000, ignore_eos=True)
        assert session._core.length == 0
        session.append([5, 6, 7])
        assert session._core.length == session.length
        expected = model._core.session().forward([*session.tokens, 9])
        np.testing.assert_array_equal(session._core.fork().forward([9]), expected)


def test_rewinding_a_conversation(model):
    session = model.session()
    session.append(tokens_of(500).tolist())
    with pytest.raises(ValueError, match=r"n_tokens: expected 0 or \d+ to 500, found 10"):
        session.rewind(10)
    assert session.length == 500
    session.rewind(500 - PAGE)
    assert session.tokens == tokens_of(500).tolist()[: 500 - PAGE]
    session.rewind(0)
    assert session.tokens == []
