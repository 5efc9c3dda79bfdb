# SPDX-License-Identifier: Apache-2.0
"""How far a call with many texts has come: told to a function, drawn as a bar, or neither."""

import os
import pty
import subprocess
import sys
import termios

import pytest

PROMPTS = ["The sea", "The sea is", "A hill", "1, 2, 3,"] * 10


def test_a_function_is_told_of_every_kind_of_call(smollm2):
    text = list(range(100, 400))
    calls = {
        "generate": (40, lambda tell: smollm2.generate(PROMPTS, max_tokens=2, progress=tell)),
        "samples": (4, lambda tell: smollm2.generate(["A", "B"], n=2, temperature=1.0, max_tokens=2, progress=tell)),
        "score": (40, lambda tell: smollm2.score([(prompt, " is") for prompt in PROMPTS], progress=tell)),
        "perplexity": (1, lambda tell: smollm2.perplexity(text, progress=tell)),
    }
    for name, (total, call) in calls.items():
        told = []
        call(lambda *numbers, told=told: told.append(numbers))
        done = [numbers[0] for numbers in told]
        assert done == sorted(set(done)), name
        assert told[-1] == (total, total), name
        assert {numbers[1] for numbers in told} == {total}
    assert smollm2.generate([], progress=told.append) == []


def test_it_changes_nothing_and_its_exception_ends_the_call(smollm2):
    expected = smollm2.generate(PROMPTS, max_tokens=3)
    found = smollm2.generate(PROMPTS, max_tokens=3, progress=lambda done, total: None)
    assert [output.tokens for output in found] == [output.tokens for output in expected]

    def tell(done, total):
        raise LookupError

    with pytest.raises(LookupError) as caught:
        smollm2.generate(PROMPTS, max_tokens=3, progress=tell)
    outputs = caught.value.output
    finished = [i for i, output in enumerate(outputs) if output.finish_reason]
    assert 0 < len(finished) < 40
    assert all(outputs[i].tokens == expected[i].tokens for i in finished)
    with pytest.raises(LookupError):
        smollm2.score([("A", " b")], progress=tell)


def test_bars_on_request(smollm2, capfd):
    smollm2.generate(PROMPTS, max_tokens=2, progress=True)
    shown = capfd.readouterr()
    assert (shown.out, "40/40" in shown.err) == ("", True)
    smollm2.score([("A", " b")], progress=True)
    assert "1/1" in capfd.readouterr().err
    smollm2.generate(PROMPTS, max_tokens=2, progress=False)
    smollm2.generate(PROMPTS, max_tokens=2)  # stderr is no terminal
    assert capfd.readouterr() == ("", "")


NOTEBOOK = """
import sys, types
# What tqdm knows a notebook by; here it is one without ipywidgets.
sys.modules["ipykernel.zmqshell"] = sys.modules["ipywidgets"] = None
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(config={"IPKernelApp": {}}))
from slm.progress import reported
with reported(True, 2, " texts") as report:
    report(2, 2)
"""


def test_in_a_notebook_without_widgets_it_is_text_and_no_warning():
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=True)
    assert ("2/2" in done.stderr, "Warning" in done.stderr) == (True, False)


PROGRAM = """
import sys, slm, slm.progress
slm.progress.BAR_DELAY = float(sys.argv[2])
slm.load(sys.argv[1]).generate(["a", "b", "c"] * 20, max_tokens=8)
"""


@pytest.mark.parametrize("delay", [0.01, 60])
def test_on_a_terminal_a_bar_comes_when_it_takes_long(smollm2_path, delay):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run([sys.executable, "-c", PROGRAM, str(smollm2_path), str(delay)], stderr=theirs, check=True, timeout=120)
        os.write(theirs, b"end")
        shown = terminal.read(1 << 16)
        os.close(theirs)
    assert (b"/60" in shown) == (delay < 1)


@pytest.mark.parametrize(
    ("prompt", "progress", "error", "message"),
    [
        (["a"], 1, TypeError, "progress must be None, True, False or a function of"),
        ("a", True, ValueError, "progress is for a list of prompts"),
    ],
)
def test_what_is_refused(smollm2, prompt, progress, error, message):
    with pytest.raises(error, match=message):
        smollm2.generate(prompt, progress=progress)
