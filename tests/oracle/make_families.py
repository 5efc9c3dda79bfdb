# SPDX-License-Identifier: Apache-2.0
"""Make tests/data/oracle/family_*.npz: a small random model of each family, run by Transformers (5 or later) in float32.

    pip install ".[oracle]" && python tests/oracle/make_families.py [family ...]

Each file holds what Transformers' save_pretrained wrote: `config` (the text of config.json) and the tensors of model.safetensors,
matrices as float16 (exact: parameters are multiples of 1/64, which also compress well), vectors as float32. Where GGUF files of
the family are published: `gguf` (JSON), the metadata of one (key -> [type, value]), its tensor names, and what becomes of the
values; `gguf.<name>`: its other tensors. Beside them: the input ids and the logits [n_tokens, vocab_size]. Prompts are longer
than the windows and than a page.
rope.npz holds angles by Transformers' own functions, to compare slm.families.rope with.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

OUT = Path(__file__).parent.parent / "data" / "oracle"
N_TOKENS = 72
VOCAB, HIDDEN, INNER, CONTEXT = 83, 64, 96, 128
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SIZES = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "max_position_embeddings": CONTEXT, "attn_implementation": "eager"}
WIDTHS = {**SIZES, "intermediate_size": INNER, "num_hidden_layers": 2}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    """model: Transformers' class. metadata, names: of a GGUF file, modules without prefix -> tensors."""

    architecture: str | None  # of GGUF files
    model: str
    config: Mapping[str, Any]
    metadata: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    changes: Sequence[tuple[Any, ...]] = ()  # what converters do to values, see gguf_conversion.py
    extra: Mapping[str, Any] = field(default_factory=dict)  # GGUF tensors that are not parameters


MODEL = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
ATTENTION = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
}  # fmt: skip
MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
LLAMA = MODEL | ATTENTION | MLP | NORMS
GEMMA_NORMS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def metadata(kind: str = "rms", heads: int = 4, kv_heads: int = 2, layers: int = 2, **more: tuple[str, Any]) -> dict[str, Any]:
    """The keys that all have, and more: __ stands for a dot."""
    eps = "layer_norm_rms_epsilon" if kind == "rms" else "layer_norm_epsilon"
    keys = {
        "context_length": ("uint32", CONTEXT), "embedding_length": ("uint32", HIDDEN), "block_count": ("uint32", layers),
        "feed_forward_length": ("uint32", INNER), "attention.head_count": ("uint32", heads),
        "attention.head_count_kv": ("uint32", kv_heads), f"attention.{eps}": ("float32", 1e-5),
    }  # fmt: skip
    return keys | {key.replace("__", "."): value for key, value in more.items()}


def theta(base: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base}}


PAIRS = ("pairs_together", 4, 2)

RMS_EPS, LAYER_EPS = {"rms_norm_eps": 1e-5}, {"layer_norm_eps": 1e-5}
LONG = {"short": [1.0, 1.1, 1.3, 1.7], "long": [1.2, 2.0, 3.5, 4.0]}
GPT_NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output", "ln_1": "attn_norm",
    "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
NEOX_NAMES = NORMS | {
    "embed_in": "token_embd", "final_layer_norm": "output_norm", "embed_out": "output", "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
}  # fmt: skip
PHI_NAMES = MODEL | ATTENTION | {
    "final_layernorm": "output_norm", "input_layernorm": "attn_norm", "self_attn.dense": "attn_output", "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}  # fmt: skip
PHI3_NAMES = MODEL | NORMS | {
    "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def phi3(partial: float, long_trained: int | None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Config, metadata and tensors with the short factors in use; `long_trained`: 8 times what the prompt needs."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": partial}
    keys, tensors = {"rope__dimension_count": ("uint32", int(16 * partial)), "rope__freq_base": ("float32", 10000.0)}, {}
    config: dict[str, Any] = {"sliding_window": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    keys["attention__sliding_window"] = ("uint32", 40)
    if long_trained:
        parameters |= {"rope_type": "longrope", "short_factor": LONG["short"], "long_factor": LONG["long"]}
        parameters |= {"original_max_position_embeddings": CONTEXT}
        config |= {"max_position_embeddings": long_trained, "original_max_position_embeddings": CONTEXT}
        scale = long_trained / CONTEXT
        keys |= {
            "context_length": ("uint32", long_trained),
            "rope__scaling__original_context_length": ("uint32", CONTEXT),
            "rope__scaling__attn_factor": ("float32", float(np.sqrt(1 + np.log(scale) / np.log(CONTEXT)))),
        }
        tensors = {f"rope_factors_{name}.weight": np.float32(values) for name, values in LONG.items()}
    return config | {"rope_parameters": parameters}, keys, tensors


phi3_long, phi3_long_keys, phi3_long_tensors = phi3(0.5, 1024)
phi3_plain, phi3_plain_keys, _ = phi3(1.0, None)

FAMILIES = {
    "llama_3_scaling": Family(
        "llama", "Llama",
        WIDTHS | HEADS | RMS_EPS | {"rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32}},
        metadata(rope__freq_base=("float32", 10000.0)), LLAMA, [PAIRS],
    ),
    "llama_linear_biases": Family(
        "llama", "Llama",
        WIDTHS | HEADS | RMS_EPS | {"attention_bias": True, "rope_parameters": {
            "rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}},
        metadata(rope__freq_base=("float32", 10000.0), rope__scaling__type=("string", "linear"),
                 rope__scaling__factor=("float32", 2.5)),
        LLAMA, [PAIRS],
    ),
    "mistral_window": Family(
        "llama", "Mistral", WIDTHS | HEADS | RMS_EPS | theta(10000.0) | {"sliding_window": 24, "head_dim": 16},
        metadata(attention__sliding_window=("uint32", 24)), LLAMA, [PAIRS],
    ),
    "qwen2": Family(
        "qwen2", "Qwen2", WIDTHS | HEADS | RMS_EPS | theta(1e6) | {"tie_word_embeddings": True},
        metadata(rope__freq_base=("float32", 1e6)), LLAMA,
    ),
    "qwen2_yarn": Family(
        "qwen2", "Qwen2",
        WIDTHS | HEADS | RMS_EPS | {"rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}},
        metadata(rope__freq_base=("float32", 1e4), rope__scaling__type=("string", "yarn"),
                 rope__scaling__factor=("float32", 4.0), rope__scaling__original_context_length=("uint32", 32)),
        LLAMA,
    ),
    "qwen3": Family(
        "qwen3", "Qwen3", WIDTHS | HEADS | RMS_EPS | theta(1e6) | {"head_dim": 24},
        metadata(rope__freq_base=("float32", 1e6), attention__key_length=("uint32", 24), attention__value_length=("uint32", 24)),
        LLAMA | HEAD_NORMS,
    ),
    "gemma": Family(
        "gemma", "Gemma",
        WIDTHS | RMS_EPS | theta(10000.0) | {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32},
        metadata(kv_heads=1, attention__key_length=("uint32", 32), attention__value_length=("uint32", 32)),
        LLAMA, [("one_plus_norms",)],
    ),
    "gemma2": Family(
        "gemma2", "Gemma2",
        WIDTHS | HEADS | RMS_EPS | theta(10000.0) | {
            "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24, "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 6.0, "num_hidden_layers": 3},
        metadata(layers=3, attention__key_length=("uint32", 16), attention__value_length=("uint32", 16),
                 attn_logit_softcapping=("float32", 5.0), final_logit_softcapping=("float32", 6.0),
                 attention__sliding_window=("uint32", 24)),
        MODEL | ATTENTION | MLP | GEMMA_NORMS, [("one_plus_norms",)],
    ),
    "gemma3": Family(
        "gemma3", "Gemma3",
        WIDTHS | RMS_EPS | {
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24,
            "num_hidden_layers": 7, "intermediate_size": 32,
            "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}},
        metadata(layers=7, kv_heads=1, attention__key_length=("uint32", 16), attention__value_length=("uint32", 16),
                 attention__sliding_window=("uint32", 24), rope__freq_base=("float32", 1e6),
                 rope__scaling__type=("string", "linear"), rope__scaling__factor=("float32", 8.0))
        | {"feed_forward_length": ("uint32", 32)},
        MODEL | ATTENTION | MLP | GEMMA_NORMS | HEAD_NORMS, [("one_plus_norms",)],
    ),
    "phi2": Family(
        "phi2", "Phi",
        WIDTHS | LAYER_EPS | {"num_attention_heads": 4, "num_key_value_heads": 4, "hidden_act": "gelu_new",
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        metadata("layer", kv_heads=4, rope__dimension_count=("uint32", 8)), PHI_NAMES,
    ),
    "phi3": Family("phi3", "Phi3", WIDTHS | HEADS | RMS_EPS | phi3_plain, metadata(**phi3_plain_keys), PHI3_NAMES),
    "phi3_longrope": Family(
        "phi3", "Phi3", WIDTHS | HEADS | RMS_EPS | phi3_long, metadata(**phi3_long_keys), PHI3_NAMES, extra=phi3_long_tensors
    ),
    "gpt2": Family(
        "gpt2", "GPT2",
        {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_inner": INNER, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
        metadata("layer", kv_heads=4), GPT_NAMES, [("transposed",)],
    ),
    "gptneox": Family(
        "gptneox", "GPTNeoX",
        WIDTHS | LAYER_EPS | {"num_attention_heads": 4, "use_parallel_residual": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
        metadata("layer", kv_heads=4, rope__dimension_count=("uint32", 4), use_parallel_residual=("bool", True)),
        NEOX_NAMES, [("heads_apart", 4)],
    ),
    "gptneox_sequential": Family(
        "gptneox", "GPTNeoX",
        WIDTHS | LAYER_EPS | {"num_attention_heads": 4, "use_parallel_residual": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}},
        metadata("layer", kv_heads=4, rope__dimension_count=("uint32", 16), use_parallel_residual=("bool", False)),
        NEOX_NAMES, [("heads_apart", 4)],
    ),
    "stablelm": Family(
        "stablelm", "StableLm",
        WIDTHS | HEADS | LAYER_EPS | {"use_qkv_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
        metadata("layer", rope__dimension_count=("uint32", 4), use_parallel_residual=("bool", False)), LLAMA,
    ),
    "stablelm_parallel": Family(
        "stablelm", "StableLm",
        WIDTHS | HEADS | LAYER_EPS | {"use_parallel_residual": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
        metadata("layer", rope__dimension_count=("uint32", 4), use_parallel_residual=("bool", True)), LLAMA,
    ),
    "olmo2": Family(
        "olmo2", "Olmo2", WIDTHS | HEADS | RMS_EPS | theta(5e5), metadata(rope__freq_base=("float32", 5e5)),
        MODEL | ATTENTION | MLP | HEAD_NORMS
        | {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"},
    ),
    "granite": Family(
        "granite", "Granite",
        WIDTHS | HEADS | RMS_EPS | theta(10000.0) | {
            "embedding_multiplier": 3.0, "attention_multiplier": 0.125, "residual_multiplier": 0.5, "logits_scaling": 4.0},
        metadata(embedding_scale=("float32", 3.0), attention__scale=("float32", 0.125), residual_scale=("float32", 0.5),
                 logit_scale=("float32", 4.0)),
        LLAMA, [PAIRS],
    ),
    "smollm3": Family(
        "smollm3", "SmolLM3",
        WIDTHS | HEADS | RMS_EPS | theta(5e6) | {
            "num_hidden_layers": 5, "intermediate_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        metadata(layers=5, rope__freq_base=("float32", 5e6)) | {"feed_forward_length": ("uint32", 32)},
        LLAMA, [PAIRS],
    ),
    "arcee": Family(
        "arcee", "Arcee", WIDTHS | HEADS | RMS_EPS | theta(10000.0) | {"head_dim": 16}, metadata(), LLAMA, [PAIRS],
    ),
    "helium": Family(None, "Helium", WIDTHS | HEADS | RMS_EPS | theta(1e5) | {"head_dim": 16, "attention_bias": True}),
    "ernie4_5": Family(None, "Ernie4_5", WIDTHS | HEADS | RMS_EPS | theta(5e5) | {"head_dim": 16, "use_bias": True}),
    "seed_oss": Family(None, "SeedOss", WIDTHS | HEADS | RMS_EPS | theta(1e4) | {"head_dim": 24, "attention_bias": True}),
    "ministral": Family(
        None, "Ministral", WIDTHS | HEADS | RMS_EPS | theta(1e4)
        | {"head_dim": 16, "sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "starcoder": Family(
        "starcoder", "GPTBigCode",
        {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_inner": INNER, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
        metadata("layer", kv_heads=1), GPT_NAMES,
    ),
    "starcoder_heads": Family(
        None, "GPTBigCode",
        {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": 1, "n_head": 4, "n_positions": CONTEXT, "multi_query": False},
    ),
    "starcoder2": Family(
        "starcoder2", "Starcoder2",
        WIDTHS | HEADS | theta(10000.0) | {"norm_epsilon": 1e-5, "sliding_window": 40},
        metadata("layer", attention__sliding_window=("uint32", 40)),
        LLAMA | {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
    ),
    "cohere": Family(
        "command-r", "Cohere", WIDTHS | HEADS | LAYER_EPS | theta(10000.0) | {"logit_scale": 0.25},
        metadata("layer", logit_scale=("float32", 0.25), rope__scaling__type=("string", "none"),
                 rope__freq_base=("float32", 1e4)),
        LLAMA,
    ),
    "cohere2": Family(
        "cohere2", "Cohere2",
        WIDTHS | HEADS | LAYER_EPS | theta(10000.0)
        | {"logit_scale": 0.25, "sliding_window": 24, "num_hidden_layers": 5, "intermediate_size": 32},
        metadata("layer", layers=5, logit_scale=("float32", 0.25), attention__sliding_window=("uint32", 24),
                 rope__dimension_count=("uint32", 16)) | {"feed_forward_length": ("uint32", 32)},
        LLAMA,
    ),
    "glm": Family(
        None, "Glm", WIDTHS | HEADS | RMS_EPS | {"head_dim": 16, "pad_token_id": 0, "eos_token_id": [2, 3],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ),
    "glm4": Family(
        None, "Glm4", WIDTHS | HEADS | RMS_EPS | {"head_dim": 16, "pad_token_id": 0, "eos_token_id": [2, 3],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ),
    "exaone4": Family(
        None, "Exaone4",
        WIDTHS | HEADS | RMS_EPS | theta(1e6) | {"sliding_window": 24, "num_hidden_layers": 5, "intermediate_size": 32},
    ),
    "nemotron": Family(
        "nemotron", "Nemotron",
        WIDTHS | HEADS | {"norm_eps": 1e-5, "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        metadata("layer", rope__dimension_count=("uint32", 8)), LLAMA, [("one_plus_norms",)],
    ),
    "phi_head_norms": Family(
        None, "Phi",
        WIDTHS | LAYER_EPS | {"num_attention_heads": 4, "num_key_value_heads": 4, "hidden_act": "gelu_new", "qk_layernorm": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ),
    "vaultgemma": Family(
        None, "VaultGemma",
        WIDTHS | HEADS | RMS_EPS | theta(10000.0) | {
            "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24, "attn_logit_softcapping": None,
            "final_logit_softcapping": 6.0},
    ),
    "gptneox_no_bias": Family(
        None, "GPTNeoX",
        WIDTHS | LAYER_EPS | {"num_attention_heads": 4, "attention_bias": False, "num_hidden_layers": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
    ),
    "llama_dynamic": Family(
        None, "Llama",
        WIDTHS | HEADS | RMS_EPS | {"num_hidden_layers": 1, "max_position_embeddings": 48, "mlp_bias": True,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "qwen2_window": Family(
        None, "Qwen2",
        WIDTHS | HEADS | RMS_EPS | theta(1e6) | {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "gemma3_vision": Family(
        None, "Gemma3Vision",
        {"text_config": {key: value for key, value in WIDTHS.items() if key != "attn_implementation"} | {
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16,
            "sliding_window": 24},
         "vision_config": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
                           "image_size": 14, "patch_size": 14, "vision_use_head": False},
         "mm_tokens_per_image": 1},
    ),
    "stablelm_head_norms": Family(
        "stablelm", "StableLm",
        WIDTHS | HEADS | LAYER_EPS | {"use_parallel_residual": True, "qk_layernorm": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
        metadata("layer", rope__dimension_count=("uint32", 4), use_parallel_residual=("bool", True)),
        LLAMA | {f"self_attn.{x}_layernorm.norms.{i}": f"attn_{x}_norm.{i}" for x in "qk" for i in range(4)},
        [("norms_together",)],
    ),
    "cohere_head_norms": Family(
        "command-r", "Cohere", WIDTHS | HEADS | LAYER_EPS | theta(10000.0) | {"logit_scale": 0.25, "use_qk_norm": True},
        metadata("layer", logit_scale=("float32", 0.25), rope__scaling__type=("string", "none"),
                 rope__freq_base=("float32", 1e4)),
        LLAMA | HEAD_NORMS,
    ),
    "persimmon": Family(
        None, "Persimmon",
        WIDTHS | LAYER_EPS | {"num_attention_heads": 4, "num_hidden_layers": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 0.5}},
    ),
}  # fmt: skip


def randomize(model: torch.nn.Module, norms_around: float) -> None:
    """Parameters larger than a training start has them, so that attention is peaked and every branch moves the logits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "norm" in name:
                is_norm_weight = name.endswith("weight")
                parameter.uniform_(-0.5, 0.5).add_(norms_around if is_norm_weight else 0)
            elif any(word in name for word in ("embed", "lm_head", "wte", "wpe")):
                parameter.normal_(0, 0.5)
            else:
                parameter.normal_(0, 1.5 * HIDDEN**-0.5)
            parameter.copy_((parameter * 64).round() / 64)


def make(name: str, family: Family) -> Arrays:
    classes = {
        "Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
        "Gemma3Vision": ("Gemma3Config", "Gemma3ForConditionalGeneration"),
        "GPT2": ("GPT2Config", "GPT2LMHeadModel"),
    }
    config_class, model_class = classes.get(family.model, (f"{family.model}Config", f"{family.model}ForCausalLM"))
    config = getattr(transformers, config_class)(**family.config)
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config).eval()
    randomize(model, 0.0 if any(word in family.model for word in ("Gemma", "Nemotron")) else 1.0)
    ids = torch.randint(0, VOCAB, (1, N_TOKENS))
    ids[0, -1] = VOCAB - 1
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[0].numpy()
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        written = (Path(folder) / "config.json").read_text()
        arrays = load_file(Path(folder) / "model.safetensors")
    stored = {key: value.astype(np.float16 if value.ndim >= 2 else np.float32) for key, value in arrays.items()}
    extra = dict(family.extra)
    if "llama_3" in name:  # converters store the ratio of plain and scaled angles
        dim = HIDDEN // 4
        plain = 1 / 10000.0 ** (torch.arange(0, dim, 2) / dim)
        extra["rope_freqs.weight"] = (plain / model.model.rotary_emb.inv_freq).numpy()
    stored |= {f"gguf.{key}": value for key, value in extra.items()}
    if family.architecture:
        keys = {"general.architecture": ("string", family.architecture)}
        keys |= {f"{family.architecture}.{key}": value for key, value in family.metadata.items()}
        stored["gguf"] = np.array(json.dumps({"metadata": keys, "names": family.names, "changes": family.changes}))
    return stored | {"config": np.array(written), "ids": ids[0].numpy().astype(np.int32), "logits": logits}


ROPES = {
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "yarn_betas": {
        "factor": 16.0, "original_max_position_embeddings": 128, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False,
    },
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256},
    "longrope": {
        "short_factor": np.linspace(1, 2, 32).tolist(), "long_factor": np.linspace(1, 9, 32).tolist(),
        "original_max_position_embeddings": 512,
    },
}  # fmt: skip


def make_ropes() -> Arrays:
    """<name>.inv_freq and <name>.factor; for the kinds that look at the length, at 300 and at 5000 positions."""
    arrays: Arrays = {}
    for name, values in ROPES.items():
        kind = name.split("_")[0]
        for length in (300, 5000) if kind in ("dynamic", "longrope") else (300,):
            config = transformers.LlamaConfig(
                hidden_size=256, num_attention_heads=4, max_position_embeddings=2048,
                rope_parameters={"rope_type": kind, "rope_theta": 20000.0, **values},
            )  # fmt: skip
            function = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind]
            inv_freq, factor = function(config, torch.device("cpu"), seq_len=length)
            arrays |= {f"{name}.{length}.inv_freq": inv_freq.numpy(), f"{name}.{length}.factor": np.float64(factor)}
    return arrays


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    made_with = f"transformers {transformers.__version__}, torch {torch.__version__}"
    total = 0
    for seed, (name, family) in enumerate(FAMILIES.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(seed)
        arrays = make(name, family)
        path = OUT / f"family_{name}.npz"
        np.savez_compressed(path, made_with=made_with, **arrays)
        total += path.stat().st_size
        print(f"{path.name}: {path.stat().st_size} bytes, largest logit {np.abs(arrays['logits']).max():.1f}")
    if not sys.argv[1:]:
        np.savez_compressed(OUT / "rope.npz", made_with=made_with, ropes=json.dumps(ROPES), **make_ropes())
    print(f"{total} bytes in all")


if __name__ == "__main__":
    main()
