# SPDX-License-Identifier: Apache-2.0
"""From a source to a running model: hub -> formats -> families -> the core. A source is a path or a name.

What only folders need is imported with the first of them: it takes a third of the time that loading a small GGUF file does."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from slm import _core, hub
from slm.errors import FormatError, UnsupportedError, quoted
from slm.families import registry
from slm.families.registry import Architecture, Vocabulary
from slm.formats.files import InputFile, Opener
from slm.formats.gguf_model import GGUFModel
from slm.formats.gguf_split import open_gguf
from slm.formats.model_files import ModelFiles
from slm.formats.report import Report
from slm.info import Info, model_info
from slm.tokenizer import Tokenizer

Source = str | os.PathLike[str]


class Opened(NamedTuple):
    """What slm.Model is made of. tokenizer: None when the files hold no vocabulary. end_ids: tokens that end a text."""

    core: _core.Model
    tokenizer: Tokenizer | None
    end_ids: tuple[int, ...]
    architecture: Architecture
    info: Info


def open_files(path: Source, opener: Opener = InputFile) -> ModelFiles:
    """A Hugging Face folder or a GGUF file. opener: of files that hold weights.

    Raises OSError, FormatError, UnsupportedError, LimitError.
    """
    if not os.path.isdir(path):
        return GGUFModel(path, opener)
    from slm.formats.folder import Folder

    return Folder(path, opener)


def open_model(
    source: Source,
    *,
    context: int | None = None,
    kv: Literal["auto", "f32", "bf16", "int8"] = "auto",
    precision: Literal["default", "high"] = "default",
    quantize: str | None = None,
    threads: int = 0,
    revision: str | None = None,
    offline: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Opened:
    """Read and pack the weights; the files are closed afterwards.

    context: positions of a session, None for as many as the model was trained for. kv: "auto" is "f32" for F32 weights, in high
    precision and where the family needs it, else "bf16". precision: "high" keeps activations in f32. quantize: one of
    _core.encodes(). threads: 0 for as many as the process may use. progress: called with (bytes done, bytes in all).
    Raises what registry.describe() and hub.resolve() raise, OSError, ValueError (context), MemoryError.
    """
    located = hub.resolve(source, revision=revision, offline=offline)
    with open_files(located.path) as files:
        vocabulary = registry.vocabulary_of(files)
        architecture = registry.describe(files, context)
        context = check_context(context, architecture)
        tokenizer = None if vocabulary is None else make_tokenizer(files.report, vocabulary)
        end_ids = files.end_tokens if tokenizer is None else (*files.end_tokens, *tokenizer.end_ids)
        made_of = architecture.config, architecture.weights, context
        options: dict[str, Any] = {"kv": kv, "precision": precision, "quantize": quantize, "threads": threads}
        memory = _core.Model.measure(*made_of, **options)
        check_quantize(files, quantize, memory)
        info = model_info(files, architecture.context_length, original_context(architecture), context, quantize, memory, ())
        core = _core.Model(*made_of, **options, progress=progress)
        # Had somebody rewritten a file meanwhile, the ranges would mean something else.
        files.check_size()
    return Opened(core, tokenizer, tuple(sorted(set(end_ids))), architecture, of_hub(info, located))


def load_tokenizer(source: Source, *, revision: str | None = None, offline: bool = False) -> Tokenizer:
    """The tokenizer of a model file or folder, of any architecture, or of a file that holds nothing but a vocabulary: a GGUF
    file, a tokenizer.json, a tokenizer.model of SentencePiece, a vocab.txt. Of a file, its neighbours do not count.

    Raises what hub.resolve() raises, FormatError (also when there is no vocabulary), UnsupportedError, LimitError.
    """
    from slm.families.tokenizer_folder import read_file_vocabulary, read_folder_vocabulary
    from slm.formats import tokenizer_json

    path = hub.resolve(source, revision=revision, offline=offline, tokenizer_only=True).path
    report = Report(path, "TOKENIZER", tokenizer_json.CODES)
    if path.is_dir():
        vocabulary = read_folder_vocabulary(path)
        if vocabulary is None:
            raise report.bad("VOCAB", None, "folder", "tokenizer.json, tokenizer.model, vocab.json or vocab.txt", "none of them")
        return make_tokenizer(report, vocabulary)
    vocabulary = read_file_vocabulary(path)
    if vocabulary is not None:
        return make_tokenizer(report, vocabulary)
    with open_gguf(path) as gguf:
        vocabulary = registry.read_vocabulary(gguf)
        if vocabulary is None:
            raise gguf.report.bad("KEY_MISSING", None, "tokenizer.ggml.model", "a vocabulary", "none")
        return make_tokenizer(gguf.report, vocabulary)


def inspect(
    source: Source,
    *,
    context: int | None = None,
    kv: Literal["auto", "f32", "bf16", "int8"] = "auto",
    precision: Literal["default", "high"] = "default",
    quantize: str | None = None,
    threads: int = 0,
    revision: str | None = None,
    offline: bool = False,
) -> Info:
    """What the header says: architecture, parameters, types, and the memory that open_model() with the same arguments takes.
    Reads no weights, and of a model on the Hugging Face Hub that is not in the cache fetches none.

    A model that slm cannot run is described too, with all the reasons in `.unsupported`.
    Raises what hub.resolve() raises, OSError, FormatError, LimitError, ValueError (context).
    """
    with hub.headers(source, revision=revision, offline=offline) as (path, located, opener), open_files(path, opener) as files:
        architecture, memory, tokenizer, original = None, None, None, None
        reasons: list[str] = []
        with noted(reasons):
            vocabulary = registry.vocabulary_of(files)
            tokenizer = None if vocabulary is None else make_tokenizer(files.report, vocabulary)  # part of what the process holds
        with noted(reasons):
            architecture = registry.describe(files, context)
        if architecture is None:
            with noted(reasons):
                registry.check_types(files, files.tensors.values())
            trained = files.uint("max_position_embeddings", default=None)
        else:
            trained, original = architecture.context_length, original_context(architecture)
            context = check_context(context, architecture)
        if not reasons:
            options: dict[str, Any] = {"kv": kv, "precision": precision, "quantize": quantize, "threads": threads}
            memory = _core.Model.measure(architecture.config, architecture.weights, context, **options)
            check_quantize(files, quantize, memory)
        info = model_info(files, trained, original, context or trained, quantize, memory, tuple(reasons))
        del tokenizer
    return of_hub(info, located)


def of_hub(info: Info, located: hub.Located) -> Info:
    """With the commit and the path in the cache; and the repository as the name of a folder, which there is called after the
    commit."""
    if located.commit is None:
        return info
    if located.path.name != located.commit:
        return replace(info, path=located.path.with_name(info.path.name), revision=located.commit)
    return replace(info, name=located.repository or info.name, path=located.path, revision=located.commit)


@contextmanager
def noted(reasons: list[str]) -> Iterator[None]:
    """Collects what UnsupportedErrors say, each once."""
    try:
        yield
    except UnsupportedError as error:
        if str(error) not in reasons:
            reasons.append(str(error))


def check_context(context: int | None, architecture: Architecture) -> int:
    longest = architecture.longest_context
    if context is None:
        return architecture.default_context
    if not 1 <= context <= longest:
        raise ValueError(f"context: expected 1 to {longest}, which the model was made for, found {context}")
    return context


def original_context(architecture: Architecture) -> int | None:
    default = architecture.default_context
    return default if default < architecture.context_length else None


def check_quantize(files: ModelFiles, quantize: str | None, memory: Mapping[str, Any]) -> None:
    """Raise ValueError for what would change nothing."""
    if quantize is None or memory["encoded"]:
        return
    types = ", ".join(sorted({tensor.type.name for tensor in files.tensors.values() if len(tensor.shape) > 1}))
    what = f"its matrices are {types}, and only those of floats whose rows are whole blocks become {quantize}"
    raise ValueError(f"quantize={quantize.lower()!r} would change nothing in {quoted(files.name)}: {what}")


def make_tokenizer(report: Report, vocabulary: Vocabulary) -> Tokenizer:
    try:
        return Tokenizer(vocabulary)
    except FormatError as error:  # the core knows which element is wrong, but no file
        raise report.bad("VOCABULARY", None, "tokenizer", None, str(error), index=error.index) from None
