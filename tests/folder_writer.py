# SPDX-License-Identifier: Apache-2.0
"""A writer of Hugging Face folders for tests, which shares nothing with the product's readers and checks nothing: tests need
wrong folders.

    write_folder(path, {"model_type": "llama", ...}, {"model.norm.weight": array, ...})
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
INDEX = "model.safetensors.index.json"


def bf16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32, rounded to even, as uint16."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def safetensors(arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str]) -> bytes:
    """dtypes: of each tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, array in arrays.items():
        values = bf16(array) if dtypes[name] == "BF16" else array.astype(DTYPES[dtypes[name]])
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {"dtype": dtypes[name], "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def write_folder(
    path: Path,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    dtypes: Sequence[str] = ("F32",),
    *,
    n_files: int = 1,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """dtypes: of the tensors in turn. n_files: above 1, with an index."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    kinds = {name: dtypes[i % len(dtypes)] for i, name in enumerate(arrays)}
    if n_files == 1:
        (path / "model.safetensors").write_bytes(safetensors(arrays, kinds))
        return path
    weight_map = {name: f"model-{i % n_files + 1:05}-of-{n_files:05}.safetensors" for i, name in enumerate(arrays)}
    for file in sorted(set(weight_map.values())):
        part = {name: array for name, array in arrays.items() if weight_map[name] == file}
        (path / file).write_bytes(safetensors(part, kinds))
    (path / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    return path
