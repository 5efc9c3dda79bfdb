# SPDX-License-Identifier: Apache-2.0
"""Models on the Hugging Face Hub: from org/name or org/name:file to files in the cache that all tools of the Hub share.

The library huggingface_hub talks to the server and keeps the cache; it alone reads HF_HOME, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE and their like. Here it is decided which files of a repository a model needs: nothing that can hold a program is
among them.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

from slm.errors import DownloadError, quoted
from slm.formats.gguf_split import MAX_PARTS
from slm.formats.gguf_split import NAME as PART

# org/name, or with :file or :tag. What looks like a file on its own, models/a.gguf, is a path.
NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<wanted>[^:]+))?")
FILE_ENDINGS = (".gguf", ".safetensors", ".json", ".model", ".txt", ".bin")
MAX_LISTED = 20

TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
TOKENIZER_FILES = (
    *TOKENIZER, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "additional_chat_templates/*.jinja", "config.json", "generation_config.json",
)  # fmt: skip
WEIGHTS = "model.safetensors"
SHARD = re.compile(r"model-\d{5}-of-(?P<count>\d{5})\.safetensors")
SHARDS = ("model.safetensors.index.json", "model-*-of-*.safetensors")


class Listing(NamedTuple):
    """The names of the files of a repository, as the Hub lists them. commit: of the revision asked for. unreached: why the Hub
    could not be asked; then there is neither."""

    files: list[str]
    commit: str
    unreached: Exception | None


class Fetched(NamedTuple):
    """A folder or file in the cache, and the repository and commit it belongs to."""

    path: Path
    repository: str
    commit: str


def is_name(source: str) -> bool:
    match = NAME.fullmatch(source)
    return match is not None and not match["repo"].endswith(FILE_ENDINGS)


def split(name: str) -> tuple[str, str | None]:
    """The repository, and what behind a colon is wanted of it."""
    repo, _, wanted = name.partition(":")
    return repo, wanted or None


def fetch(source: str, *, revision: str | None, offline: bool, tokenizer_only: bool) -> Fetched:
    """The files of a model, or of its tokenizer alone, fetched unless they are in the cache.

    revision: a branch, tag or commit; None: the main branch. offline: use the cache alone, as where the Hub cannot be reached.
    Raises DownloadError that says what to do.
    """
    repo, wanted = split(source)
    library = import_library(repo)
    files, _, unreached = Listing([], "", None) if offline else listing(library, repo, revision)
    local = offline or unreached is not None

    def snapshot(patterns: list[str]) -> Path:
        keywords = {"local_files_only": local, "tqdm_class": bars(library)}
        return Path(library.snapshot_download(repo, revision=revision, allow_patterns=patterns, **keywords))

    where = f"{repo}, revision {revision}," if revision else repo
    try:
        if local:
            files = files_in(snapshot([]))  # asked for nothing, the library does not mind what the snapshot lacks
        patterns, entry = choose(f"the cached {where}" if local else where, files, wanted, tokenizer_only)
        folder = snapshot(patterns)
    except DownloadError as error:
        raise DownloadError(f"{error}{f', and {why_not(unreached)}' if local else ''}") from None
    except library.errors.HfHubHTTPError as error:
        raise refused(library, repo, revision, error) from error
    except Exception as error:  # whatever the library meets on its way
        if not local:
            raise DownloadError(
                f"{where} could not be fetched: {described(error)}. Whole files that have arrived are kept; try again"
            ) from error
        cache = f"is not, or not wholly, in the cache {library.constants.HF_HUB_CACHE}"
        raise DownloadError(f"{where} {cache}, and {why_not(unreached)}") from error
    path = folder / entry
    if not path.exists():
        raise DownloadError(f"{where} changed while it was fetched: {quoted(entry)} is gone; try again")
    return Fetched(path, repo, folder.name)


def listing(library: Any, repo: str, revision: str | None) -> Listing:
    """Raises DownloadError where the Hub has answered that it will not tell."""
    try:
        found = library.HfApi().model_info(repo, revision=revision)
    except library.errors.HfHubHTTPError as error:
        raise refused(library, repo, revision, error) from error
    except Exception as error:  # no connection, or HF_HUB_OFFLINE; which exception that is depends on the library's version
        return Listing([], "", error)
    return Listing([file.rfilename for file in found.siblings], found.sha, None)


def choose(where: str, files: Sequence[str], wanted: str | None, tokenizer_only: bool) -> tuple[list[str], str]:
    """What to fetch of a repository, as patterns, and what to open then: a file, or "" for the folder."""
    models = [group for group in gguf_models(files) if "mmproj" not in group[0].lower()]
    if wanted is not None:
        if tokenizer_only and wanted in files:
            return [escape(wanted)], wanted
        group = named(where, models, wanted)
    elif tokenizer_only and any(name in files for name in TOKENIZER):
        return list(TOKENIZER_FILES), ""
    elif "config.json" in files and WEIGHTS in files:
        return [*TOKENIZER_FILES, WEIGHTS], ""
    elif "config.json" in files and SHARDS[0] in files:
        if missing := missing_shards(files):
            raise DownloadError(f"{where} lacks {', '.join(map(quoted, missing[:MAX_LISTED]))}")
        return [*TOKENIZER_FILES, *SHARDS], ""
    elif len(models) == 1:
        group = models[0]
    elif models:
        raise DownloadError(f"{where} holds {len(models)} models, name one as org/name:file: {listed(models)}")
    else:
        pickled = ": its weights are pickles, which are programs and never run" if any(f.endswith(".bin") for f in files) else ""
        what = "tokenizer" if tokenizer_only else "model that slm reads (config.json with model.safetensors, or GGUF)"
        raise DownloadError(f"{where} holds no {what}{pickled}")
    return [escape(name) for name in group], group[0]


def missing_shards(files: Iterable[str]) -> list[str]:
    """Which of model-00001-of-0000N.safetensors and so on are not there, as far as the others say how many there are."""
    found = {name: match for name in files if (match := SHARD.fullmatch(name))}
    counts = {match["count"] for match in found.values()}
    if len(counts) != 1 or int(count := counts.pop()) > MAX_PARTS:
        return []
    every = [f"model-{i + 1:05}-of-{count}.safetensors" for i in range(int(count))]
    return [name for name in every if name not in found]


def gguf_models(files: Iterable[str]) -> list[list[str]]:
    """The GGUF files, those of one model together and in order."""
    models: dict[str, list[str]] = {}
    for name in sorted(files):
        if name.endswith(".gguf"):
            part = PART.fullmatch(name)
            models.setdefault(f"{part['stem']}-{part['count']}" if part else name, []).append(name)
    return list(models.values())


def named(where: str, models: Sequence[list[str]], wanted: str) -> list[str]:
    """The model with a file of this name, or the one whose name holds this tag, such as Q4_K_M."""
    exact = [group for group in models if wanted in group]
    tag = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wanted)}(?![A-Za-z0-9_])", re.IGNORECASE)
    found = exact or [group for group in models if tag.search(group[0].removesuffix(".gguf"))]
    if len(found) == 1:
        return found[0]
    if found:
        raise DownloadError(f"{where} holds {len(found)} models that {quoted(wanted)} may mean: {listed(found)}")
    raise DownloadError(f"{where} holds no {quoted(wanted)}; it has {listed(models) or 'no GGUF file'}")


def listed(models: Sequence[list[str]]) -> str:
    more = f" and {len(models) - MAX_LISTED} more" if len(models) > MAX_LISTED else ""
    return ", ".join(quoted(group[0]) for group in models[:MAX_LISTED]) + more


def files_in(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]


def import_library(repo: str) -> Any:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        needed = "pip install 'slm-cpu[hub]', or fetch the model elsewhere and give its path"
        raise DownloadError(
            f"{repo} is no path here, and names on the Hugging Face Hub need huggingface_hub: {needed}"
        ) from error
    return huggingface_hub


def bars(library: Any) -> type:
    """The library's progress bars, on a terminal alone."""

    class Bars(library.utils.tqdm):
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords | {"disable": keywords.get("disable") or not sys.stderr.isatty()})

    return Bars


def refused(library: Any, repo: str, revision: str | None, error: Exception) -> DownloadError:
    """What the server's refusal means to the one who asked."""
    errors = library.errors
    page = f"{library.constants.ENDPOINT}/{repo}"
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(f"{repo} is gated: accept its terms at {page}, then {login}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return DownloadError(f"there is no path {repo} here, and no such repository at {page}; if it is private, {login}")
    if isinstance(error, errors.RevisionNotFoundError):
        return DownloadError(
            f"{repo} has no revision {quoted(revision or 'main')}: expected a branch, tag or full commit of {page}"
        )
    return DownloadError(f"{repo} could not be fetched: {described(error)}")


def why_not(unreached: Exception | None) -> str:
    return "offline=True forbids fetching it" if unreached is None else f"the Hub cannot be reached: {described(unreached)}"


def described(error: Exception) -> str:
    """An error of the library on one line, its first 300 characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(error) or type(error).__name__).split())[:300]
