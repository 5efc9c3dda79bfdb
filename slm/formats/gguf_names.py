# SPDX-License-Identifier: Apache-2.0
"""GGUF's words for what a config.json and slm's weights call otherwise, the same for all architectures.

Source: the key and tensor names of the gguf package in the llama.cpp repository (gguf-py/gguf/constants.py).
"""

from collections.abc import Mapping
from typing import Any

# field of config.json -> key, without the name of the architecture in front
KEYS: Mapping[str, str] = {
    "vocab_size": "vocab_size",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "value_head_dim": "attention.value_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "use_parallel_residual": "use_parallel_residual",
    "is_decoder": "attention.causal",
    "sliding_window": "attention.sliding_window",
    "sliding_window_pattern": "attention.sliding_window_pattern",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale",
    "logits_scaling": "logit_scale",  # what divides logits, and
    "logit_scale": "logit_scale",  # what multiplies them: architectures differ
    "rotary_dim": "rope.dimension_count",
    "rope_parameters.rope_theta": "rope.freq_base",
    "rope_parameters.rope_type": "rope.scaling.type",
    "rope_parameters.factor": "rope.scaling.factor",
    "rope_parameters.original_max_position_embeddings": "rope.scaling.original_context_length",
    "rope_parameters.attention_factor": "rope.scaling.attn_factor",
    "rope_parameters.beta_fast": "rope.scaling.yarn_beta_fast",
    "rope_parameters.beta_slow": "rope.scaling.yarn_beta_slow",
    "rope_parameters.sliding_attention.rope_theta": "rope.freq_base_swa",
}
ALL_LAYERS = "full_attention."  # of a rope per kind of layer, what files state without saying so

# field of config.json -> small F32 tensor that holds its values
VECTORS: Mapping[str, str] = {
    "rope_parameters.factors": "rope_freqs.weight",
    "rope_parameters.short_factor": "rope_factors_short.weight",
    "rope_parameters.long_factor": "rope_factors_long.weight",
}

# Keys with the values at which they change nothing, in any architecture.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "pooling_type": (0, 1, 2, 3),  # none, mean, first, last: who asks for an embedding says which
    "tensor_data_layout": (b"Meta AI original pth",),  # rows of q and k in pairs, as in every file that says so
    "rope.scaling.type": (b"none",),
    "rope.scaling.finetuned": (True, False),  # a remark
}

# field of slm_weights or slm_layer_weights -> tensor; where architectures differ, what files may call it, the most usual first
TENSORS: Mapping[str, tuple[str, ...]] = {
    "embed_tokens": ("token_embd",),
    "position_embeddings": ("position_embd",),
    "token_type_embedding": ("token_types",),
    "embedding_norm": ("token_embd_norm",),
    "norm": ("output_norm",),
    "lm_head": ("output",),
    "input_layernorm": ("attn_norm",),
    "q_proj": ("attn_q",),
    "k_proj": ("attn_k",),
    "v_proj": ("attn_v",),
    "qkv_proj": ("attn_qkv",),
    "q_norm": ("attn_q_norm",),
    "k_norm": ("attn_k_norm",),
    "o_proj": ("attn_output",),
    "attn_output_norm": ("post_attention_norm", "attn_output_norm"),
    "post_attention_layernorm": ("ffn_norm",),
    "gate_proj": ("ffn_gate",),
    "up_proj": ("ffn_up",),
    "gate_up_proj": ("ffn_up",),
    "down_proj": ("ffn_down",),
    "mlp_output_norm": ("post_ffw_norm", "layer_output_norm"),
}
