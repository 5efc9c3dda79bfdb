# SPDX-License-Identifier: Apache-2.0
"""Make tests/data/oracle/activations.npz: what layers of some of the models of make_families.py compute, by Transformers (5 or
later) in float32.

    pip install ".[oracle]" && python tests/oracle/make_activations.py

Of each model, for the ids of family_<name>.npz, `<name>/<site>` under the names of slm: inputs and outputs of attention and MLP
by hooks on those modules, of layers by hooks too, attentions by output_attentions. Only rows ROWS, of attentions as queries.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

OUT = Path(__file__).parent.parent / "data" / "oracle"
ROWS = [5, 71]
# Sequential; parallel, with one norm and with two; norms of what blocks give; a factor of that; learned positions
NAMES = ["ministral", "cohere", "gptneox", "gemma3", "granite", "gpt2"]


def load(name: str) -> tuple[Any, torch.Tensor]:
    with np.load(OUT / f"family_{name}.npz") as file:
        config = transformers.AutoConfig.for_model(**json.loads(str(file["config"])))
        config._attn_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        known = model.state_dict()
        model.load_state_dict({k: torch.from_numpy(file[k].astype(np.float32)) for k in file if k in known}, strict=False)
        model.tie_weights()
        return model, torch.from_numpy(file["ids"].astype(np.int64))[None]


def activations(name: str) -> dict[str, np.ndarray]:
    model, ids = load(name)
    body = model.base_model
    layers = next(getattr(body, attribute) for attribute in ("layers", "h") if hasattr(body, attribute))
    found: dict[str, torch.Tensor] = {}

    def watch(module: torch.nn.Module, given: str | None, gives: str) -> None:
        def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
            if given:
                found[given] = args[0] if args else kwargs["hidden_states"]
            found[gives] = output[0] if isinstance(output, tuple) else output

        module.register_forward_hook(hook, with_kwargs=True)

    for i, layer in enumerate(layers):
        attention = next(getattr(layer, a) for a in ("self_attn", "attention", "attn") if hasattr(layer, a))
        watch(attention, f"layer.{i}.attn_in", f"layer.{i}.attn_out")
        watch(layer.mlp, f"layer.{i}.mlp_in", f"layer.{i}.mlp_out")
        watch(layer, "embed" if i == 0 else None, f"layer.{i}.out")
    watch(model.get_output_embeddings(), "final_norm", "logits")
    with torch.no_grad():
        result = model(ids, use_cache=False, output_attentions=True)
    with np.load(OUT / f"family_{name}.npz") as file:
        np.testing.assert_allclose(result.logits[0].numpy(), file["logits"], rtol=1e-4, atol=1e-4)
    del found["logits"]
    arrays = {key: value[0].numpy()[ROWS] for key, value in found.items()}
    return arrays | {f"layer.{i}.attn_weights": a[0].numpy()[:, ROWS] for i, a in enumerate(result.attentions)}


def main() -> None:
    arrays = {f"{name}/{site}": array for name in NAMES for site, array in activations(name).items()}
    made_with = f"transformers {transformers.__version__}, torch {torch.__version__}"
    path = OUT / "activations.npz"
    np.savez_compressed(path, made_with=made_with, rows=np.array(ROWS), **arrays)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
