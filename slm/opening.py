# SPDX-License-Identifier: Apache-2.0
"""From a path or a name to a model, its tokenizer, or what it is."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

from slm import _core
from slm.families.downloads import DEFAULT_MODEL
from slm.model import Model, open_adapter
from slm.options import MAX_INT32, check_bool, check_int, check_path, check_text, refuse_keywords, refuse_type, shown
from slm.tokenizer import MAX_THREADS, Tokenizer

if TYPE_CHECKING:
    from slm.info import Info


def load(
    source: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    adapter: str | os.PathLike[str] | None = None,
    context: int | None = None,
    kv: Literal["f32", "bf16", "int8"] | None = None,
    precision: Literal["default", "high"] = "default",
    quantize: str | None = None,
    threads: int | None = None,
    revision: str | None = None,
    offline: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **unknown: Any,
) -> Model:
    """Open a model: the path of a GGUF file or a Hugging Face folder, a name that `slm models` lists, or one on the Hugging Face
    Hub: "org/name", "org/name:file.gguf", "org/name:Q4_K_M" (needs the extra slm-cpu[hub]). Names are fetched once into a cache.

    adapter: a LoRA adapter that the model runs with, as in Model.adapt(): a PEFT folder or a GGUF file.
    context: most positions of a prompt and its answer; None: what the model was trained for.
    kv:      type of the KV cache; None: "f32" for F32 weights, in high precision and where the family needs it, else "bf16".
             "int8", with a scale for each 32 numbers of a head, takes 9/16 of the memory of "bf16"; where the family needs it
             (Qwen 2), its keys are in bf16 all the same.
    precision: "default" multiplies quantized weights with int8 activations and BF16 weights with bf16 ones; "high" keeps all
             activations in f32, which is slower and as exact as f32 arithmetic on the dequantized weights.
    quantize: "q8_0", "q5_1", "q5_0", "q4_1" or "q4_0": the matrices of floating-point weights are stored so as they are read,
             which takes no more memory than the result; others, and vectors, stay as they are, and where all would it is a
             ValueError. None: all as in the file.
    threads: how many threads a call uses; None: what the process may use.
    revision: a branch, tag or commit of a name on the Hub; None: its main branch. The commit is recorded in Model.info.
    offline: fetch nothing: what a name means must be in the cache.
    progress: called with (bytes done, bytes in all) while the weights are read.
    Raises FormatError, UnsupportedError, LimitError for the file; OSError; DownloadError; MemoryError; ValueError and TypeError.
    """
    known = ("adapter", "context", "kv", "precision", "quantize", "threads", "revision", "offline", "progress")
    refuse_keywords("load", unknown, known)
    check_source(source)
    options = load_options(context, kv, precision, quantize, threads)
    if adapter is not None:
        check_path("adapter", adapter)
    if progress is not None and not callable(progress):
        refuse_type("progress", "a function of (done, total) or None", progress)
    origin = check_origin(revision, offline)
    from slm import loader  # the file formats and families are imported with the first model, not with slm

    with nullcontext() if adapter is None else open_adapter(adapter) as files:  # errors before the weights are read
        opened = loader.open_model(source, **options, **origin, progress=progress)
        made_of = opened.info, opened.tokenizer, opened.end_ids, options["threads"], opened.architecture
        model = Model(opened.core, *made_of)
        return model if adapter is None or files is None else model._adapted(files, adapter)


def load_tokenizer(
    source: str | os.PathLike[str] = DEFAULT_MODEL, *, revision: str | None = None, offline: bool = False
) -> Tokenizer:
    """The tokenizer of a model file or folder, of a file that holds nothing but a vocabulary, or of a name; of any architecture.

    Of a folder on the Hub it fetches no weights. revision, offline: as for load().
    Raises FormatError (also when there is no vocabulary), UnsupportedError, LimitError, OSError, DownloadError.
    """
    check_source(source)
    origin = check_origin(revision, offline)
    from slm import loader

    return loader.load_tokenizer(source, **origin)


def inspect(
    source: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    context: int | None = None,
    kv: Literal["f32", "bf16", "int8"] | None = None,
    precision: Literal["default", "high"] = "default",
    quantize: str | None = None,
    threads: int | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> "Info":
    """What the header of a model's files says: architecture, parameters, types, and the memory that load() with the same
    arguments and one session that fills its context will take. Reads no weights.

    Of a name on the Hub that is not in the cache only headers are fetched; a name that `slm models` lists is fetched whole.
    A model that slm cannot run is described too, with all the reasons in `.unsupported`.
    Raises FormatError, LimitError, OSError, DownloadError, ValueError and TypeError.
    """
    check_source(source)
    options = load_options(context, kv, precision, quantize, threads)
    origin = check_origin(revision, offline)
    from slm import loader

    return loader.inspect(source, **options, **origin)


def load_options(context: Any, kv: Any, precision: Any, quantize: Any, threads: Any) -> dict[str, Any]:
    """Checked, as the loader takes them."""
    if kv not in (None, "f32", "bf16", "int8"):
        raise ValueError(f"kv must be None, 'f32', 'bf16' or 'int8', not {shown(kv)}")
    if precision not in ("default", "high"):
        raise ValueError(f"precision must be 'default' or 'high', not {shown(precision)}")
    return {
        "context": None if context is None else check_int("context", context, 1, MAX_INT32),
        "kv": kv or "auto",
        "precision": precision,
        "quantize": None if quantize is None else check_quantize(quantize),
        "threads": _core.cpu_info()["threads"] if threads is None else check_int("threads", threads, 1, MAX_THREADS),
    }


def check_origin(revision: Any, offline: Any) -> dict[str, Any]:
    if revision is not None and not check_text("revision", revision):
        raise ValueError("revision is empty; it is a branch, tag or commit")
    return {"revision": revision, "offline": check_bool("offline", offline)}


def check_quantize(value: Any) -> str:
    """The core's name of the type."""
    known = {name.lower(): name for name in _core.encodes()}
    if value not in known:
        raise ValueError(f"quantize must be None or one of {', '.join(map(repr, known))}, not {shown(value)}")
    return known[value]


def check_source(source: Any) -> None:
    if not isinstance(source, str | os.PathLike):
        refuse_type("source", "a path or a name", source)
