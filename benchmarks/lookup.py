# SPDX-License-Identifier: Apache-2.0
"""What prompt lookup gives: decoding with `draft="lookup"` against plain greedy decoding of the same tokens, on texts that repeat
much, something, and nothing of what came before.

    python benchmarks/lookup.py [--model NAME] [--threads N] [--rounds 11]
"""

import argparse
from pathlib import Path
from statistics import median

import machine
import report

import slm
from slm import hub

HERE = Path(__file__).parent
TOKENS = 160
PASSAGE = (HERE / "held_out.txt").read_text(encoding="utf-8").split("\n\n")[0]
TASKS = {
    "a list of like entries": 'Write a JSON list of the twelve months, each such as {"month": "January", "days": 31}.',
    "a passage copied": f"Repeat this text word by word:\n\n{PASSAGE}",
    "a story": "Write a story about a lighthouse keeper who finds a bottle in the sand.",
}


def pair(model: slm.Model, question: str) -> tuple[slm.Output, slm.Output]:
    plain, drafted = (model.chat(question, max_tokens=TOKENS, draft=draft) for draft in (None, "lookup"))
    if plain.tokens != drafted.tokens:
        raise RuntimeError(f"other tokens: {plain.text!r} and {drafted.text!r}")
    return plain, drafted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="default: slm's choice")
    parser.add_argument("--rounds", type=int, default=11, help="default: 11")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    path, here = hub.resolve(args.model).path, machine.describe()
    threads = args.threads or slm.cpu_info()["threads"]
    lines = [
        f"# Prompt lookup, {path.name}, {here['date']}",
        "",
        f"{here['cpu']}, {threads} threads, commit {here['commit']}: answers of at most {TOKENS} tokens, greedy, with "
        f'`draft="lookup"` and without, {args.rounds} pairs in turn. Medians; of the ratio within a pair the range too.',
        "",
        "| text | tokens | of them guessed | guesses | plain tok/s | lookup tok/s | times plain |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    with slm.load(path, threads=threads) as model:
        for name, question in TASKS.items():
            pair(model, question)  # fills caches
            pairs = [pair(model, question) for _ in range(args.rounds)]
            rates = [[output.timings.decode_tokens_per_second for output in outputs] for outputs in pairs]
            plain, drafted = map(median, zip(*rates, strict=True))
            gains = [with_ / without for without, with_ in rates]
            usage = pairs[0][1].usage
            counts = f"{usage.completion_tokens} | {usage.accepted_tokens} | {usage.drafted_tokens}"
            gain = f"{median(gains):.2f} ({min(gains):.2f} to {max(gains):.2f})"
            lines.append(f"| {name} | {counts} | {plain:.0f} | {drafted:.0f} | {gain} |")
    report.publish(args.out, f"{str(here['date'])[:10]}-lookup-{path.stem}", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
