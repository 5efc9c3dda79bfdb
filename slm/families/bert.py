# SPDX-License-Identifier: Apache-2.0
"""BERT: every token sees the whole text; learned positions, norms behind the residual additions, no output matrix: it embeds."""

from dataclasses import replace

from slm.errors import quoted
from slm.families.architecture import Architecture
from slm.families.config import read_config
from slm.families.layout import MLP, QKV, Layout, biases, build
from slm.families.positions import no_rope
from slm.formats.model_files import ModelFiles

EMBEDDINGS = {
    "embed_tokens": "embeddings.word_embeddings", "position_embeddings": "embeddings.position_embeddings",
    "token_type_embedding": "embeddings.token_type_embeddings", "embedding_norm": "embeddings.LayerNorm",
}  # fmt: skip
LAYER = {
    "q_proj": "attention.self.query", "k_proj": "attention.self.key", "v_proj": "attention.self.value",
    "o_proj": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm", "up_proj": "intermediate.dense",
    "down_proj": "output.dense", "mlp_output_norm": "output.LayerNorm",
}  # fmt: skip
# Of training tasks, the sentence pair's and the masked token's, and what older versions saved.
HEADS = [
    f"{module}.{kind}"
    for module in (
        "pooler.dense", "cls.predictions", "cls.predictions.decoder", "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm", "cls.seq_relationship",
    )
    for kind in ("weight", "bias")
] + ["embeddings.position_ids"]  # fmt: skip
LAYOUT = Layout(
    LAYER,
    EMBEDDINGS,
    biases((*QKV, "o_proj", *MLP, "embedding_norm", "attn_output_norm", "mlp_output_norm")),
    prefix="bert.",
    layers="encoder.layer",
    head=None,
    unused=HEADS,
)


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer", hidden_act="gelu") | no_rope()
    config |= {"bidirectional": True, "norm_after_residual": True}
    if files.bool("is_decoder", False):
        raise files.unsupported("is_decoder", "false", "true")
    positions = files.string("position_embedding_type", "absolute")
    if positions != "absolute":
        raise files.unsupported("position_embedding_type", "'absolute'", quoted(positions))
    types = files.tensor_name("token_type_embedding", None, "")
    n_types = files.tensors[f"{types}.weight"].shape[0] if files.is_gguf and f"{types}.weight" in files.tensors else 2
    n_types = files.uint("type_vocab_size", 1, 1 << 16, n_types)
    architecture = build(files, config, LAYOUT, shapes={"token_type_embedding": (n_types, config["hidden_size"])})
    kind, file, offset, _, cols = architecture.weights["token_type_embedding"]
    first_type = {"token_type_embedding": (kind, file, offset, 1, cols)}  # the second is that of a pair's second sentence
    return replace(architecture, weights={**architecture.weights, **first_type})
