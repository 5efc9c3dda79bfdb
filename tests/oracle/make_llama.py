# SPDX-License-Identifier: Apache-2.0
"""Make tests/data/oracle/llama_*.npz: small random Llama models run by Transformers (5 or later) in float32.

    pip install ".[oracle]" && python tests/oracle/make_llama.py

Each file holds the config (JSON), every parameter under its Transformers name as float16 (exact: the model's parameters are
rounded to float16 before it runs), the input ids and the logits [n_tokens, vocab_size] of every position.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).parent.parent / "data" / "oracle"
N_TOKENS = 80  # more than one cache page of 64

# Sizes that find off-by-one tiles: a vocabulary that is no multiple of 16, widths that are no multiple of 64.
VARIANTS = {
    "gqa_tied": {
        "vocab_size": 259,
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    "mha_untied": {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
    "mqa_wide_heads": {  # heads * head_dim is four times hidden_size
        "vocab_size": 131,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
    "gqa_three_to_one": {  # the head shape of SmolLM2
        "vocab_size": 259,
        "hidden_size": 96,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
}


def randomize(model: LlamaForCausalLM) -> None:
    """Parameters larger than a training start has them, so that attention is peaked and every branch moves the logits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "embed_tokens" in name or "lm_head" in name:
                parameter.normal_(0, 0.5)
            else:
                parameter.normal_(0, 1.5 * parameter.shape[1] ** -0.5)
            parameter.copy_(parameter.half().float())


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for seed, (name, sizes) in enumerate(VARIANTS.items()):
        torch.manual_seed(seed)
        rope_theta = sizes["rope_theta"]
        model = LlamaForCausalLM(
            LlamaConfig(
                **{key: value for key, value in sizes.items() if key != "rope_theta"},
                rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
                max_position_embeddings=128,
                attn_implementation="eager",
            )
        ).eval()
        expected = rope_theta ** (-torch.arange(0, sizes["head_dim"], 2) / sizes["head_dim"])
        torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)  # the config's spelling was understood
        randomize(model)
        ids = torch.randint(0, sizes["vocab_size"], (1, N_TOKENS))
        ids[0, -1] = sizes["vocab_size"] - 1
        with torch.no_grad():
            logits = model(ids).logits[0].numpy()
        arrays = {key: value.detach().numpy().astype(np.float16) for key, value in model.named_parameters()}
        config = {
            **sizes,
            "max_position_embeddings": 128,
            "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        }
        path = OUT / f"llama_{name}.npz"
        np.savez_compressed(path, config=json.dumps(config), ids=ids[0].numpy().astype(np.int32), logits=logits, **arrays)
        print(f"{path.name}: {path.stat().st_size} bytes, largest logit {np.abs(logits).max():.1f}")


if __name__ == "__main__":
    main()
