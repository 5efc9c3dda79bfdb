# SPDX-License-Identifier: Apache-2.0
"""A model on the Hugging Face Hub that is not in the cache, as far as its headers tell of it.

A temporary folder holds the small files whole and, for each file of weights, an empty one of its true size whose bytes are asked
of the server when a header is read. The cache that other tools share is only looked at.
"""

import os
import shutil
import tempfile
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any, Self

from slm.errors import DownloadError, quoted
from slm.formats.cursor import MAX_HEADER
from slm.formats.files import InputFile
from slm.formats.report import Report
from slm.repository import Fetched, bars, choose, described, import_library, listing, refused, split

WEIGHTS = (".gguf", ".safetensors")


def prepare(source: str, revision: str | None) -> "StandIns | None":
    """None for a model that is in the cache, or where the Hub cannot be reached. Raises DownloadError."""
    repo, wanted = split(source)
    library = import_library(repo)
    files, commit, unreached = listing(library, repo, revision)
    if unreached is not None:
        return None
    where = f"{repo}, revision {revision}," if revision else repo
    patterns, entry = choose(where, files, wanted, False)
    names = [name for name in files if any(fnmatchcase(name, pattern) for pattern in patterns)]
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise DownloadError(f"{where} could not be inspected: the name {quoted(name)} leads out of it")
    if all(cached(library, repo, name, commit) for name in names):
        return None
    return StandIns(library, repo, commit, names, entry)


def cached(library: Any, repo: str, name: str, commit: str) -> str | None:
    found = library.try_to_load_from_cache(repo, name, revision=commit)
    return found if isinstance(found, str) else None


class StandIns:
    """A context manager. path: what to open. fetched: what that would be in the cache."""

    def __init__(self, library: Any, repo: str, commit: str, names: list[str], entry: str) -> None:
        self._library, self._repo, self._commit = library, repo, commit
        folder = library.file_download.repo_folder_name(repo_id=repo, repo_type="model")
        in_cache = Path(library.constants.HF_HUB_CACHE) / folder / "snapshots" / commit
        self.fetched = Fetched(in_cache / entry, repo, commit)
        self._folder = Path(tempfile.mkdtemp(prefix="slm-"))
        self.path = self._folder / entry
        try:
            self._fill(names)
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception) or isinstance(error, DownloadError):
                raise
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, path: str | os.PathLike[str], report: Report) -> InputFile:
        """A file of weights in the folder; one that is in the cache is read there."""
        return InputFile(path, report) if os.path.islink(path) else StandIn(path, report, self)

    def _fill(self, names: list[str]) -> None:
        library, repo, commit = self._library, self._repo, self._commit
        small = [escape(name) for name in names if not name.endswith(WEIGHTS)]
        if small:
            library.snapshot_download(
                repo, revision=commit, allow_patterns=small, local_dir=self._folder, tqdm_class=bars(library)
            )
        for name in names:
            if not name.endswith(WEIGHTS):
                continue
            stand_in = self._folder / name
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            if there := cached(library, repo, name, commit):
                stand_in.symlink_to(there)
            else:
                stand_in.touch()
                os.truncate(stand_in, library.get_hf_file_metadata(self._url(name)).size)

    def fetch(self, path: str | os.PathLike[str], count: int, offset: int) -> bytes:
        """`count` bytes of a file, fewer at its end. Raises DownloadError."""
        try:
            return self._get(self._url(Path(path).relative_to(self._folder).as_posix()), count, offset)
        except DownloadError:
            raise
        except Exception as error:  # whatever the library meets on its way
            raise self._failed(error) from error

    def _get(self, url: str, count: int, offset: int) -> bytes:
        headers = self._library.utils.build_hf_headers() | {"Range": f"bytes={offset}-{offset + count - 1}"}
        with self._library.get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            if response.status_code not in (200, 206):
                response.read()
                self._library.utils.hf_raise_for_status(response)
            # A server that knows no ranges sends the file from its beginning; what is before and behind is not kept.
            before = offset if response.status_code == 200 else 0
            if before > MAX_HEADER:
                raise DownloadError(f"{self._repo} could not be inspected: the server sends no parts of files; load it")
            found, end = bytearray(), before + count
            seen = 0
            for chunk in response.iter_bytes():
                found += chunk[max(0, before - seen) : end - seen]
                seen += len(chunk)
                if seen >= end:
                    break
            return bytes(found)

    def _url(self, name: str) -> str:
        return self._library.hf_hub_url(self._repo, name, revision=self._commit)

    def _failed(self, error: Exception) -> DownloadError:
        if isinstance(error, self._library.errors.HfHubHTTPError):
            return refused(self._library, self._repo, self._commit, error)
        return DownloadError(f"{self._repo} could not be inspected: {described(error)}; try again")


class StandIn(InputFile):
    """As long as the file that it stands in for, whose bytes are fetched."""

    def __init__(self, path: str | os.PathLike[str], report: Report, owner: StandIns) -> None:
        super().__init__(path, report)
        self._owner = owner

    def pread(self, count: int, offset: int) -> bytes:
        return self._owner.fetch(self.path, count, offset)
