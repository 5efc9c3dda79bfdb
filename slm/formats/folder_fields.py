# SPDX-License-Identifier: Apache-2.0
"""Fields of a config.json: names that classes of models give to the same thing, and fields that change no result."""

from collections.abc import Mapping
from typing import Any

# name that families read -> names that some classes use instead
ALIASES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd",),
    "intermediate_size": ("n_inner",),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "max_position_embeddings": ("n_positions",),
    "layer_norm_eps": ("layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    "hidden_act": ("activation_function", "hidden_activation"),
    "partial_rotary_factor": ("rotary_pct",),
    "rope_theta": ("rotary_emb_base",),
    "sliding_window_pattern": ("_sliding_window_pattern",),
}

# What only training, other heads, other software or generation look at.
IGNORED = frozenset(
    (
        *("architectures", "auto_map", "model_type", "name_or_path", "_name_or_path", "transformers_version", "dtype"),
        *("torch_dtype", "tokenizer_class", "_attn_implementation", "_attn_implementation_autoset", "attn_implementation"),
        *("use_cache", "cache_implementation", "torchscript", "return_dict", "use_return_dict", "output_hidden_states"),
        *("output_attentions", "chunk_size_feed_forward", "pretraining_tp", "gradient_checkpointing", "initializer_range"),
        *("initializer_factor", "init_std", "task_specific_params", "problem_type", "id2label", "label2id", "is_decoder"),
        *("attention_dropout", "attn_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout"),
        *(
            "residual_dropout",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "embedding_dropout",
            "classifier_dropout",
            "summary_type",
            "summary_use_proj",
        ),
        *("summary_activation", "summary_proj_to_labels", "summary_first_dropout", "bos_token_id", "eos_token_id"),
        *("pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id", "n_ctx", "reorder_and_upcast_attn"),
        *("max_window_layers", "max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "typical_p"),
        *("num_beams", "num_return_sequences", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
        *("early_stopping", "suppress_tokens", "begin_suppress_tokens", "unsloth_version", "unsloth_fixed"),
        *("transformers.js_config", "model_max_length", "finetuning_task", "prefix", "tf_legacy_loss", "remove_invalid_values"),
        *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "exponential_decay_length_penalty", "output_scores"),
        *("diversity_penalty", "num_beam_groups", "encoder_no_repeat_ngram_size", "return_dict_in_generate"),
        *("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "use_parallel_embedding"),
    )
)

# Fields with the values at which they change nothing; null counts as absent.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "full_attn_mod": (1,),
    "interpolate_factor": (1,),
    "is_llama_config": (True,),
    "lm_head_bias": (False,),
    "mlp_type": ("default",),
    "norm_type": ("layer_norm",),
    "order_of_interleaved_layers": ("local_attn_first",),
    "position_embedding_type": ("absolute", "rope_gptj"),  # the only ones that models of these types have
    "rope_interleaved": (False,),
    "use_embedding_sharing": (True,),
    "use_gated_activation": (True,),
    "use_mrope": (False,),
    "use_parallel_block": (True,),
    "add_cross_attention": (False,),
    "attention_bias": (False,),
    "attn_logit_softcapping": (0, 0.0),
    "is_encoder_decoder": (False,),
    "mlp_bias": (False,),
    "pruned_heads": ({},),
    "qk_layernorm": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
    "tie_encoder_decoder": (False,),
    "tie_word_embeddings": (True,),  # of a whole model, beside the same of its text part
    "use_bfloat16": (False,),
    "use_bidirectional_attention": (False,),
    "use_qk_norm": (False,),
    "use_sliding_window": (False,),
}
