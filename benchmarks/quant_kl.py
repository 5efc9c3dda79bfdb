# SPDX-License-Identifier: Apache-2.0
"""What int8 activations cost, type by type: the KL divergence of slm from fp32 arithmetic on the same dequantized weights.

    pip install llama-cpp-python
    python benchmarks/quant_kl.py [--model FILE] [--out FOLDER] [TYPE ...]

llama.cpp's quantizer requantizes the model into each type, and back into F32, whose logits by slm in f32 are the reference; so
neither the blocks nor their values are slm's own work. Prints a Markdown table and writes it to `results/`.
"""

import argparse
import collections
import json
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import machine
import numpy as np
import report
from accuracy import divergence, log_softmax

import slm
from slm import hub

ROOT = Path(__file__).parent
PROMPTS = ROOT.parent / "tests" / "data" / "reference" / "smollm2-135m-instruct-q4_1.json"
TYPES = ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS"]
HEADER = """\
# KL divergence per block type

{model}, requantized by llama.cpp (llama-cpp-python {version}, "pure") into each type, on {cpu}, commit {commit}.
Types with blocks of 256 go where rows are whole blocks; the column "matrices" tells what llama.cpp chose elsewhere.

KL(fp32 || engine) in nat over the whole vocabulary, over {n} positions of {n_texts} texts. The fp32 logits are slm's on the
same file dequantized to F32 by llama.cpp. "Same top": positions with the same most likely token, and of those where fp32 leads by
more than 0.5 nat ("clear"). "Requantizing" is the KL divergence of that F32 file from the one before requantizing: what
the type itself loses. Made by `python benchmarks/quant_kl.py`.

| type | bits a weight in memory | slm: mean KL | largest | same top | clear ones | llama.cpp: mean KL | requantizing | matrices |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""


def quantize(source: Path, target: Path, name: str) -> None:
    ftype = "ALL_F32" if name == "F32" else f"MOSTLY_{name}{'_S' if name in ('Q3_K', 'Q4_K', 'Q5_K') else ''}"
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{ftype}")
    params.pure = name != "F32"
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise SystemExit(f"llama.cpp cannot quantize {source} to {name}")


def by_slm(path: Path, texts: list[list[int]]) -> tuple[np.ndarray, int]:
    """Log-probabilities [positions, vocab_size] and the bytes of the packed weights."""
    with slm.load(path) as model:
        logits = np.concatenate([model.forward(ids, logits="all").logits for ids in texts])
        return log_softmax(logits), model.info.weight_bytes


def by_llama_cpp(path: Path, texts: list[list[int]]) -> np.ndarray:
    model = llama_cpp.Llama(str(path), n_ctx=512, logits_all=True, verbose=False)
    logits = []
    for ids in texts:
        model.reset()
        model.eval(ids)
        logits.append(np.array(model.scores[: len(ids)], np.float32))
    model.close()
    return log_softmax(np.concatenate(logits))


def measure(name: str, source: Path, original: np.ndarray, texts: list[list[int]], folder: Path) -> str:
    path, plain = folder / f"{name}.gguf", folder / f"{name}-f32.gguf"
    quantize(source, path, name)
    quantize(path, plain, "F32")
    reference, _ = by_slm(plain, texts)
    plain.unlink()
    found, weight_bytes = by_slm(path, texts)
    other = by_llama_cpp(path, texts)
    tensors = [tensor for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) == 2]
    path.unlink()
    kinds = collections.Counter(tensor.tensor_type.name for tensor in tensors)
    bits = 8 * weight_bytes / sum(int(tensor.n_elements) for tensor in tensors)
    kl, top = divergence(reference, found), found.argmax(axis=1) == reference.argmax(axis=1)
    best = np.sort(reference, axis=1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > 0.5
    return (
        f"| {name} | {bits:.2f} | {kl.mean():.5f} | {kl.max():.4f} | {top.mean():.2%} | {top[clear].mean():.2%} | "
        f"{divergence(reference, other).mean():.5f} | {divergence(original, reference).mean():.4f} | "
        f"{', '.join(f'{count} {kind}' for kind, count in kinds.most_common())} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that `slm models` lists")
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    parser.add_argument("types", nargs="*", metavar="TYPE", default=TYPES)
    args = parser.parse_args()
    model = hub.resolve(args.model).path
    texts = [entry["prompt_ids"] + entry["greedy_ids"] for entry in json.loads(PROMPTS.read_text(encoding="utf-8"))]
    n = sum(map(len, texts))
    here = machine.describe()
    facts = {"model": model.name, "version": llama_cpp.__version__, "cpu": here["cpu"], "commit": here["commit"]}
    text = HEADER.format(**facts, n=n, n_texts=len(texts))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.gguf"
        quantize(model, source, "F32")
        original, _ = by_slm(source, texts)
        for name in args.types:
            print(name, file=sys.stderr)
            text += measure(name, source, original, texts, Path(folder)) + "\n"
    report.publish(args.out, f"{str(here['date'])[:10]}-quant-kl", text)


if __name__ == "__main__":
    main()
