# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder as the model that a family reads: config.json, generation_config.json, safetensors.

config.json is read as Transformers 4 writes it (rope_theta beside rope_scaling) and as 5 does (both within rope_parameters, which
may hold one object for each kind of layer).
"""

import builtins
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from slm.errors import quoted
from slm.formats import json_text
from slm.formats.files import InputFile, Opener
from slm.formats.folder_fields import ALIASES, IGNORED, NEUTRAL
from slm.formats.json_text import Object, read_object, shown
from slm.formats.model_files import ModelFiles
from slm.formats.report import REQUIRED, Report, listed
from slm.formats.shards import open_shards

CODES = {  # raised as FOLDER_<code>
    **json_text.CODES,
    "MAGIC": "not a file that slm reads",
    "CHANGED": "the file changed while it was read",
    "NO_CONFIG": "not the folder of a model",
    "ADAPTER": "an adapter without its model",
    "QUANTIZED": "weights in a quantized form that slm does not read from folders",
    "NO_WEIGHTS": "no weights in a form that slm reads",
    "SHARD_MISSING": "some files of the model are missing",
    "INDEX": "the index does not describe the files",
    "UNHANDLED": "the model needs something that this version does not do",
    "MODEL_TYPE": "the type of model is not supported",
    "TENSORS": "the tensors are not those of the model",
    "TYPES": "tensor types that this version cannot run",
    "VOCABULARY": "the vocabulary contradicts itself",
}
CONFIG, GENERATION, ADAPTER = "config.json", "generation_config.json", "adapter_config.json"
ADAPTER_HINT = "an adapter; load its model and give it to adapt()"
LOCAL, LOCAL_THETA = "sliding_attention", "rope_local_base_freq"  # before ropes stood by kind of layer
BESIDE = frozenset(("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"))  # of a rope, or of the config
# Buffers that older versions of Transformers saved: they follow from the configuration.
BUFFERS = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|(attn|attention)\.(masked_)?bias)", re.DOTALL)


class Folder(ModelFiles):
    """kind: model_type. config: the whole config.json. end_tokens: ids that end a text, as generation_config.json says, else
    config.json."""

    is_gguf = False

    path: Path

    def __init__(self, path: str | os.PathLike[str], opener: Opener = InputFile) -> None:
        """Raises OSError, FormatError, UnsupportedError (an adapter, weights that are not safetensors)."""
        self.path = Path(path)
        self.report = Report(path, "FOLDER", CODES)
        if (self.path / ADAPTER).exists():
            raise self.report.unsupported("ADAPTER", None, ADAPTER, "the folder of a whole model", ADAPTER_HINT)
        if not (self.path / CONFIG).exists():
            models = sorted(quoted(file.name) for file in self.path.glob("*.gguf"))
            found = f"none, but GGUF files, of which one can be named: {listed(models)}" if models else "none"
            raise self.report.bad("NO_CONFIG", None, CONFIG, "a file of this name", found)
        self.config = read_object(self.path / CONFIG, Report(self.path / CONFIG, "FOLDER", CODES))
        self._whole = self.config
        self._others: tuple[str, ...] = ()
        self._read: set[str] = set()
        with ExitStack() as stack:
            self._shards, self.tensors = open_shards(self.path, self.report, stack, opener)
            self._files = stack.pop_all()

    @property
    def kind(self) -> str:
        return self._whole.get_string("model_type")

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def file_bytes(self) -> int:
        return sum(shard.file.size for shard in self._shards)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        config = self._whole
        if (self.path / GENERATION).exists():
            generation = read_object(self.path / GENERATION, Report(self.path / GENERATION, "FOLDER", CODES))
            config = generation if "eos_token_id" in generation else config
        ids = config.get_ids("eos_token_id", 2**31)
        return tuple(id for id in ids if id < self.uint("vocab_size", 1, 2**31))  # others cannot occur

    def enter(self, name: str, defaults: Mapping[str, Any], fields: Collection[str], tensors: tuple[str, ...]) -> None:
        """From here on, fields are those of an object within config.json: of the text part of a model that has others. defaults:
        of fields that it does not state. Of the other parts: fields beside it; tensors, how their names begin."""
        part = self.config.get_object(name)
        stated = {**part.values, **{key: value for key, value in defaults.items() if key not in part}}
        self.config, self._others = Object(stated, part.path, part.report), tensors
        self._read |= {self._whole.where(name)} | {self._whole.where(field) for field in fields}

    def close(self) -> None:
        self._files.close()

    def check_size(self) -> None:
        for shard in self._shards:
            shard.file.check_size()

    # ---- configuration --------------------------------------------------------------------------------------------------------

    def is_null(self, name: str) -> builtins.bool:
        place, field = self._place(name)
        return field in place.values and place.values[field] is None

    def uint(self, name: str, low: int = 0, high: int = 2**63, default: Any = REQUIRED) -> Any:
        place, field = self._place(name)
        return place.get_int(field, low, high, default)

    def float(self, name: str, low: float, high: float, default: Any = REQUIRED) -> Any:
        place, field = self._place(name)
        return place.get_float(field, low, high, default)

    def bool(self, name: str, default: Any = REQUIRED) -> Any:
        place, field = self._place(name)
        return place.get_bool(field, default)

    def string(self, name: str, default: Any = REQUIRED) -> Any:
        place, field = self._place(name)
        return place.get_string(field, default)

    def floats(self, name: str, count: int, default: Any = REQUIRED) -> Any:
        values = self._list(name, count, "a finite number above 0", is_factor, default)
        return default if values is default else np.array(values, np.float32)

    def strings(self, name: str, count: int, default: Any = REQUIRED) -> Any:
        return self._list(name, count, "a string", lambda value: isinstance(value, str), default)

    def uints(self, name: str, count: int, high: int, default: Any = REQUIRED) -> Any:
        return self._list(name, count, f"an integer from 0 to {high}", lambda value: is_count(value, high), default)

    def _list(self, name: str, count: int, wanted: str, accepts: Callable[[Any], builtins.bool], default: Any) -> Any:
        place, field = self._place(name)
        values = place.get_list(field, default)
        if values is default:
            return default
        if len(values) != count:
            raise self.bad(name, f"{count} values", len(values))
        for i, value in enumerate(values):
            if not accepts(value):
                raise place.report.bad("JSON_TYPE", None, f"{place.where(field)}[{i}]", wanted, shown(value))
        return values

    def bad(self, name: str, expected: str, found: Any) -> Exception:
        place, field = self._place(name)
        return place.report.bad("JSON_RANGE", None, place.where(field), expected, found)

    def unsupported(self, name: str, expected: str, found: Any) -> Exception:
        place, field = self._place(name)
        return place.report.unsupported("UNHANDLED", None, place.where(field), expected, found)

    def unknown_kind(self, known: str) -> Exception:
        return self.config.report.unsupported("MODEL_TYPE", None, "$.model_type", known, quoted(self.kind))

    def refuse_unread(self) -> None:
        for name in ("quantization", "quantization_config"):  # MLX writes the first, and perhaps a copy of it as the second
            quantization = self._whole.get_object(name, None)
            if quantization is not None:
                method = quantization.get_string("quant_method", "MLX" if name == "quantization" else "no quant_method")
                raise self.config.report.unsupported("QUANTIZED", None, quantization.path, "float weights", quoted(method))
        if self._whole is not self.config:
            self._refuse_unread(self._whole, depth=0)
        self._refuse_unread(self.config)

    def _refuse_unread(self, place: Object, depth: int = 1) -> None:
        for name in place:
            where, value = place.where(name), place.values[name]
            if where in self._read:
                if isinstance(value, dict) and depth:
                    self._refuse_unread(Object(value, where, place.report))
                continue
            if value is None or (place in (self.config, self._whole) and name in IGNORED) or value in NEUTRAL.get(name, ()):
                continue
            expected = " or ".join(["no such field", *map(shown, NEUTRAL.get(name, ()))])
            raise place.report.unsupported("UNHANDLED", None, where, expected, shown(value))

    def _place(self, name: str) -> tuple[Object, str]:
        """Where a field stands, or would stand."""
        head, dot, rest = name.rpartition(".")
        if dot:
            return self._rope_place(head.partition(".")[2], rest)
        given = [n for n in (name, *ALIASES.get(name, ())) if n in self.config]
        # Two names for one thing may both be there; where they contradict each other, the second one is refused.
        self._read |= {self.config.where(n) for n in given if self.config.values[n] == self.config.values[given[0]]}
        return self._found(self.config, given[0] if given else name)

    def _rope_place(self, layer_type: str, name: str) -> tuple[Object, str]:
        config = self.config
        form = "rope_parameters" if "rope_parameters" in config else "rope_scaling"
        self._read.add(config.where(form))
        rope = config.get_object(form, Object({}, config.where(form), config.report))
        if layer_type in rope.values:
            if layer_type not in rope:
                raise rope.report.unsupported("UNHANDLED", None, rope.where(layer_type), "an object", "null")
            self._read.add(rope.where(layer_type))
            rope = rope.get_object(layer_type)
        elif layer_type == LOCAL and form == "rope_scaling":  # which is about the other layers
            return self._found(config, LOCAL_THETA) if name == "rope_theta" else (Object({}, rope.path, rope.report), name)
        if name == "rope_type" and "type" in rope:  # its name at first; some write both
            self._read.add(rope.where("type"))
            return self._found(rope, "rope_type" if "rope_type" in rope else "type")
        if name in BESIDE:
            beside, field = self._place(name)
            if field in beside and name not in rope:
                return beside, field
            if beside.values.get(field) != rope.values.get(name):  # two values: let the other one be refused
                self._read.discard(beside.where(field))
        return self._found(rope, name)

    def _found(self, place: Object, name: str) -> tuple[Object, str]:
        self._read.add(place.where(name))
        return place, name

    # ---- tensors --------------------------------------------------------------------------------------------------------------

    def prefix_of(self, prefix: str, module: str) -> str:
        return next((p for p in (prefix, "") if f"{p}{module}.weight" in self.tensors), prefix)

    def tensor_name(self, field: str, layer: int | None, module: str) -> str:
        return module

    def is_known(self, tensor: str) -> builtins.bool:
        return BUFFERS.fullmatch(tensor) is not None or tensor.startswith(self._others)


def is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 < value < 1e6


def is_count(value: Any, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high
