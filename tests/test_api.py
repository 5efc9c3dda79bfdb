# SPDX-License-Identifier: Apache-2.0
"""The package as it is imported, and on the real model: what a file holds, its tokenizer, the progress of a load."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import slm


def test_import_is_light(tmp_path):
    program = """
import sys, time
import numpy
start = time.perf_counter()
import slm
seconds = time.perf_counter() - start
late = {"jinja2", "tqdm", "torch", "transformers", "slm.families.registry", "slm.loader"}
early = late & set(sys.modules)
import slm.loader
of_folders = {"slm.formats.folder", "slm.formats.peft", "slm.families.llama", "slm.families.tokenizer_json"}
print(seconds, *sorted(early | of_folders & set(sys.modules)))
"""
    # Compiled modules, as an installed package has them; the first run writes them.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    times = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True, env=env)
        seconds, *modules = done.stdout.split()
        assert modules == []
        times.append(float(seconds))
    assert min(times) < 0.06


def test_public_names():
    for name in slm.__all__:
        assert getattr(slm, name).__doc__ or name == "cpu_info"
    assert slm.__version__
    with pytest.raises(AttributeError):
        getattr(slm, "nothing")  # noqa: B009


def test_inspect_reads_the_header(smollm2, smollm2_path):
    info = slm.inspect(smollm2_path, context=64)
    assert (info.name, info.parameters, info.context) == (smollm2.info.name, smollm2.info.parameters, 64)
    assert smollm2.info.context == smollm2.context == 8192


def test_tokenizer(smollm2, smollm2_path):
    tokenizer = slm.load_tokenizer(smollm2_path)
    assert tokenizer.vocab_size == len(tokenizer) == 49152
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert set(tokenizer.end_ids) >= {2}
    assert tokenizer.token_id("<|im_end|>") == 2
    assert tokenizer.token_id("no such piece") is None
    assert tokenizer.token_bytes(504) == b"The"
    assert set(tokenizer.control_ids) >= {0, 1, 2}
    text = "a\0b é 東京 😀 <|im_end|>\r\n\t"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids)) == tokenizer.decode(tuple(ids)) == text
    assert tokenizer.decode(504) == "The"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([1, 504, 2]) == "<|im_start|>The<|im_end|>"
    assert tokenizer.decode([1, 504, 2], skip_special_tokens=True) == "The"
    assert "49152" in repr(tokenizer)


@pytest.mark.parametrize(
    ("call", "exception", "part"),
    [
        (lambda t: t.encode(3), TypeError, "text must be a str, not int 3"),
        (lambda t: t.encode(b"x"), TypeError, "text must be a str"),
        (lambda t: t.encode("x", add_special_tokens=1), TypeError, "add_special_tokens must be True or False"),
        (lambda t: t.encode("x", parse_special=None), TypeError, "parse_special must be True or False"),
        (lambda t: t.encode("\ud800"), ValueError, "text holds a lone surrogate at index 0"),
        (lambda t: t.encode_with_offsets("a\udfff"), ValueError, "text holds a lone surrogate at index 1"),
        (lambda t: t.encode_batch(["", "\ud800"]), ValueError, r"texts\[1\] holds a lone surrogate at index 0"),
        (lambda t: t.token_id("\ud800"), ValueError, "piece holds a lone surrogate at index 0"),
        (lambda t: t.encode("x" * (64 << 20) + "x"), slm.LimitError, "at most 67108864, found 67108865"),
        (lambda t: t.decode("x"), TypeError, "ids must be"),
        (lambda t: t.decode([49152]), ValueError, r"ids\[0\] must be a token id from 0 to 49151, not 49152"),
        (lambda t: t.decode(-1), ValueError, r"ids\[0\] must be a token id from 0 to 49151, not -1"),
        (lambda t: t.decode(None), TypeError, r"ids\[0\] must be a token id, not NoneType"),
        (lambda t: t.token_bytes(49152), ValueError, "id must be an integer from 0 to 49151, not 49152"),
        (lambda t: t.token_id(3), TypeError, "piece must be a str"),
    ],
)
def test_wrong_tokenizer_arguments(smollm2, call, exception, part):
    with pytest.raises(exception, match=part):
        call(smollm2.tokenizer)


def test_progress_of_a_load(smollm2_path):
    seen = []
    slm.load(smollm2_path, context=64, progress=lambda done, total: seen.append((done, total))).close()
    assert seen == sorted(seen)
    assert seen[-1][0] <= seen[-1][1]

    def refuse(done, total):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        slm.load(smollm2_path, context=64, progress=refuse)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
