# SPDX-License-Identifier: Apache-2.0
"""What is known about a model from the header of its file: the record, and the estimates in it."""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slm import _core
from slm.errors import quoted
from slm.families import Architecture
from slm.formats.model_files import ModelFiles
from slm.formats.tensors import TensorInfo

PANEL_ROWS = 16  # the kernel layout pads rows to this
SHORT = {10**9: "B", 10**6: "M", 10**3: "k"}


@dataclass(frozen=True)
class Info:
    """A model file, as its header describes it.

    quantization: tensor type -> number of parameters, largest first. context: positions; None when the file does not say.
    weight_bytes: memory of the packed weights; kv_bytes: of one session over the whole context, taken page by page, None when
    the architecture is not supported. available_bytes: memory that this process could still take. unsupported: why slm cannot
    run the model; empty when it can. revision: the commit on the Hugging Face Hub that the files are of; None for files from
    elsewhere.
    """

    name: str
    path: Path
    family: str
    parameters: int
    quantization: Mapping[str, int]
    context: int | None
    file_bytes: int
    weight_bytes: int
    kv_bytes: int | None
    available_bytes: int
    unsupported: tuple[str, ...] = ()
    revision: str | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the weights and a full context fit into the available memory; None when that is not known."""
        return None if self.kv_bytes is None else self.weight_bytes + self.kv_bytes <= self.available_bytes

    def __repr__(self) -> str:
        shares = {name: 100 * n / self.parameters for name, n in self.quantization.items()}
        types = " + ".join(f"{name} {share:.0f} %" for name, share in shares.items() if share >= 1)
        parts = [f"{short(self.parameters)} parameters", types or "no tensors", f"{short_bytes(self.file_bytes)} file"]
        if self.context is not None:
            parts.append(f"context {self.context}")
        if self.kv_bytes is not None:
            parts.append(f"{short_bytes(self.weight_bytes)} weights + {short_bytes(self.kv_bytes)} KV")
            parts.append("fits" if self.fits else f"does not fit into {short_bytes(self.available_bytes)}")
        if self.unsupported:
            parts.append("not supported: " + "; ".join(self.unsupported))
        return f"Info({quoted(self.name)}, {quoted(self.family)}, {', '.join(parts)})"


def model_info(
    files: ModelFiles, architecture: Architecture | None, context: int | None, kv: str, unsupported: tuple[str, ...]
) -> Info:
    """architecture: None when it is not supported. context: None for the trained one. kv: "auto", "f32" or "bf16"."""
    trained = architecture.context_length if architecture else files.uint("max_position_embeddings", default=None)
    parameters: dict[str, int] = {}
    for tensor in files.tensors.values():
        parameters[tensor.type.name] = parameters.get(tensor.type.name, 0) + tensor.elements
    context = context or (architecture.default_context if architecture else trained)
    return Info(
        name=files.name,
        path=Path(files.path),
        family=files.kind,
        parameters=sum(parameters.values()),
        quantization=dict(sorted(parameters.items(), key=lambda item: -item[1])),
        context=context,
        file_bytes=files.file_bytes,
        weight_bytes=packed_bytes(files.tensors.values()),
        kv_bytes=kv_bytes(architecture, context, kv) if architecture and context else None,
        available_bytes=available_memory(),
        unsupported=unsupported,
    )


def packed_bytes(tensors: Iterable[TensorInfo]) -> int:
    """Bytes of the matrices in the kernel layout: as many as in the file, rows padded to whole panels."""
    total = 0
    for tensor in tensors:
        rows = tensor.shape[-2] if len(tensor.shape) > 1 else 1
        padded = rows if rows == 1 else -(-rows // PANEL_ROWS) * PANEL_ROWS
        total += tensor.size // rows * padded
    return total


def kv_bytes(architecture: Architecture, context: int, kv: str) -> int:
    """The most bytes of K and V that one session over `context` positions holds."""
    if kv == "auto":
        linears = [tensor for layer in architecture.weights["layers"] for name, tensor in layer.items() if name.endswith("_proj")]
        first_pieces = [tensor[0] if isinstance(tensor, list) else tensor for tensor in linears]
        exact = architecture.config.get("kv_f32", False) or all(type == "F32" for type, *_ in first_pieces)
        kv = "f32" if exact else "bf16"
    config = architecture.config
    windows = [layer.get("sliding_window", 0) for layer in architecture.weights["layers"]]
    return _core.kv_bytes(config["num_key_value_heads"], config["head_dim"], windows, context, kv)


def available_memory() -> int:
    """Bytes that this process could take without swapping: the machine's, or its control group's if that is less."""
    if sys.platform != "linux":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    with suppress(OSError, ValueError):  # no such group, or "max"
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = Path("/sys/fs/cgroup/memory.stat").read_text().split(maxsplit=2)  # "anon <bytes> ..."; page cache can be dropped
        available = min(available, max(0, limit - int(used[1])))
    return available


def short(count: int) -> str:
    for unit, letter in SHORT.items():
        if count >= unit:
            return f"{count / unit:.3g} {letter}" if count < 1000 * unit else f"{count // unit} {letter}"
    return str(count)


def short_bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count} B"
