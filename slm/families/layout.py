# SPDX-License-Identifier: Apache-2.0
"""Where each weight of a family stands: fields of slm_weights and slm_layer_weights -> modules of the Hugging Face model.

{"q_proj": "self_attn.q_proj", ...}    or, for matrices that hold several, one below the other: {"qkv_proj": "self_attn.qkv_proj"}
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from slm.families.architecture import Architecture, Expected, Tensors
from slm.formats.model_files import ModelFiles

GROUPS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}  # field: several in one matrix

MODEL = {"embed_tokens": "embed_tokens", "norm": "norm"}
ATTENTION = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
}
HEAD_NORMS = {"q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"}
GATED_MLP = {"gate_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "down_proj": "mlp.down_proj"}
PRE_NORMS = {"input_layernorm": "input_layernorm", "post_attention_layernorm": "post_attention_layernorm"}
LAYER = PRE_NORMS | ATTENTION | GATED_MLP  # of most families

QKV = ("q_proj", "k_proj", "v_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
NORMS = ("norm", "input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Layout:
    """model, layer: field -> module, in the model and in each layer; a module with {row} in its name holds one row of the field,
    which GGUF files have in one tensor. biases: fields whose bias exists; None: perhaps.

    prefix: of all modules but head; published files may lack it. layers: the list of layers. head: the output matrix, which
    exists unless it is tied to the embedding; None: there is none. unused: tensors that may be there. transposed: matrices of
    layers are stored as [inputs, outputs]. by_head: the rows of qkv_proj follow each other head by head, the queries of a key
    head, its key and its value. neighbours: GGUF files have the rows of q and k reordered, so that rope pairs are neighbours.
    """

    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    model: Mapping[str, str] = field(default_factory=lambda: MODEL)
    biases: Mapping[str, bool | None] = field(default_factory=dict)
    prefix: str = "model."
    layers: str = "layers"
    head: str | None = "lm_head"
    head_bias: bool = False
    transposed: bool = False
    by_head: bool = False
    neighbours: bool = False
    unused: Sequence[str] = ()


def biases(fields: Iterable[str], exist: bool | None = True) -> dict[str, bool | None]:
    return dict.fromkeys(fields, exist)


class Part(NamedTuple):
    """One tensor of the files and the fields that lie in it. owner: the field by which the files name it; n_heads: how often the
    fields follow each other, a share of each at a time; counts: rows of the fields, or elements."""

    owner: str
    module: str
    suffix: str
    fields: Sequence[str]
    counts: Sequence[int]
    expected: Expected
    transposed: bool = False
    n_heads: int = 1

    def places(self, tensors: Tensors, name: str) -> dict[str, Any]:
        """field -> where it lies; None for an optional tensor that is not there."""
        counts = [count // self.n_heads for count in self.counts]
        places: dict[str, Any] = {}
        for i, field_name in enumerate(self.fields):
            rows = [head * sum(counts) + sum(counts[:i]) for head in range(self.n_heads)]
            pieces = [tensors.rows(name, row, counts[i], self.transposed) for row in rows]
            places[field_name] = pieces if self.n_heads > 1 and pieces[0] else pieces[0]
        return places


def build(
    files: ModelFiles,
    config: dict[str, Any],
    layout: Layout | None = None,
    *,
    tied: bool = False,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    per_layer: Sequence[Mapping[str, int]] | None = None,
    contexts: tuple[int, int] | None = None,
) -> Architecture:
    """Match all tensors of the files at once. tied: whether a config.json that does not say so means a tied output matrix.
    shapes: of fields that differ from the usual; per_layer: fields with numbers; contexts: the default and the longest one.

    Raises UnsupportedError for any field or tensor that was not used, FormatError for tensors that are missing or misshapen.
    """
    layout = layout or Layout()
    # Files that are silent about it lack the output matrix where it is tied.
    is_tied = files.bool("tie_word_embeddings", None if files.is_gguf else tied)
    files.refuse_unread()
    if layout.neighbours and files.is_gguf:
        config = config | {"rope_style": "interleaved"}
    n_layers, shape_of = config["num_hidden_layers"], usual_shapes(config) | dict(shapes or {})
    n_heads = config["num_key_value_heads"] if layout.by_head else 1
    output = Part(
        "lm_head",
        layout.head or "",
        "weight",
        ["lm_head"],
        [config["vocab_size"]],
        Expected(shape_of["lm_head"], is_tied is None),
    )
    output_bias = output._replace(suffix="bias", fields=["lm_head_bias"], expected=Expected((config["vocab_size"],)))
    outputs = ([] if is_tied or layout.head is None else [output]) + ([output_bias] if layout.head_bias else [])
    inner, layer = (
        list(parts_of(files, layout, layout.model, shape_of)),
        list(parts_of(files, layout, layout.layer, shape_of, n_heads)),
    )
    prefix = files.prefix_of(layout.prefix, layout.model["embed_tokens"])
    model = named(files, outputs, "") | named(files, inner, prefix)
    layers = [named(files, layer, f"{prefix}{layout.layers}.{i}.", i) for i in range(n_layers)]
    expected = {name: part.expected for parts in (model, *layers) for name, part in parts.items()}
    unused = [*named(files, [output], ""), *(place + name for name in layout.unused for place in ("", prefix))]
    tensors = Tensors(files, expected, unused)

    numbers = {"down_proj_group": down_proj_group(config["hidden_size"]), "rope_table": 0 if config["rotary_dim"] else -1}
    rows = per_layer or [{}] * n_layers
    weights = places_of(model, tensors)
    weights["layers"] = [places_of(parts, tensors) | numbers | dict(row) for parts, row in zip(layers, rows, strict=True)]
    trained = config["max_position_embeddings"]
    default, longest = contexts or (trained, trained)
    return Architecture(files.kind, config, weights, trained, default, longest, files.is_gguf, layout)


def parts_of(
    files: ModelFiles, layout: Layout, modules: Mapping[str, str], shape_of: Mapping[str, tuple[int, ...]], n_heads: int = 1
) -> Iterator[Part]:
    """The tensors of a layer, or of the model beside the layers: weights and biases. Conventions of Hugging Face's own are not
    those of GGUF files."""
    if files.is_gguf and "q_proj" in modules and f"{files.tensor_name('qkv_proj', 0, '')}.weight" in files.tensors:
        # Some hold in one matrix what others of the same architecture have in three.
        modules = {"qkv_proj": ""} | {name: module for name, module in modules.items() if name not in QKV}
    for owner, module in modules.items():
        fields = GROUPS.get(owner, (owner,))
        counts = [shape_of[name][0] for name in fields]
        shape = (sum(counts), *shape_of[fields[0]][1:])
        if "{row}" in module and not files.is_gguf:
            for row in range(shape[0]):
                yield Part(owner, module.format(row=row), "weight", fields, [shape[1]], Expected(shape[1:]))
            continue
        transposed = layout.transposed and not files.is_gguf and len(shape) > 1 and modules is layout.layer
        heads = n_heads if owner == "qkv_proj" and not files.is_gguf else 1
        expected = Expected(shape[::-1] if transposed else shape)
        yield Part(owner, module, "weight", fields, counts, expected, transposed, heads)
        exists = layout.biases.get(fields[0], False)
        if exists is not False:
            yield Part(
                owner, module, "bias", [f"{f}_bias" for f in fields], counts, Expected(shape[:1], exists is None), False, heads
            )


def named(files: ModelFiles, parts: Sequence[Part], place: str, layer: int | None = None) -> dict[str, Part]:
    """Name of the tensor -> part. place: what stands before the names of modules."""
    return {f"{files.tensor_name(part.owner, layer, place + part.module)}.{part.suffix}": part for part in parts}


def places_of(parts: Mapping[str, Part], tensors: Tensors) -> dict[str, Any]:
    pieces: dict[str, list[Any]] = {}
    for name, part in parts.items():
        for field_name, place in part.places(tensors, name).items():
            pieces.setdefault(field_name, []).append(place)
    return {field_name: found if len(found) > 1 else found[0] for field_name, found in pieces.items()}


def usual_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, intermediate, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q_rows, kv_rows = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (config["vocab_size"], hidden),
        "position_embeddings": (config["max_position_embeddings"], hidden),
        "embedding_norm": (hidden,),
        "norm": (hidden,),
        "lm_head": (config["vocab_size"], hidden),
        "input_layernorm": (hidden,),
        "q_proj": (q_rows, hidden),
        "k_proj": (kv_rows, hidden),
        "v_proj": (kv_rows, hidden),
        "q_norm": (head_dim,),
        "k_norm": (head_dim,),
        "o_proj": (hidden, q_rows),
        "attn_output_norm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "gate_proj": (intermediate, hidden),
        "up_proj": (intermediate, hidden),
        "down_proj": (hidden, intermediate),
        "mlp_output_norm": (hidden,),
    }
    return shapes


def norms_by_head(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of head norms with weights of each head's own."""
    head_dim = config["head_dim"]
    return {"q_norm": (config["num_attention_heads"], head_dim), "k_norm": (config["num_key_value_heads"], head_dim)}


def down_proj_group(hidden_size: int) -> int:
    """Elements under one int8 scale of down_proj's input.

    The product of gate and up has outliers that drown their neighbours under a shared scale. In narrow models that shows in the
    output (hidden_size 576: mean KL 0.0035 with 32, 0.0030 with 16); the finer scales cost little where the matrix is small.
    """
    return 16 if hidden_size < 1024 else 32
