# SPDX-License-Identifier: Apache-2.0
"""A GGUF model in several files, split by the `gguf` package, is the model in one file; files that do not belong together are
refused by name."""

import os
import re
from pathlib import Path

import gguf as oracle
import numpy as np
import pytest
from gguf_writer import tiny_llama, write_gguf

import slm
from slm import loader
from slm.errors import FormatError
from slm.formats.gguf import GGUF
from slm.formats.gguf_split import open_gguf


def split(folder: Path, tensors_per_file: int) -> list[Path]:
    """The tiny model, in files as the `gguf` package writes them."""
    metadata, tensors = tiny_llama()
    writer = oracle.GGUFWriter(folder / "tiny.gguf", "llama", split_max_tensors=tensors_per_file)
    for key, (kind, value) in metadata.items():
        element = kind.removeprefix("array of ")
        if key != "general.architecture" and element == kind:
            getattr(writer, f"add_{kind}")(key, value)
        elif element != kind:
            writer.add_array(key, value)
    for name, (_, _, array) in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("tiny-*.gguf"))


@pytest.mark.parametrize("tensors_per_file", [1, 4])
def test_any_file_opens_the_whole_model(tmp_path, tensors_per_file):
    paths = split(tmp_path, tensors_per_file)
    assert len(paths) == -(-11 // tensors_per_file)
    whole = tmp_path / "whole.gguf"
    write_gguf(whole, *tiny_llama())
    with slm.load(whole) as model:
        expected = model.forward([1, 2, 3]).logits
    for path in {paths[0], paths[1], paths[-1]}:
        with slm.load(path) as model:
            assert np.array_equal(model.forward([1, 2, 3]).logits, expected)
            assert model.info.file_bytes == sum(path.stat().st_size for path in paths)
            assert model.info.path == paths[0]


def test_tensors_name_their_file_and_all_files_are_closed(tmp_path):
    paths = split(tmp_path, 4)
    free = os.dup(0)
    os.close(free)
    with open_gguf(paths[1]) as model:
        for path in paths:
            with GGUF(path) as part:
                for name, info in part.tensors.items():
                    assert Path(model.tensors[name].file.path) == path
                    assert model.tensors[name].offset == info.offset
        os.truncate(paths[2], paths[2].stat().st_size - 1)
        with pytest.raises(FormatError, match=re.escape(f"{paths[2]}: ") + ".*GGUF_CHANGED"):
            model.check_size()
    paths[0].unlink()
    with pytest.raises(FormatError):
        open_gguf(paths[1])
    again = os.dup(0)
    os.close(again)
    assert again == free


def test_missing_files_are_all_named(tmp_path):
    paths = split(tmp_path, 4)
    paths[0].unlink()
    paths[2].unlink()
    with pytest.raises(FormatError, match=r"00002-of-00003\.gguf: some files.*no 'tiny-00001.*', 'tiny-00003.*SPLIT_MISSING"):
        loader.inspect(paths[1])


@pytest.mark.parametrize("name", ["renamed.gguf", "tiny-00002-of-00003.gguf", "tiny-00001-of-00002.gguf", "tiny-1-of-3.gguf"])
def test_a_name_that_contradicts_the_numbers(tmp_path, name):
    paths = split(tmp_path, 4)
    target = tmp_path / "elsewhere" / name
    target.parent.mkdir()
    os.rename(paths[0], target)
    with pytest.raises(FormatError, match=r"-00001-of-00003\.gguf.*SPLIT_NAME"):
        open_gguf(target)


def parts(folder: Path, *edits: dict[str, tuple[str, object]]) -> list[Path]:
    """The tiny model in two files, each with other values of some keys."""
    metadata, tensors = tiny_llama()
    half = len(tensors) // 2
    items = list(tensors.items())
    paths = []
    for i, chosen in enumerate((items[:half], items[half:])):
        numbers = {
            "split.no": ("uint16", i),
            "split.count": ("uint16", 2),
            "split.tensors.count": ("int32", len(tensors)),
        }
        path = folder / f"m-{i + 1:05}-of-00002.gguf"
        write_gguf(path, (metadata if i == 0 else {}) | numbers | edits[i], dict(chosen))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("first", "second", "file", "message"),
    [
        ({}, {"split.no": ("uint16", 0)}, 1, r"split\.no\): expected 1, found 0"),
        ({}, {"split.count": ("uint16", 3)}, 1, r"split\.count\): expected 2, found 3"),
        ({}, {"split.tensors.count": ("int32", 10)}, 1, r"split\.tensors\.count\): expected 11, found 10"),
        ({"split.tensors.count": ("int32", 12)}, {"split.tensors.count": ("int32", 12)}, 0, r"expected 12, found 11 in all"),
        ({"split.tensors.count": ("string", "11")}, {}, 0, "GGUF_KEY_TYPE"),
        ({}, {"split.count": ("float32", 2.0)}, 1, "GGUF_KEY_TYPE"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, first, second, file, message):
    paths = parts(tmp_path, first, second)
    with pytest.raises(FormatError, match=re.escape(paths[file].name) + ".*" + message):
        open_gguf(paths[0])


def test_the_same_tensor_in_two_files(tmp_path):
    paths = parts(tmp_path, {}, {})
    metadata = {"split.no": ("uint16", 1), "split.count": ("uint16", 2), "split.tensors.count": ("int32", 11)}
    write_gguf(paths[1], metadata, {"token_embd.weight": ("F32", (1,), bytes(4))})
    with pytest.raises(FormatError, match=r"00002-of-00002\.gguf: .*'token_embd.weight'.*one in 'm-00001-of-00002\.gguf'"):
        open_gguf(paths[0])


def test_one_file_that_says_it_is_the_only_one(tmp_path):
    metadata, tensors = tiny_llama()
    write_gguf(tmp_path / "any name.gguf", metadata | {"split.no": ("uint16", 0), "split.count": ("uint16", 1)}, tensors)
    with open_gguf(tmp_path / "any name.gguf") as model:
        assert len(model.tensors) == len(tensors)


def test_more_files_than_anybody_makes(tmp_path):
    paths = parts(tmp_path, {"split.count": ("uint16", 65_535)}, {})
    with pytest.raises(slm.LimitError, match=r"split\.count"):
        open_gguf(paths[0])
