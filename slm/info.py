# SPDX-License-Identifier: Apache-2.0
"""What is known about a model from the header of its file: the record, and what memory there is."""

import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import quoted
from slm.formats.model_files import ModelFiles
from slm.html import table

SHORT = {10**9: "B", 10**6: "M", 10**3: "k"}


@dataclass(frozen=True)
class Info:
    """A model, as the headers of its files describe it, and the memory it will take.

    quantization: tensor type -> number of parameters, largest first: of the files, or with quantize= as load() stores them.
    trained_context: positions that the model was trained for. original_context: those it was trained for before its rotary
    positions were stretched with other factors for longer prompts (longrope); None where one set serves all. context: those that
    memory is counted for: what was asked for, else what load() takes, original_context if there is one, else trained_context.
    file_bytes: of all files.

    Bytes that loading and running will take, exact but for process_bytes; None for a model that cannot run. weight_bytes: packed
    weights. load_bytes: buffers while they are read. kv_bytes: keys and values of one session that is full, in the type that kv
    says; pages of 64 positions are taken as needed, and layers with a window hold only those that its queries reach.
    workspace_bytes: activations of a prompt. process_bytes: this process, resident when the record was made, the tokenizer
    included, the weights not.

    available_bytes: memory that this process could still take. unsupported: all reasons why slm cannot run the model.
    revision: the commit on the Hugging Face Hub that the files are of; None for files from elsewhere. path: where the model
    is, or of one on the Hub that was inspected without being fetched, where it would be in the cache.
    """

    name: str
    path: Path
    family: str
    parameters: int
    quantization: Mapping[str, int]
    trained_context: int | None
    original_context: int | None
    context: int | None
    file_bytes: int
    weight_bytes: int | None
    load_bytes: int | None
    kv_bytes: int | None
    workspace_bytes: int | None
    process_bytes: int
    available_bytes: int
    kv: str | None
    unsupported: tuple[str, ...] = ()
    revision: str | None = None

    @property
    def memory_bytes(self) -> int | None:
        """The most that is resident while the model is loaded and one session fills its context; None for one that cannot run."""
        if self.weight_bytes is None or self.load_bytes is None or self.kv_bytes is None or self.workspace_bytes is None:
            return None
        return self.process_bytes + self.weight_bytes + max(self.load_bytes, self.kv_bytes + self.workspace_bytes)

    @property
    def fits(self) -> bool | None:
        """Whether that is there; None for a model that cannot run."""
        return None if self.memory_bytes is None else self.memory_bytes - self.process_bytes <= self.available_bytes

    def rows(self) -> dict[str, str]:
        """What there is to say, by name: what `slm inspect` and notebooks show."""
        types = ", ".join(f"{name} ({100 * n / self.parameters:.1f} %)" for name, n in self.quantization.items())
        rows = {"name": quoted(self.name), "file": f"{self.path} ({short_bytes(self.file_bytes)})"}
        if self.revision is not None:
            rows["revision"] = self.revision
        rows |= {
            "family": quoted(self.family),
            "parameters": f"{self.parameters:,}",
            "types": types or "no tensors",
            "trained": "not stated" if self.trained_context is None else f"for {self.trained_context:,} tokens",
        }
        if self.original_context is not None:
            rows["original"] = f"{self.original_context:,} tokens, before it was stretched"
        if self.memory_bytes is not None:
            weights, kv, workspace = (short_bytes(getattr(self, f"{name}_bytes")) for name in ("weight", "kv", "workspace"))
            rows |= {
                "context": f"{self.context:,} tokens",
                "weights": weights,
                "KV cache": f"{kv} in {self.kv} when the context is full",
                "workspace": f"{workspace} while a prompt runs",
                "process": f"{short_bytes(self.process_bytes)} for Python, slm and the tokenizer",
                "memory": f"{short_bytes(self.memory_bytes)} in all, which {'fits' if self.fits else 'does not fit'}: "
                f"{short_bytes(self.available_bytes)} are available",
            }
        if self.unsupported:
            rows["cannot run"] = "; ".join(self.unsupported)
        return rows

    def _repr_html_(self) -> str:
        return table(self.rows())

    def __repr__(self) -> str:
        shares = {name: 100 * n / self.parameters for name, n in self.quantization.items()}
        types = " + ".join(f"{name} {share:.0f} %" for name, share in shares.items() if share >= 1)
        parts = [f"{short(self.parameters)} parameters", types or "no tensors", f"{short_bytes(self.file_bytes)} file"]
        if self.context is not None:
            trained = "" if self.context == self.trained_context else f" (trained {self.trained_context})"
            parts.append(f"context {self.context}{trained}")
        if self.weight_bytes is not None and self.kv_bytes is not None:
            parts.append(f"{short_bytes(self.weight_bytes)} weights + {short_bytes(self.kv_bytes)} KV")
            parts.append("fits" if self.fits else f"does not fit into {short_bytes(self.available_bytes)}")
        if self.unsupported:
            parts.append("not supported: " + "; ".join(self.unsupported))
        return f"Info({quoted(self.name)}, {quoted(self.family)}, {', '.join(parts)})"


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that a model runs with. base: the model that it was trained on, as its files say; scale: what it was given
    to adapt(); modules: how many it changes; ranks: of these, each once; file_bytes: of its matrices."""

    name: str
    path: Path
    base: str | None
    scale: float
    modules: int
    ranks: tuple[int, ...]
    file_bytes: int

    def __repr__(self) -> str:
        ranks = " and ".join(map(str, self.ranks))
        size = short_bytes(self.file_bytes)
        return f"Adapter({quoted(self.name)}, scale {self.scale:g}, rank {ranks}, {self.modules} modules, {size})"


def model_info(
    files: ModelFiles,
    trained_context: int | None,
    original_context: int | None,
    context: int | None,
    quantize: str | None,
    memory: Mapping[str, Any] | None,
    unsupported: tuple[str, ...],
) -> Info:
    """memory: what _core.Model.measure says of a load with this quantize, None for a model that cannot run."""
    parameters: dict[str, int] = {}
    for tensor in files.tensors.values():
        parameters[tensor.type.name] = parameters.get(tensor.type.name, 0) + tensor.elements
    sizes = dict(memory or dict.fromkeys(("weight_bytes", "load_bytes", "kv_bytes", "workspace_bytes", "kv", "encoded")))
    encoded: Mapping[str, int] = sizes.pop("encoded") or {}
    if quantize is not None:
        for source, count in encoded.items():
            parameters[source] -= count
            parameters[quantize] = parameters.get(quantize, 0) + count
    return Info(
        name=files.name,
        path=Path(files.path),
        family=files.kind,
        parameters=sum(parameters.values()),
        quantization={name: n for name, n in sorted(parameters.items(), key=lambda item: -item[1]) if n},
        trained_context=trained_context,
        original_context=original_context,
        context=context,
        file_bytes=files.file_bytes,
        **sizes,
        process_bytes=resident_memory(),
        available_bytes=available_memory(),
        unsupported=unsupported,
    )


def resident_memory() -> int:
    """Bytes of this process in memory; where the system does not say, the most there ever were."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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
