# SPDX-License-Identifier: Apache-2.0
"""What a family reads, whichever files a model came in: configuration and tensors under Hugging Face's names.

Fields are named as in config.json; a dot leads into an object: "rope_parameters.factor", and for models with a rope per kind of
layer "rope_parameters.sliding_attention.factor". What was read is remembered: a field that nobody read might change the result.
"""

import builtins
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from slm.formats.report import REQUIRED, Report
from slm.formats.tensors import TensorInfo


class OpenFiles(ABC):
    """What holds files open; a context manager that closes them. report: about the files as a whole."""

    is_gguf: ClassVar[bool]
    report: Report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def check_size(self) -> None:
        """Raise FormatError if a file is not as long as when it was opened: somebody is writing it."""


class ModelFiles(OpenFiles):
    """An open model; a context manager. Getters raise FormatError and LimitError; a field that is absent gives the default.

    kind: what the model calls itself, in the words of its format. name: a title.
    end_tokens: ids that end a text, where files beside the vocabulary say so.
    """

    path: str | os.PathLike[str]
    tensors: Mapping[str, TensorInfo]

    @property
    @abstractmethod
    def kind(self) -> str: ...

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def end_tokens(self) -> tuple[int, ...]: ...

    @property
    @abstractmethod
    def file_bytes(self) -> int:
        """Of all files that hold weights."""

    # ---- configuration --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def is_null(self, name: str) -> builtins.bool:
        """Whether the files say expressly that there is no value; getters give the default then, too."""

    @abstractmethod
    def uint(self, name: str, low: int = 0, high: int = 2**63, default: Any = REQUIRED) -> Any:
        """An integer, low <= value <= high. Below: FormatError; above: LimitError."""

    @abstractmethod
    def float(self, name: str, low: float, high: float, default: Any = REQUIRED) -> Any:
        """A number, low < value <= high."""

    @abstractmethod
    def bool(self, name: str, default: Any = REQUIRED) -> Any: ...

    @abstractmethod
    def string(self, name: str, default: Any = REQUIRED) -> Any: ...

    @abstractmethod
    def floats(self, name: str, count: int, default: Any = REQUIRED) -> Any:
        """[count] finite numbers above 0, as float32."""

    @abstractmethod
    def strings(self, name: str, count: int, default: Any = REQUIRED) -> Any:
        """A list of `count` strings."""

    @abstractmethod
    def uints(self, name: str, count: int, high: int, default: Any = REQUIRED) -> Any:
        """A list of `count` integers from 0 to high."""

    @abstractmethod
    def bad(self, name: str, expected: str, found: Any) -> Exception:
        """A FormatError about the value of a field."""

    @abstractmethod
    def unsupported(self, name: str, expected: str, found: Any) -> Exception:
        """An UnsupportedError about the value of a field."""

    @abstractmethod
    def unknown_kind(self, known: str) -> Exception:
        """An UnsupportedError: `kind` is none of the known ones."""

    @abstractmethod
    def refuse_unread(self) -> None:
        """UnsupportedError for a field that nobody has read, unless it is known to change nothing."""

    # ---- tensors --------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def prefix_of(self, prefix: str, module: str) -> str:
        """What stands before the names of modules: `prefix` or less, as the files have it before `module`."""

    @abstractmethod
    def tensor_name(self, field: str, layer: int | None, module: str) -> str:
        """Of a field of slm_weights or slm_layer_weights in csrc/slm.h, without ".weight". module: as Hugging Face calls it."""

    @abstractmethod
    def is_known(self, tensor: str) -> builtins.bool:
        """Whether a tensor that the model does not need may be there: it holds what follows from the configuration."""
