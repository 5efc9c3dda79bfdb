# SPDX-License-Identifier: Apache-2.0
"""Files to read that are not what they seem; a file to write is there whole or not at all."""

import os

import gguf_writer
import pytest
from folder_writer import write_folder
from test_families import CASES

import slm
from slm.formats.files import atomic_write


def test_replaces_the_old_bytes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_no_trace(tmp_path, error):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write_and_fail() -> None:
        with atomic_write(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refusal_of_the_system_leaves_no_trace(tmp_path, monkeypatch, call):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "x"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space left"), atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_errors_name_the_path_that_was_given(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path, error in (
        (tmp_path / "none" / "x", FileNotFoundError),
        (tmp_path / "file" / "x", NotADirectoryError),
        (tmp_path / "folder", IsADirectoryError),
        ("", IsADirectoryError),
    ):
        with pytest.raises(error) as raised, atomic_write(path):
            pass
        assert (raised.value.filename, raised.value.filename2) == (str(path), None)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_order_of_system_calls(tmp_path, monkeypatch):
    """Bytes before name, name before folder: after a crash the name never points at bytes that are not there."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    with atomic_write(tmp_path / "x") as file:
        file.write(b"new")
    assert calls == ["fsync", "replace", "fsync"]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 269060552\n" % (b"a" * 64)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer.model", "config.json"])
def test_a_git_lfs_pointer_is_named(tmp_path, name):
    case = CASES["llama_3_scaling"]
    folder = write_folder(tmp_path / "model", case.config, case.arrays)
    (folder / name).write_bytes(POINTER)
    with pytest.raises(
        slm.UnsupportedError, match=rf"{name}: .* expected the file itself, found a Git LFS pointer .*`git lfs pull`"
    ):
        slm.load(folder)


def test_a_git_lfs_pointer_instead_of_a_gguf_file(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(POINTER)
    for call in (slm.load, slm.inspect, slm.load_tokenizer):
        with pytest.raises(slm.UnsupportedError, match=r"Git LFS pointer to it, which `git lfs pull` replaces \[GGUF_MAGIC\]"):
            call(path)
    gguf_writer.write_gguf(path, *gguf_writer.tiny_llama())
    slm.inspect(path)
