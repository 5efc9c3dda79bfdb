# SPDX-License-Identifier: Apache-2.0
"""How far engines are from fp32 arithmetic on the same weights: mean KL divergence on English text that no model has seen.

    python benchmarks/accuracy.py [--model FILE] [--threads N]

The text is held_out.txt, written for this purpose, a paragraph at a time; every position counts, and all engines get the same
token ids. The reference is transformers in float32 on the dequantized tensors of the file, the folder that convert.py makes. Each
engine runs in a process of its own.
"""

import argparse
import importlib
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import convert
import machine
import numpy as np
import report
from engines import VARIANTS, Variant
from run import HERE, child, choose

import slm
from slm import hub

TEXT = HERE / "held_out.txt"
ROWS = 32  # positions that are compared at once: a vocabulary may have 262,144 entries
CLEAR = 0.5  # nat by which the reference's most likely token leads where it is sure
REFERENCE = "PyTorch, f32"
ENGINES = {
    REFERENCE: Variant("torch_engine", "transformers", convert.FOLDER, {"dtype": "float32"}),
    "slm": VARIANTS["slm"],
    'slm, precision="high"': Variant("slm_engine", "slm", options={"precision": "high"}),
    'slm, kv="int8"': Variant("slm_engine", "slm", options={"kv": "int8"}),
    **{name: VARIANTS[name] for name in ("llama.cpp", "llama.cpp, no flash attention")},
    **{name: VARIANTS[name] for name in ("OpenVINO GenAI, int8", "OpenVINO GenAI, int8, groups of 32", "PyTorch, bf16")},
}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (np.exp(p) * (p - q)).sum(axis=1)


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """In a child. The reference writes its logits, a file a text; what follows is compared with them."""
    module = importlib.import_module(f"engines.{task['module']}")
    engine = module.Engine(task["path"], task["threads"], max(map(len, task["texts"])), **task["options"])
    found: dict[str, Any] = {"version": engine.version, "kl": [], "same": [], "clear": []}
    for i, ids in enumerate(task["texts"]):
        logits, file = engine.logits(ids), Path(task["folder"]) / f"{i}.npy"
        if task["writes"]:
            np.save(file, logits)
            continue
        reference = np.load(file, mmap_mode="r")
        for row in range(0, len(ids), ROWS):
            p, q = log_softmax(reference[row : row + ROWS]), log_softmax(logits[row : row + ROWS])
            found["kl"] += divergence(p, q).tolist()
            found["same"] += (p.argmax(axis=1) == q.argmax(axis=1)).tolist()
            second, first = np.partition(p, -2, axis=1)[:, -2:].T
            found["clear"] += (first - second > CLEAR).tolist()
    return found


def table(result: dict[str, Any]) -> str:
    here = result["machine"]
    lines = [
        f"# Accuracy, {result['model']}, {here['date']}",
        "",
        f"{here['cpu']}, {result['threads']} threads, commit {here['commit']}. KL(reference || engine) in nat over the whole "
        f"vocabulary, at {result['positions']} positions of {result['texts']} English texts, one run. The reference: "
        f"{result['reference']}, in float32 on the dequantized tensors. Sure: where its most likely token leads by more than "
        f"{CLEAR} nat.",
        "",
        "| engine | mean KL | largest | same token | where sure |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, found in result["engines"].items():
        kl, same, clear = (np.array(found[what]) for what in ("kl", "same", "clear"))
        lines.append(f"| {name} | {kl.mean():.3g} | {kl.max():.3g} | {same.mean():.1%} | {same[clear].mean():.1%} |")
    lines += ["", *(f"- {name}: {found['version']}" for name, found in result["engines"].items())]
    lines += [f"- {name}: left out, {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="of every engine (default: slm's choice)")
    parser.add_argument("--cache", type=Path, default=convert.DEFAULT_CACHE, help="of convert.py (default: %(default)s)")
    parser.add_argument("--run-under", type=shlex.split, default=[], metavar="PREFIX", help="a command that runs each engine")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    path, here = Path(hub.resolve(args.model).path), machine.describe()
    threads = args.threads or slm.cpu_info()["threads"]
    paths, left_out = choose(ENGINES, path, args.cache)
    if REFERENCE in left_out:
        sys.exit(f"no reference: {left_out[REFERENCE]}")
    texts = slm.load_tokenizer(path).encode_batch(TEXT.read_text(encoding="utf-8").strip().split("\n\n"))
    engines = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, file in paths.items():
            variant = ENGINES[name]
            task = {"module": variant.module, "options": variant.options, "path": file, "threads": threads, "texts": texts}
            task |= {"folder": folder, "writes": name == REFERENCE}
            engines[name] = child("accuracy.py", json.dumps(task), args.run_under, variant.environment)
    result = {
        "model": path.name,
        "machine": here,
        "threads": threads,
        "positions": sum(map(len, texts)),
        "texts": len(texts),
        "reference": engines.pop(REFERENCE)["version"],
        "left_out": left_out,
        "engines": engines,
    }
    text = table(result)
    target = f"{str(here['date'])[:10]}-accuracy-{path.stem}"
    report.publish(args.out, target, text)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):  # a child of ours
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main()
