# SPDX-License-Identifier: Apache-2.0
"""The extension module against hostile callers: what arrives through slm._core itself, not through the Python face."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import slm
from slm.errors import BusyError

GREEDY = {"max_tokens": 4, "ignore_eos": True, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0, "sample": 0}


def generation(session, prompt, **changes):
    return session.generate(tokenizer=None, prompt=prompt, stop=[], end_tokens=[], **{**GREEDY, **changes})


def test_arguments_cannot_slip_a_second_call_under_a_session(smollm2):
    """Reading the arguments runs the caller's code, which may start a call on the same session: one of the two is refused."""
    session = smollm2._core.session()
    inner = []

    class Hostile:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if i == 0 and not inner:
                inner.append(generation(session, [5]))
            if i > 1:
                raise IndexError
            return 5

    with pytest.raises(BusyError):
        session.forward(Hostile(), "none")
    inner.pop().close()
    with pytest.raises(BusyError):
        generation(session, Hostile())
    inner.pop().close()
    session.forward([5], "none")
    assert session.length == 1


def test_stop_strings_of_a_sequence_that_lies_about_its_length(smollm2):
    class Short(list):
        def __len__(self):
            return 5

    for stop, error in ((Short([b"a"]), None), ([b"a", bytearray(b"b")], TypeError), ([b""], ValueError), (3, TypeError)):
        call = {**GREEDY, "tokenizer": smollm2.tokenizer._core, "prompt": [5], "stop": stop, "end_tokens": []}
        session = smollm2._core.session()
        if error:
            with pytest.raises(error):
                session.generate(**call)
        else:
            assert session.generate(**call).next(True)[2] == "length"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("threads", -1, ValueError),
        ("threads", 257, ValueError),
        ("threads", True, TypeError),
        ("prefill_chunk", -3, ValueError),
        ("prefill_chunk", 1.0, TypeError),
        ("tokens", [1, True], TypeError),
        ("tokens", [-1], ValueError),
        ("tokens", [1 << 40], ValueError),
        ("tokens", np.array([1.0]), TypeError),
        ("tokens", np.array([[1]]), TypeError),
        ("tokens", "text", TypeError),
        ("tokens", [], ValueError),
        ("tokens", [1 << 20], ValueError),
        ("output", "some", ValueError),
    ],
)
def test_forward_names_the_wrong_argument(smollm2, name, value, error):
    session = smollm2._core.session()
    with pytest.raises(error, match=name):
        session.forward(**{"tokens": [1], name: value})
    assert session.length == 0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("seed", -1, ValueError),
        ("seed", 1 << 64, ValueError),
        ("sample", 1 << 70, ValueError),
        ("top_k", -1, ValueError),
        ("max_tokens", -1, ValueError),
        ("temperature", float("nan"), ValueError),
        ("top_p", 0.0, ValueError),
        ("min_p", 1.5, ValueError),
        ("typical_p", -1.0, ValueError),
        ("repetition_penalty", float("inf"), ValueError),
        ("presence_penalty", float("nan"), ValueError),
        ("frequency_penalty", float("inf"), ValueError),
        ("penalty_window", -1, ValueError),
        ("presence_penalty", 1.0, ValueError),  # without a window
        ("no_repeat_ngram", -1, ValueError),
        ("logprobs", -1, ValueError),
        ("processors", [], TypeError),
        ("bias_ids", [1], ValueError),
        ("bias", [1.0], ValueError),
        ("prompt", [], ValueError),
    ],
)
def test_generate_names_the_wrong_argument(smollm2, name, value, error):
    session = smollm2._core.session()
    with pytest.raises(error, match="penalty_window" if value == 1.0 else name):
        generation(session, **{"prompt": [1], name: value})
    with pytest.raises(ValueError, match="logit_bias: expected token ids from 0"):
        generation(session, [1], bias_ids=[1, 1 << 20], bias=[0.0, 0.0])
    with pytest.raises(ValueError, match="logit_bias: expected a finite number or -inf, found inf"):
        generation(session, [1], bias_ids=[1], bias=[float("inf")])
    session.forward([1], "none")  # not left busy


def test_held_tokens_are_checked(smollm2):
    """They do not run, but penalties count them."""
    session = smollm2._core.session()
    session.forward([1, 2], "none")
    for id in (1 << 20, 2**31 - 1):
        with pytest.raises(ValueError, match=rf"prompt\[1\]: expected 0 to 49151, found {id}"):
            generation(session, [1, id, 3], n_held=2, presence_penalty=1.0, penalty_window=9)
    assert len(generation(session, [1, 2, 3], n_held=2, presence_penalty=1.0, penalty_window=9).next(True)[1]) == 4


def test_methods_without_arguments_take_none(smollm2):
    session = smollm2._core.session()
    for method in (session.fork, smollm2._core.stats, smollm2._core.session, generation(session, [1]).close):
        with pytest.raises(TypeError):
            method(1)


def test_length_can_be_read_while_a_call_runs(smollm2):
    session = smollm2._core.session()
    thread = threading.Thread(target=session.forward, args=([7] * 600, "none"))
    thread.start()
    while thread.is_alive():
        assert session.length in (0, 600)
    thread.join()
    assert session.length == 600


def test_a_waiting_caller_can_be_interrupted(smollm2_path):
    """Ctrl-C while other threads hold the pool: the main thread's call ends although its turn has not come."""
    program = """
import sys, threading, time, slm
m = slm.load(sys.argv[1], threads=2)
for _ in range(6):
    threading.Thread(target=lambda: m.forward([7] * 3000, logits="last"), daemon=True).start()
time.sleep(0.5)
try:
    print("ready", flush=True)
    m.forward([7] * 3000, logits="last")
    print("done")
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
    import os
    os._exit(0)
"""
    latencies = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", program, str(smollm2_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        start = time.time()
        os.kill(child.pid, signal.SIGINT)
        words = child.stdout.readline().split()
        child.wait(30)
        assert words[0] == "interrupted"
        latencies.append(float(words[1]) - start)
    assert min(latencies) < 0.1, latencies


def test_a_thread_that_computes_lets_python_run(smollm2):
    """The GIL is free while the core works."""
    thread = threading.Thread(target=smollm2.forward, args=([7] * 1500,), kwargs={"logits": "last"})
    ticks = 0
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 20
    assert isinstance(smollm2, slm.Model)
