# SPDX-License-Identifier: Apache-2.0
"""A GGUF model in several files: NAME-00001-of-0000N.gguf and so on, the metadata in the first, tensors in all of them.

Each file holds split.no (from 0), split.count and split.tensors.count, the number of tensors in all files. The names of the
others follow from the name of the one that was given, never from what a file says.
"""

import os
import re
from contextlib import ExitStack
from pathlib import Path

from slm.errors import quoted
from slm.formats.files import InputFile, Opener
from slm.formats.gguf import GGUF, MAX_ITEMS
from slm.formats.report import listed

NO, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
MAX_PARTS = 1024
NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def open_gguf(path: str | os.PathLike[str], opener: Opener = InputFile) -> GGUF:
    """An open model: a GGUF file, and where it is one of several, whichever it is, all of them as one.

    The result is the first file, with the tensors of all. Raises what GGUF does; FormatError for a file that is missing, has
    another name than its number says, or belongs to another model.
    """
    with ExitStack() as stack:
        named = stack.enter_context(GGUF(path, opener))
        count = named.get_uint(COUNT, 0, MAX_PARTS, default=1)
        if count <= 1:
            stack.pop_all()
            return named
        paths = part_paths(named, count)
        missing = [quoted(other.name) for other in paths if not other.exists()]
        if missing:
            expected = f"all {count} files in one folder"
            raise named.report.bad("SPLIT_MISSING", None, "files", expected, f"no {listed(missing)}")
        number = named.get_uint(NO)
        parts = [named if i == number else stack.enter_context(GGUF(other, opener)) for i, other in enumerate(paths)]
        join(parts, count)
        stack.pop_all()
        return parts[0]


def part_paths(named: GGUF, count: int) -> list[Path]:
    """Where the files of the model must be, given one of them."""
    path = Path(named.path)
    number = named.get_uint(NO, 0, MAX_PARTS) + 1
    match = NAME.fullmatch(path.name)
    if match is None or (int(match["number"]), int(match["count"])) != (number, count) or number > count:
        expected = f"a name that ends in -{number:05}-of-{count:05}.gguf, as {NO} and {COUNT} say"
        raise named.report.bad("SPLIT_NAME", named.offset_of(NO), "file name", expected, quoted(path.name))
    return [path.with_name(f"{match['stem']}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]


def join(parts: list[GGUF], count: int) -> None:
    """Check that the files belong together, and give the first one the tensors of all."""
    first = parts[0]
    total = first.get_uint(TENSORS, 0, MAX_ITEMS)
    for i, part in enumerate(parts):
        for key, expected in ((NO, i), (COUNT, count), (TENSORS, total)):
            found = part.get_uint(key)
            if found != expected:
                raise part.report.bad("SPLIT_FOREIGN", part.offset_of(key), key, str(expected), found)
    tensors = dict(first.tensors)
    for part in parts[1:]:
        for name, info in part.tensors.items():
            if name in tensors:
                found = f"one in {quoted(os.path.basename(tensors[name].file.path))}"
                field = f"tensor {quoted(name)}"
                raise part.report.bad("TENSOR_DUPLICATE", info.header_offset, field, "no earlier one", found)
            tensors[name] = info
    if len(tensors) != total:
        raise first.report.bad("SPLIT_FOREIGN", first.offset_of(TENSORS), TENSORS, str(total), f"{len(tensors)} in all files")
    first.parts = parts[1:]
    first.tensors = tensors
