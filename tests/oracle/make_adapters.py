# SPDX-License-Identifier: Apache-2.0
"""Make tests/data/oracle/adapter_*.npz: LoRA adapters of the models of make_families.py, run by PEFT in float32.

    pip install ".[oracle]" peft && python tests/oracle/make_adapters.py [adapter ...]

Each file holds what PEFT's save_pretrained wrote, `config` (the text of adapter_config.json) and the tensors of
adapter_model.safetensors as float16 (exact: all are multiples of 1/64), the name of the `family`, and the logits [n_tokens,
vocab_size] of the first input ids of its file.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import peft
import torch
import transformers
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent.parent))
from folder_writer import write_folder

OUT = Path(__file__).parent.parent / "data" / "oracle"
N_TOKENS = 24


class Adapter(NamedTuple):
    family: str
    config: Mapping[str, Any]  # of peft.LoraConfig


ADAPTERS = {
    "qwen2": Adapter("qwen2", {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}),
    "llama": Adapter(
        "llama_3_scaling",
        {
            "r": 6, "lora_alpha": 3, "use_rslora": True,
            "target_modules": ["q_proj", "k_proj", "down_proj", "embed_tokens", "lm_head"],
        },
    ),
    "gpt2": Adapter(
        "gpt2", {"r": 4, "lora_alpha": 4, "target_modules": ["c_attn", "c_proj", "c_fc", "wte"], "fan_in_fan_out": True}
    ),
    "gptneox": Adapter("gptneox", {"r": 3, "lora_alpha": 6, "target_modules": ["query_key_value", "dense_4h_to_h", "embed_out"]}),
    "phi3": Adapter(
        "phi3",
        {
            "r": 5, "lora_alpha": 10, "target_modules": ["qkv_proj", "gate_up_proj", "o_proj", "down_proj"],
            "rank_pattern": {"layers.1.mlp.gate_up_proj": 17, "^model.layers.0.self_attn.qkv_proj": 2},
            "alpha_pattern": {r"layers\.[0-9]\.mlp.*": 3, "o_proj": 1},
        },
    ),
    "gemma": Adapter("gemma", {"r": 4, "lora_alpha": 2, "target_modules": ["embed_tokens", "lm_head", "v_proj", "up_proj"]}),
}  # fmt: skip


def make(adapter: Adapter) -> dict[str, np.ndarray]:
    with np.load(OUT / f"family_{adapter.family}.npz") as file:
        base = {key: file[key] for key in file}
    config, ids = json.loads(str(base["config"])), base["ids"]
    arrays = {key: value for key, value in base.items() if key.endswith((".weight", ".bias"))}
    arrays = {key: value for key, value in arrays.items() if not key.startswith("gguf")}
    with TemporaryDirectory() as folder:
        path = write_folder(Path(folder) / "model", config, arrays)
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            plain = model(torch.tensor(ids[None, :N_TOKENS]).long()).logits[0].numpy()
        tuned = peft.get_peft_model(model, peft.LoraConfig(**adapter.config))
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:  # also B, and A of embeddings, which PEFT makes of zeros
                torch.nn.init.normal_(parameter, std=0.2)
                parameter.data = (parameter.data * 64).round() / 64
        tuned.save_pretrained(Path(folder) / "adapter", save_embedding_layers=False)
        with torch.no_grad():
            logits = tuned.eval()(torch.tensor(ids[None, :N_TOKENS]).long()).logits[0].numpy()
        np.testing.assert_allclose(plain, base["logits"][:N_TOKENS], rtol=1e-4, atol=1e-4)  # it is the model of the file
        assert np.abs(logits - plain).max() > 0.1 * np.abs(plain).max()
        tensors = load_file(Path(folder) / "adapter" / "adapter_model.safetensors")
        written = json.loads((Path(folder) / "adapter" / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = f"made/{adapter.family}"  # else a temporary folder
    stored = {key: value.astype(np.float16) for key, value in tensors.items()}
    assert all((stored[key] == value).all() for key, value in tensors.items())
    return stored | {"config": np.array(json.dumps(written)), "family": np.array(adapter.family), "logits": logits}


def main() -> None:
    made_with = f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    for seed, (name, adapter) in enumerate(ADAPTERS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(seed)
        arrays = make(adapter)
        path = OUT / f"adapter_{name}.npz"
        np.savez_compressed(path, made_with=made_with, **arrays)
        print(f"{path.name}: {path.stat().st_size} bytes, largest logit {np.abs(arrays['logits']).max():.1f}")


if __name__ == "__main__":
    main()
