# SPDX-License-Identifier: Apache-2.0
"""The safetensors files of a folder: model.safetensors, or several that model.safetensors.index.json lists.

The index holds {"metadata": {...}, "weight_map": {tensor: name of the file}}.
"""

from contextlib import ExitStack
from pathlib import Path

from slm.errors import quoted
from slm.formats.files import Opener
from slm.formats.json_text import Object, read_object, shown
from slm.formats.report import Report, listed
from slm.formats.safetensors import MAX_TENSORS, Safetensors
from slm.formats.tensors import TensorInfo

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
FOREIGN = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "model.ckpt.index", "flax_model.msgpack")
MAX_SHARDS = 1024
MAX_INDEX = 64 << 20  # bytes


def open_shards(
    folder: Path, report: Report, stack: ExitStack, opener: Opener
) -> tuple[list[Safetensors], dict[str, TensorInfo]]:
    """The files, which `stack` closes, and all their tensors. A single file wins over an index, as in Transformers.

    report: about the folder, with the codes of slm.formats.folder. Raises OSError, FormatError, UnsupportedError, LimitError.
    """
    if (folder / SINGLE).exists():
        single = stack.enter_context(Safetensors(folder / SINGLE, opener))
        return [single], single.tensors
    if (folder / INDEX).exists():
        return open_index(folder, report, stack, opener)
    found = [name for name in FOREIGN if (folder / name).exists()]
    expected = f"{SINGLE}, or {INDEX} and the files it lists"
    if found:
        how = "load it with Transformers and save it again: save_pretrained(folder) writes safetensors"
        raise report.unsupported("NO_WEIGHTS", None, "weights", expected, f"{quoted(found[0])}; {how}")
    raise report.bad("NO_WEIGHTS", None, "weights", expected, "neither")


def open_index(folder: Path, report: Report, stack: ExitStack, opener: Opener) -> tuple[list[Safetensors], dict[str, TensorInfo]]:
    index = read_object(folder / INDEX, Report(folder / INDEX, report.format, report.codes), MAX_INDEX)
    weight_map = index.get_object("weight_map")
    names = {tensor: file_name(weight_map, tensor) for tensor in weight_map}
    if not 1 <= len(names) <= MAX_TENSORS:
        raise index.report.bad("INDEX", None, weight_map.path, f"1 to {MAX_TENSORS} tensors", len(names))
    files = sorted(set(names.values()))
    if len(files) > MAX_SHARDS:
        raise index.report.limit("LIMIT", None, f"files in {weight_map.path}", len(files), MAX_SHARDS)
    absent = [quoted(name) for name in files if not (folder / name).exists()]
    if absent:
        expected = f"all {len(files)} files that {INDEX} lists"
        raise report.bad("SHARD_MISSING", None, "weights", expected, f"no {listed(absent)}")
    shards = {name: stack.enter_context(Safetensors(folder / name, opener)) for name in files}
    missing = [f"{quoted(tensor)} in {quoted(name)}" for tensor, name in names.items() if tensor not in shards[name].tensors]
    extra = [
        f"{quoted(tensor)} in {quoted(name)}"
        for name, shard in shards.items()
        for tensor in shard.tensors
        if names.get(tensor) != name
    ]
    problems = [f"{label}: {listed(items)}" for label, items in (("not there", missing), ("not listed", extra)) if items]
    if problems:
        raise index.report.bad("INDEX", None, weight_map.path, "every tensor in the file it names", "; ".join(problems))
    return list(shards.values()), {tensor: shards[name].tensors[tensor] for tensor, name in names.items()}


def file_name(weight_map: Object, tensor: str) -> str:
    """The name of a file beside the index: never one that leads out of the folder."""
    name = weight_map.get_string(tensor)
    if not name.endswith(".safetensors") or any(c in "/\\:" or not c.isprintable() for c in name) or len(name) > 255:
        expected = "the name of a .safetensors file in the same folder"
        raise weight_map.report.bad("INDEX", None, weight_map.where(tensor), expected, shown(name))
    return name
