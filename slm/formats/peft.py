# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors.

Tensors are called base_model.model.<module>.lora_A.weight and .lora_B.weight; of an embedding <module>.lora_embedding_A, [rank,
tokens], and .lora_embedding_B. alpha and rank are lora_alpha and r, or those of the first key of alpha_pattern and rank_pattern
that matches the name of the module; the factor is alpha / rank, with use_rslora alpha / sqrt(rank) (Kalajdzievski 2023).
Source: peft/tuners/lora and peft/utils/save_and_load.py in the PEFT repository.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.constraints import new_expressions
from slm.errors import UnsupportedError, quoted
from slm.formats import json_text
from slm.formats.adapter_files import MAX_ALPHA, MAX_RANK, AdapterFiles, Pair, halves
from slm.formats.json_text import Object, read_object, shown
from slm.formats.report import Report
from slm.formats.safetensors import CODES as SAFETENSORS_CODES
from slm.formats.safetensors import Safetensors
from slm.regex_syntax import read_regex

if TYPE_CHECKING:
    from slm import _core

CODES = SAFETENSORS_CODES | json_text.CODES | {  # raised as PEFT_<code>
    "MAGIC": "not a file that slm reads",
    "CHANGED": "the file changed while it was read",
    "NO_ADAPTER": "not the folder of an adapter",
    "UNHANDLED": "the adapter needs something that this version does not do",
    "RANK": "matrices of another rank than the configuration says",
    "TENSORS": "the tensors are not those of an adapter of this model",
    "TYPES": "tensor types that an adapter cannot have",
    "NUMBERS": "data that cannot be used",
}  # fmt: skip
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FOREIGN = "adapter_model.bin"
PREFIX = "base_model.model."
SUFFIXES = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
HINT = f"{PREFIX}<module>.lora_A.weight and .lora_B.weight alone (PEFT's save_pretrained(folder, save_embedding_layers=False))"
MAX_PATTERNS = 4096
MAX_STATES = 1 << 20  # of the automata of all patterns
OF_MLX = "adapters.safetensors"

# What only training looks at, what says where adapters are (their tensors do, too), and remarks.
IGNORED = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "inference_mode"),
        *("layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core"),
        *("peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type"),
    )
)
# Fields with the values at which they change nothing; null counts as absent. Other ways to initialise change the weights of the
# model: what is saved then is no adapter of the one that was published.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "ensure_weight_tying": (False,),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    "layer_replication": ([],),
    "lora_bias": (False,),
    "modules_to_save": ([],),
    "peft_type": ("LORA",),
    "target_parameters": ([],),
    "trainable_token_indices": ([], {}),
    "use_bdlora": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
}
READ = frozenset(("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out"))


class PeftAdapter(AdapterFiles):
    """Raises OSError, FormatError, UnsupportedError (what the configuration asks for beyond LoRA), LimitError."""

    is_gguf = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        folder = Path(path)
        if not folder.is_dir():
            expected = "the folder of an adapter, or a GGUF file"
            raise Report(path, "PEFT", CODES).bad("NO_ADAPTER", None, "path", expected, "another file; name the folder it is in")
        if not (folder / CONFIG).exists():
            raise Report(path, "PEFT", CODES).bad("NO_ADAPTER", None, CONFIG, "a file of this name", "none")
        config = read_object(folder / CONFIG, Report(folder / CONFIG, "PEFT", CODES))
        if (folder / OF_MLX).exists() or "fine_tune_type" in config:
            expected = f"an adapter as PEFT saves it, with {WEIGHTS}"
            raise config.report.unsupported("UNHANDLED", None, "folder", expected, f"one of mlx-lm, with {OF_MLX}")
        check_config(config)
        if not (folder / WEIGHTS).exists():
            how = f"{FOREIGN}; load it with PEFT and save it again: save_pretrained(folder) writes safetensors"
            found = how if (folder / FOREIGN).exists() else "none"
            raise Report(path, "PEFT", CODES).bad("NO_ADAPTER", None, WEIGHTS, "a file of this name", found)
        self.name = folder.resolve().name
        self.base = config.get_string("base_model_name_or_path", None)
        self.report = Report(folder / WEIGHTS, "PEFT", CODES)
        self._file = Safetensors(folder / WEIGHTS)
        try:
            self.pairs = read_pairs(config, self._file, self.report)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def check_size(self) -> None:
        self._file.file.check_size()


def check_config(config: Object) -> None:
    """Raise UnsupportedError for a field that might change the result."""
    config.get_string("peft_type")
    config.get_bool("fan_in_fan_out", False)  # how the model stores its own matrices
    for name in config:
        value = config.values[name]
        if name in READ or name in IGNORED or value is None:
            continue
        neutral = NEUTRAL.get(name, ())
        if not any(type(value) is type(other) and value == other for other in neutral):
            expected = " or ".join(["no such field", *map(shown, neutral)])
            raise config.report.unsupported("UNHANDLED", None, config.where(name), expected, shown(value))


def read_pairs(config: Object, file: Safetensors, report: Report) -> dict[str, Pair]:
    rank, alpha = config.get_int("r", 1, MAX_RANK, 8), config.get_float("lora_alpha", -MAX_ALPHA, MAX_ALPHA, 8.0)
    stabilized = config.get_bool("use_rslora", False)
    found = halves(file.tensors, SUFFIXES, report, HINT)
    for name, (a, _, _) in found.items():
        if not name.startswith(PREFIX):
            raise report.bad("TENSORS", None, f"tensor {quoted(a.name)}", f"a name that begins with {PREFIX}", quoted(a.name))
    modules = {name.removeprefix(PREFIX): halves for name, halves in found.items()}
    ranks = by_pattern(config, "rank_pattern", modules, lambda values, key: values.get_int(key, 1, MAX_RANK))
    alphas = by_pattern(config, "alpha_pattern", modules, lambda values, key: values.get_float(key, -MAX_ALPHA, MAX_ALPHA))
    pairs = {}
    for module, (a, b, kind) in modules.items():
        r = ranks.get(module, rank)
        for tensor, has in ((a, a.shape[0]), (b, b.shape[1])):
            if has != r:
                raise report.bad("RANK", None, f"tensor {quoted(tensor.name)}", f"rank {r}", f"{has} of {list(tensor.shape)}")
        factor = alphas.get(module, alpha) / (math.sqrt(r) if stabilized else r)
        pairs[module] = Pair(a, b, factor, kind == 1)
    return pairs


def by_pattern(config: Object, name: str, modules: Iterable[str], read: Callable[[Object, str], Any]) -> dict[str, Any]:
    """rank_pattern or alpha_pattern: regular expressions of the end of a module's name -> values, the first that matches.
    Patterns may be hostile: our own automata match in linear time, and one lives at a time."""
    values: Object = config.get_object(name, Object({}, config.where(name), config.report))
    if len(values.values) > MAX_PATTERNS:
        raise config.report.limit("LIMIT", None, values.path, len(values.values), MAX_PATTERNS)
    found: dict[str, Any] = {}
    left, n_states = list(modules), 0
    for key in values:
        value, automaton = read(values, key), compile_key(values, key)
        n_states += automaton.n_states
        if n_states > MAX_STATES:
            raise config.report.limit("LIMIT", None, f"states of {values.path}", n_states, MAX_STATES)
        found |= {module: value for module in left if automaton.matches(module.encode())}
        left = [module for module in left if module not in found]
    return found


def compile_key(values: Object, key: str) -> "_core.Automaton":
    # PEFT matches (.*\.)?(key)$: ^ in front keeps out what may stand before the end of a name, and $ at the end says nothing.
    stem = key.removesuffix("$")
    if (len(stem) - len(stem.rstrip("\\"))) % 2:  # an escaped $ is a character
        stem = key
    expressions = new_expressions()
    try:
        pattern = stem if stem.startswith("^") else rf"(.*\.)?({stem})"
        return expressions.compile(read_regex(pattern, expressions, expressions.character))
    except UnsupportedError as error:
        raise values.report.unsupported("UNHANDLED", None, values.where(key), "a plain pattern", error) from None
    except ValueError as error:
        raise values.report.bad("JSON_RANGE", None, values.where(key), "a pattern", error) from None
