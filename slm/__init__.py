# SPDX-License-Identifier: Apache-2.0
"""Run, measure and adapt small language models on an ordinary CPU.

with slm.load() as model:
    print(model.chat("Why is the sky blue?"))
"""

from typing import Any

try:
    from slm._core import cpu_info
except ModuleNotFoundError as error:
    if error.name != "slm._core":
        raise
    raise ImportError(
        "this is slm's source folder, where the C core is not built: start Python in another folder, or run pip install -e . here"
    ) from None
from slm.constraints import Constraint, choice, grammar, json, regex
from slm.errors import (
    BusyError,
    ClosedError,
    ContextLengthError,
    DownloadError,
    Error,
    FormatError,
    InternalError,
    LimitError,
    NumericsError,
    TemplateError,
    UnsupportedError,
)
from slm.model import Model
from slm.opening import inspect, load, load_tokenizer
from slm.options import GenerateOptions
from slm.output import Chunk, Forward, Logprob, Output, Perplexity, Score, ToolCall
from slm.session import Session
from slm.tokenizer import Tokenizer

__all__ = [
    "BusyError",
    "Chunk",
    "ClosedError",
    "Constraint",
    "ContextLengthError",
    "DownloadError",
    "Error",
    "FormatError",
    "Forward",
    "GenerateOptions",
    "InternalError",
    "LimitError",
    "Logprob",
    "Model",
    "NumericsError",
    "Output",
    "Perplexity",
    "Score",
    "Session",
    "TemplateError",
    "Tokenizer",
    "ToolCall",
    "UnsupportedError",
    "choice",
    "cpu_info",
    "grammar",
    "inspect",
    "json",
    "load",
    "load_tokenizer",
    "regex",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # reading the installed metadata costs more than the rest of the import
        from importlib.metadata import version

        return version("slm-cpu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
