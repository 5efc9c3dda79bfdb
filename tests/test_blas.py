# SPDX-License-Identifier: Apache-2.0
"""F32 matrices through BLIS: the configuration that fits the tier, and right results. BLIS does not know new CPUs by itself and
would quietly run plain C on them, at a fifth of the speed."""

import os
import subprocess
import sys

import gguf_writer
import numpy as np
import pytest
import tier_worker

import slm
from slm import _core

CONFIGURATIONS = {"avx512_bf16": "skx", "avx512": "skx", "avx2_vnni": "haswell", "avx2": "haswell"}
has_blis = _core.cpu_info()["blas"].startswith("blis")
needs_blis = pytest.mark.skipif(not has_blis, reason="this build of slm has no BLIS (Debian: libblis-serial-dev)")


@needs_blis
def test_configuration_of_this_process():
    info = _core.cpu_info()
    print(info["isa"], info["blas"], info["blas_arch"])
    if info["isa"] in CONFIGURATIONS:
        assert info["blas_arch"] == CONFIGURATIONS[info["isa"]]


@pytest.mark.parametrize("tier", _core.cpu_info()["supported"])
def test_every_tier_multiplies_f32_matrices(tier, tmp_path):
    """Against NumPy, on a model of odd sizes; without BLIS the same through our own kernel."""
    arch, errors = tier_worker.run(tier, "wide-f32", tmp_path)
    print(tier, arch, errors)
    if has_blis and tier in CONFIGURATIONS:
        assert arch == CONFIGURATIONS[tier]
    assert all(float(error) < 1e-5 for error in errors.split())


@needs_blis
@pytest.mark.parametrize("setting", [None, "haswell", "0"])
def test_the_users_environment_is_left_alone(setting):
    """slm sets BLIS_ARCH_TYPE while BLIS starts, and puts back what it found, which it does not obey."""
    environment = {key: value for key, value in os.environ.items() if key != "BLIS_ARCH_TYPE"}
    if setting is not None:
        environment["BLIS_ARCH_TYPE"] = setting
    script = "import subprocess; from slm import _core; print(_core.cpu_info()['blas_arch'], flush=True); subprocess.run(['env'])"
    done = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    arch, *variables = done.stdout.splitlines()
    assert arch == _core.cpu_info()["blas_arch"]
    found = [line for line in variables if line.startswith("BLIS_ARCH_TYPE=")]
    assert found == ([] if setting is None else [f"BLIS_ARCH_TYPE={setting}"])


@needs_blis
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tokens_are_chosen_among_the_logits_of_forward(threads, tmp_path):
    """Rows go to BLIS in pieces of 128, whole, however few of them one thread or choice needs."""
    gguf_writer.write_gguf(tmp_path / "x.gguf", *gguf_writer.tiny_llama(hidden=64))
    with slm.load(tmp_path / "x.gguf", threads=threads) as model:
        greedy = model.generate([1, 5, 9], max_tokens=24, ignore_eos=True).tokens
        logits = model.forward([1, 5, 9, *greedy[:-1]]).logits
        assert logits.shape[1] % 128
        assert greedy == np.argmax(logits[2:], axis=1).tolist()
        drawn = model.generate([1, 5, 9], max_tokens=24, ignore_eos=True, temperature=1.0, top_k=3, seed=1).tokens
        logits = model.forward([1, 5, 9, *drawn[:-1]]).logits[2:]
        for token, row in zip(drawn, logits, strict=True):
            assert row[token] >= np.sort(row)[-3]
