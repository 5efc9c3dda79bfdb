# SPDX-License-Identifier: Apache-2.0
"""The small random Llama models of tests/data/oracle, as configs and weights of reference.py, and as input of slm._core."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import block_formats
import gguf_writer
import numpy as np
import reference

FOLDER = Path(__file__).parent / "data" / "oracle"
NAMES = sorted(path.stem for path in FOLDER.glob("llama_*.npz"))
LAYER_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LAYER_NORMS = ("input_layernorm", "post_attention_layernorm")
HEAD_NORMS = ("q_norm", "k_norm")  # of some models
GGUF_NAMES = {  # of a layer's tensors
    "input_layernorm": "attn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


@dataclass(frozen=True)
class TinyModel:
    config: reference.Config
    rope_theta: float
    weights: dict[str, Any]  # as reference.forward takes them, float32
    ids: np.ndarray  # [n_tokens]
    logits: np.ndarray  # [n_tokens, vocab_size], by Transformers in float32


def load(name: str) -> TinyModel:
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key].astype(np.float32) if file[key].dtype == np.float16 else file[key] for key in file}
    sizes = json.loads(str(arrays["config"]))
    sizes["norm_eps"] = sizes.pop("rms_norm_eps")  # as Transformers names it
    fields = {key: sizes[key] for key in reference.Config.__dataclass_fields__ if key in sizes}
    theta, head_dim = sizes["rope_theta"], sizes["head_dim"]
    config = reference.Config(**fields, rotary_dim=head_dim, rope_inv_freq=reference.rope_inv_freq(theta, head_dim))
    layers = []
    for i in range(config.num_hidden_layers):
        prefix = f"model.layers.{i}."
        names = [key for key in arrays if key.startswith(prefix)]  # such as model.layers.0.self_attn.q_proj.weight
        layers.append({key.split(".")[-2]: arrays[key] for key in names})
    weights = {
        "embed_tokens": arrays["model.embed_tokens.weight"],
        "norm": arrays["model.norm.weight"],
        "lm_head": arrays.get("lm_head.weight"),
        "layers": layers,
    }
    return TinyModel(config, theta, weights, arrays["ids"], arrays["logits"])


def random_weights(config: reference.Config, rng: np.random.Generator, tied: bool = False) -> dict[str, Any]:
    """As reference.forward takes them: matrices that are exact in F16, norms of ones."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    heads, kv_heads = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    shapes = {"q_proj": (heads, hidden), "k_proj": (kv_heads, hidden), "v_proj": (kv_heads, hidden), "o_proj": (hidden, heads)}
    shapes |= dict.fromkeys(("gate_proj", "up_proj"), (intermediate, hidden)) | {"down_proj": (hidden, intermediate)}

    def matrix(rows: int, cols: int) -> np.ndarray:
        return (rng.standard_normal((rows, cols)) * cols**-0.5).astype(np.float16).astype(np.float32)

    norms = dict.fromkeys(LAYER_NORMS, np.ones(hidden, np.float32))
    return {
        "embed_tokens": matrix(config.vocab_size, hidden),
        "norm": np.ones(hidden, np.float32),
        "lm_head": None if tied else matrix(config.vocab_size, hidden),
        "layers": [{name: matrix(*shape) for name, shape in shapes.items()} | norms for _ in range(config.num_hidden_layers)],
    }


def convert(weights: dict[str, Any], matrix: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """The same weights with `matrix` applied to every matrix."""
    head = weights["lm_head"]
    layers = [layer | {name: matrix(layer[name]) for name in LAYER_MATRICES} for layer in weights["layers"]]
    return weights | {
        "embed_tokens": matrix(weights["embed_tokens"]),
        "lm_head": None if head is None else matrix(head),
        "layers": layers,
    }


def interleaved(model: TinyModel) -> dict[str, Any]:
    """The weights in the order of rows that GGUF files of this family keep: rope pairs (i, i + n/2) become (2i, 2i + 1)."""

    def reorder(matrix: np.ndarray) -> np.ndarray:
        heads = matrix.reshape(-1, 2, model.config.head_dim // 2, matrix.shape[1])
        return heads.swapaxes(1, 2).reshape(matrix.shape)

    layers = [layer | {name: reorder(layer[name]) for name in ("q_proj", "k_proj")} for layer in model.weights["layers"]]
    return model.weights | {"layers": layers}


def describe(path: Path, context: int | None = None) -> tuple[reference.Config, dict[str, Any]]:
    """What the core is given of a model with F32 weights, as config and weights of reference.py."""
    from slm import loader
    from slm.families import registry

    with loader.open_files(path) as files:
        architecture = registry.describe(files, context)
        return reference.Config(**architecture.config), arrays_of(architecture.weights)


def arrays_of(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Ranges of files as arrays; a vector is a matrix of one row. Pieces follow each other, of biases in one row."""

    def array(place: tuple[Any, ...]) -> np.ndarray:
        kind, file, offset, rows, cols, *ld = place
        assert kind == "F32"
        strides = (4, 4 * ld[0]) if ld else (4 * cols, 4)
        size = (rows - 1) * strides[0] + (cols - 1) * strides[1] + 4
        flat = np.frombuffer(os.pread(file, size, offset), np.float32)
        return np.lib.stride_tricks.as_strided(flat, (rows, cols), strides).copy()

    def value(name: str, place: Any) -> Any:
        if name == "layers":
            return [arrays_of(layer) for layer in place]
        if place is None or isinstance(place, int):
            return place
        arrays = [array(piece) for piece in (place if isinstance(place, list) else [place])]
        flat = name.endswith("_bias") or sum(map(len, arrays)) == 1
        return np.concatenate([a.reshape(-1) if flat else a for a in arrays])

    return {name: value(name, place) for name, place in weights.items()}


@contextmanager
def open_tensors(
    weights: dict[str, Any], types: str | Mapping[str, str], path: Path, down_proj_group: int = 32
) -> Iterator[dict[str, Any]]:
    """Write the weights to a headerless file, matrices as one type or each as its own, norms as F32: the `weights` argument of
    _core.Model."""
    data = bytearray()
    type_of = defaultdict(lambda: types) if isinstance(types, str) else types
    with open(path, "w+b") as file:

        def tensor(array: np.ndarray | None, type_: str) -> tuple[str, int, int, int, int] | None:
            if array is None:
                return None
            matrix = array.reshape(-1, array.shape[-1])
            data.extend(bytes(-len(data) % 32))
            place = (type_, file.fileno(), len(data), *matrix.shape)
            data.extend(block_formats.encode(type_, matrix).tobytes())
            return place

        tensors = {
            "embed_tokens": tensor(weights["embed_tokens"], type_of["embed_tokens"]),
            "norm": tensor(weights["norm"], "F32"),
            "lm_head": tensor(weights["lm_head"], type_of["lm_head"]),
            "layers": [
                {name: tensor(layer[name], type_of[name]) for name in LAYER_MATRICES}
                | {name: tensor(layer[name], "F32") for name in (*LAYER_NORMS, *HEAD_NORMS) if name in layer}
                | {"down_proj_group": down_proj_group}
                for layer in weights["layers"]
            ],
        }
        file.write(data)
        file.flush()
        yield tensors


def core_config(config: reference.Config) -> dict[str, Any]:
    """The `config` argument of _core.Model."""
    fields = {key: getattr(config, key) for key in config.__dataclass_fields__}
    scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    return fields | {"attention_scale": scale, "rope_inv_freq": np.float32(config.rope_inv_freq)}


def core_model(
    model: TinyModel,
    path: Path,
    types: str | Mapping[str, str] = "F32",
    kv: str = "auto",
    precision: str = "default",
    down_proj_group: int = 32,
) -> Any:
    """A _core.Model of these weights."""
    from slm import _core

    with open_tensors(model.weights, types, path, down_proj_group) as tensors:
        return _core.Model(core_config(model.config), tensors, model.config.max_position_embeddings, kv=kv, precision=precision)


def write_gguf(path: Path, model: TinyModel, type_name: str) -> None:
    """A file as converters write it: matrices as type_name, norms as F32, the rows of q_proj and k_proj in interleaved order."""
    config, weights = model.config, interleaved(model)
    metadata = {
        "general.architecture": ("string", "llama"),
        "llama.vocab_size": ("uint32", config.vocab_size),
        "llama.block_count": ("uint32", config.num_hidden_layers),
        "llama.context_length": ("uint32", config.max_position_embeddings),
        "llama.embedding_length": ("uint32", config.hidden_size),
        "llama.feed_forward_length": ("uint32", config.intermediate_size),
        "llama.attention.head_count": ("uint32", config.num_attention_heads),
        "llama.attention.head_count_kv": ("uint32", config.num_key_value_heads),
        "llama.attention.key_length": ("uint32", config.head_dim),
        "llama.attention.value_length": ("uint32", config.head_dim),
        "llama.attention.layer_norm_rms_epsilon": ("float32", config.norm_eps),
        "llama.rope.dimension_count": ("uint32", config.rotary_dim),
        "llama.rope.freq_base": ("float32", model.rope_theta),
    }
    named = {"token_embd.weight": weights["embed_tokens"], "output_norm.weight": weights["norm"]}
    if weights["lm_head"] is not None:
        named["output.weight"] = weights["lm_head"]
    for i, layer in enumerate(weights["layers"]):
        named |= {f"blk.{i}.{GGUF_NAMES[name]}.weight": array for name, array in layer.items()}
    types = {name: type_name if array.ndim == 2 else "F32" for name, array in named.items()}
    tensors = {
        name: (types[name], array.shape, block_formats.encode(types[name], array.reshape(-1, array.shape[-1])))
        for name, array in named.items()
    }
    gguf_writer.write_gguf(path, metadata, tensors)
