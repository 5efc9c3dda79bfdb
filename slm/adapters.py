# SPDX-License-Identifier: Apache-2.0
"""From the files of a LoRA adapter to a model that runs with it: formats -> families -> the core."""

import errno
import os
from pathlib import Path

from slm import _core
from slm.errors import FormatError
from slm.families.adapters import place
from slm.families.architecture import Architecture
from slm.formats.adapter_files import AdapterFiles
from slm.formats.gguf_adapter import GGUFAdapter
from slm.formats.peft import PeftAdapter
from slm.info import Adapter


def open_adapter(path: str | os.PathLike[str]) -> AdapterFiles:
    """A PEFT folder or a GGUF file. Raises OSError, FormatError, UnsupportedError, LimitError."""
    if not os.path.exists(path):
        known = "no such file or folder (adapters are named by their paths, not as on the Hugging Face Hub)"
        raise FileNotFoundError(errno.ENOENT, known, os.fspath(path))
    named_peft = os.path.isdir(path) or Path(path).suffix in (".safetensors", ".json", ".bin")
    return PeftAdapter(path) if named_peft else GGUFAdapter(path)


def adapt(
    core: _core.Model, architecture: Architecture, files: AdapterFiles, path: str | os.PathLike[str], scale: float, threads: int
) -> tuple[_core.Model, Adapter]:
    """A model that shares the weights of `core`, which was made of this architecture, and adds scale times what the adapter says.

    Raises FormatError (also for the adapter of another model), UnsupportedError, MemoryError.
    """
    placed = place(files, architecture, scale)
    try:
        adapted = core.adapt(placed, threads)
    except FormatError as error:  # the core knows which tensor is wrong, but no file
        raise files.report.bad(
            "NUMBERS", None, "tensors", "finite numbers, all of them there", error, index=error.index
        ) from None
    files.check_size()
    ranks = {pair.b.shape[1] for pair in files.pairs.values()}
    sizes = sum(pair.a.size + pair.b.size for pair in files.pairs.values())
    record = Adapter(files.name, Path(path), files.base, scale, len(files.pairs), tuple(sorted(ranks)), sizes)
    return adapted, record
