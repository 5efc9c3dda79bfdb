# SPDX-License-Identifier: Apache-2.0
"""What several test files share: the real model, fetched once with slm's own hub, and where data lies."""

import os
from pathlib import Path

import pytest

import slm
from slm import hub

DATA = Path(__file__).parent / "data"

# A child process started in the checkout would import the sources there, which may hold no compiled core, not the installed slm.
os.chdir(Path(__file__).parent)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct Q4_1 (98 MB). Without network the tests that need it skip; in CI that is a failure."""
    try:
        return hub.resolve("smollm2-135m").path
    except (slm.Error, OSError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the model cannot be fetched: {error}")


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path):
    with slm.load(smollm2_path) as model:
        yield model
