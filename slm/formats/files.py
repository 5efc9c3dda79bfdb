# SPDX-License-Identifier: Apache-2.0
"""Files to read, which must not change meanwhile, and files to write, which are there whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from slm.errors import ClosedError
from slm.formats.report import Report

# What git leaves in place of a large file, and the size that such pointers stay below. Source: the specification of Git LFS.
LFS, LFS_BYTES = b"version https://git-lfs.github.com/spec/", 1024


class InputFile:
    """A regular file, open for reading. size: bytes when it was opened. A context manager.

    Raises OSError, UnsupportedError (a folder, device or pipe; a Git LFS pointer).
    """

    def __init__(self, path: str | os.PathLike[str], report: Report) -> None:
        self.path = path
        self.report = report
        self._descriptor = -1
        # Looked at before opening: opening a pipe would wait for a writer.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            found = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise report.unsupported("MAGIC", None, "path", "a regular file", found)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size
        if self.size <= LFS_BYTES and os.pread(self._descriptor, len(LFS), 0) == LFS:
            self.close()
            found = "a Git LFS pointer to it, which `git lfs pull` replaces"
            raise report.unsupported("MAGIC", 0, "the whole file", "the file itself", found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        if self._descriptor < 0:
            raise ClosedError(f"{os.fspath(self.path)}: the file was closed")
        return self._descriptor

    def pread(self, count: int, offset: int) -> bytes:
        """Up to `count` bytes; none at the end of the file."""
        return os.pread(self.fileno(), count, offset)

    def check_size(self) -> None:
        """Raise FormatError if the file is not as long as when it was opened: somebody is writing it."""
        size = os.fstat(self.fileno()).st_size
        if size != self.size:
            raise self.report.bad("CHANGED", None, "file size", f"{self.size} bytes", size)


# How a file of weights is opened, whose header is then read by pread alone.
Opener = Callable[[str | os.PathLike[str], Report], InputFile]


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file for writing that takes the place of `path` when the block ends without an exception, else leaves no trace.

    Written to a temporary neighbour (rename works only within one file system), fsynced, renamed, and the folder fsynced, so
    that after a crash or power loss `path` holds either the old bytes or the new ones. A failed fsync fails the write: the
    kernel may have dropped the pages, and a second fsync would report success.

    Raises OSError, which names `path`.
    """
    target = Path(path)
    if not target.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise
    sync_folder(target.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames and new names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
