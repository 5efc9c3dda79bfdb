# SPDX-License-Identifier: Apache-2.0
"""Memory of published sizes: GGUF files of TinyLlama-1.1B and Phi-2 with random weights, in Q4_0 and Q4_K. Each is inspected in
one process and loaded and run in another, whose peak resident memory is held against what `inspect` promised.

    python benchmarks/synthetic.py [--model tinyllama-1.1b] [--type Q4_K] [--folder FOLDER]    # each may come twice

With --folder the files stay, and run.py measures speed on them.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import machine
import numpy as np
import report

import slm

HERE = Path(__file__).parent
PROMPT_TOKENS = 64
NEW_TOKENS = 64
CONTEXT = PROMPT_TOKENS + NEW_TOKENS
BOUND = 0.05  # how far the peak may be from the promise, as a share of it
TYPES = {"Q4_0": gguf.GGMLQuantizationType.Q4_0, "Q4_K": gguf.GGMLQuantizationType.Q4_K}
F32 = gguf.GGMLQuantizationType.F32


@dataclass(frozen=True)
class Size:
    """A model's shapes: `metadata` without the architecture in front, `vectors` and `matrices` by name; "blk" once per layer."""

    architecture: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    metadata: dict[str, float]
    matrices: dict[str, tuple[int, int]]
    vectors: dict[str, int] = field(default_factory=dict)


def llama(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, vocab: int) -> Size:
    kv = hidden // heads * kv_heads
    matrices = {
        "token_embd.weight": (vocab, hidden),
        "output.weight": (vocab, hidden),
        "blk.attn_q.weight": (hidden, hidden),
        "blk.attn_k.weight": (kv, hidden),
        "blk.attn_v.weight": (kv, hidden),
        "blk.attn_output.weight": (hidden, hidden),
        "blk.ffn_gate.weight": (intermediate, hidden),
        "blk.ffn_up.weight": (intermediate, hidden),
        "blk.ffn_down.weight": (hidden, intermediate),
    }
    vectors = dict.fromkeys(("output_norm.weight", "blk.attn_norm.weight", "blk.ffn_norm.weight"), hidden)
    metadata = {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10_000.0}
    return Size("llama", layers, hidden, intermediate, heads, kv_heads, vocab, metadata, matrices, vectors)


def phi2(layers: int, hidden: int, intermediate: int, heads: int, rotary: int, vocab: int) -> Size:
    matrices = {
        "token_embd.weight": (vocab, hidden),
        "output.weight": (vocab, hidden),
        **{f"blk.attn_{name}.weight": (hidden, hidden) for name in ("q", "k", "v", "output")},
        "blk.ffn_up.weight": (intermediate, hidden),
        "blk.ffn_down.weight": (hidden, intermediate),
    }
    norms = ("output_norm.weight", "output_norm.bias", "blk.attn_norm.weight", "blk.attn_norm.bias")
    biases = {name.replace("weight", "bias"): rows for name, (rows, _) in matrices.items() if name != "token_embd.weight"}
    metadata = {"attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": rotary}
    return Size(
        "phi2", layers, hidden, intermediate, heads, heads, vocab, metadata, matrices, dict.fromkeys(norms, hidden) | biases
    )


SIZES = {
    "tinyllama-1.1b": llama(22, 2048, 5632, 32, 4, 32_000),
    "phi-2": phi2(32, 2560, 10_240, 32, 32, 51_200),
}


def tensors(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in (size.matrices | {name: (n,) for name, n in size.vectors.items()}).items():
        for i in range(size.layers if name.startswith("blk.") else 1):
            yield name.replace("blk.", f"blk.{i}."), shape


def row_bytes(kind: gguf.GGMLQuantizationType, cols: int) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return cols // block * block_bytes


def random_blocks(rng: np.random.Generator, kind: gguf.GGMLQuantizationType, rows: int, cols: int) -> np.ndarray:
    """[rows, bytes]: uniform codes under a scale that makes a row's product with a normalised vector about 1."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * cols // block, block_bytes), np.uint8)
    scale = 1 / (4.6 * math.sqrt(cols))
    if kind == TYPES["Q4_0"]:
        blocks[:, :2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    else:  # every group's 6-bit scale and minimum are 32, which makes the values those of Q4_0 around their mean
        blocks[:, :4] = np.frombuffer(np.array([scale / 32, 7.5 * scale / 32], np.float16).tobytes(), np.uint8)
        blocks[:, 4:12], blocks[:, 12:16] = 32 | 2 << 6, 0
    return blocks.reshape(rows, -1)


def add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Bytes and pairs of bytes: some peers load no model without."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(i) for i in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    pairs = [(a, b) for a in letters for b in letters][: size - len(letters)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*letters, *map("".join, pairs)])
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_token_merges([f"{a} {b}" for a, b in pairs])


def write(path: Path, size: Size, kind: gguf.GGMLQuantizationType = TYPES["Q4_0"]) -> None:
    """One tensor at a time is in memory."""
    writer = gguf.GGUFWriter(path, size.architecture)
    writer.add_context_length(2048)
    writer.add_vocab_size(size.vocab)
    add_vocabulary(writer, size.vocab)
    writer.add_block_count(size.layers)
    writer.add_embedding_length(size.hidden)
    writer.add_feed_forward_length(size.intermediate)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.kv_heads)
    for key, value in size.metadata.items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
        add(f"{size.architecture}.{key}", value)
    for name, shape in tensors(size):
        if len(shape) == 2:
            stored = (shape[0], row_bytes(kind, shape[1]))
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), math.prod(stored), kind)
        else:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0], F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(0)
    for name, shape in tensors(size):
        if len(shape) == 2:
            data = random_blocks(rng, kind, *shape)
        else:
            data = np.full(shape, name.endswith("norm.weight"), np.float32)
        writer.write_tensor_data(data)
    writer.close()


# ---- each in a process of its own -------------------------------------------------------------------------------------


def promise(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """What `inspect` says, in bytes."""
    info = slm.inspect(path, context=CONTEXT, **options)
    parts = {name: getattr(info, f"{name}_bytes") for name in ("process", "weight", "load", "kv", "workspace", "file")}
    return parts | {"promised": info.memory_bytes, "fits": info.fits}


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def measure(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Load, generate, and what was resident at most after each."""
    prompt = np.random.default_rng(0).integers(0, 250, PROMPT_TOKENS).tolist()
    start = time.perf_counter()
    with slm.load(path, context=CONTEXT, **options) as model:
        load = time.perf_counter() - start
        loaded = peak_bytes()
        output = model.generate(prompt, max_tokens=NEW_TOKENS, ignore_eos=True)
        if len(output.tokens) != NEW_TOKENS:
            raise RuntimeError(f"{len(output.tokens)} of {NEW_TOKENS} tokens")
    return {
        "peak_loaded": loaded,
        "peak": peak_bytes(),
        "load_seconds": load,
        "decode": (NEW_TOKENS - 1) / output.timings.decode_seconds,
    }


def run(path: Path, **options: Any) -> dict[str, Any]:
    """promise() and measure() of a model loaded with these options, each in a process of its own."""
    results: dict[str, Any] = {}
    for what in ("promise", "measure"):
        command = [sys.executable, __file__, what, str(path), json.dumps(options)]
        results |= json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return results


# ---- the table --------------------------------------------------------------------------------------------------------


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown; MB are 10^6 bytes."""

    def mb(count: int) -> str:
        return f"{count / 1e6:.0f}"

    lines = [
        "| model | file MB | process | weights | KV | workspace | promised | peak | peak / promised | peak of load | load s |",
        "| --- " * 11 + "|",
    ]
    for name, r in results.items():
        parts = [mb(r[key]) for key in ("file", "process", "weight", "kv", "workspace", "promised", "peak")]
        ratio = f"{r['peak'] / r['promised']:.3f}"
        lines.append(f"| {' | '.join([name, *parts, ratio, mb(r['peak_loaded']), format(r['load_seconds'], '.2f')])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=SIZES, action="append", help="default: all")
    parser.add_argument("--type", choices=TYPES, action="append", help="default: both")
    parser.add_argument("--folder", type=Path, help="where the files are made and kept (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, kind in itertools.product(args.model or SIZES, args.type or TYPES):
            path = folder / f"{name}-{kind.lower()}-synthetic.gguf"
            if not path.exists():
                write(path, SIZES[name], TYPES[kind])
            results[f"{name}, {kind}"] = run(path)
    here = machine.describe()
    text = (
        f"# Peak memory against `slm.inspect`, random weights, {here['date']}\n\n{here['cpu']}, commit {here['commit']}, "
        f"context {CONTEXT}, {PROMPT_TOKENS} tokens in and {NEW_TOKENS} out\n\n{table(results)}\n"
    )
    report.publish(args.out, f"{str(here['date'])[:10]}-memory-{machine.slug(str(here['cpu']))}", text)
    wrong = [name for name, r in results.items() if abs(r["peak"] / r["promised"] - 1) > BOUND or not r["fits"]]
    sys.exit(f"further than {BOUND:.0%} from the promise: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] in (["promise"], ["measure"]):
        print(json.dumps({"promise": promise, "measure": measure}[sys.argv[1]](sys.argv[2], json.loads(sys.argv[3]))))
    else:
        main()
