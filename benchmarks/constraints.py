# SPDX-License-Identifier: Apache-2.0
"""What constraints cost: compile times, and generations under the schemas of tests/schemas.py against the same without.

    python benchmarks/constraints.py [--model NAME] [--threads N] [--count 50]

Of each schema: one answer by chat at temperature 0.8, which meets states that no other has met; `count` answers as one batch,
held against `jsonschema`; then the first one again, and as many tokens of plain text behind the same prompt.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median, stdev

import jsonschema
import machine
import report

import slm
from slm import hub

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))
from schemas import SCHEMAS  # noqa: E402

SAMPLED = {"temperature": 0.8, "seed": 1}
ANY_TEXT = r"(.|\n)*"


def milliseconds(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, 1e3 * (time.perf_counter() - start)


def token_time(model: slm.Model, question: str, **options) -> tuple[int, float]:
    """Tokens, and milliseconds for each but the first."""
    output = model.chat(question, **SAMPLED, **options)
    return len(output.tokens), 1e3 * output.timings.decode_seconds / max(1, len(output.tokens) - 1)


def overhead(model: slm.Model, rounds: int) -> list[tuple[str, float, float]]:
    """Of a constraint that lets all text pass, and with it nearly all tokens: the time of a token over that without, median of
    pairs in turns, and its standard error (1.25 times that of a mean, as for normal deviates)."""
    free = slm.regex(ANY_TEXT)
    ratios = []
    for name, more in [("greedy", {"temperature": 0.0}), ("temperature 0.8", {}), ("temperature 0.8, top_k 40", {"top_k": 40})]:
        options = {**SAMPLED, "max_tokens": 64, "ignore_eos": True, **more}
        pairs = []
        for _ in range(rounds + 1):
            outputs = [model.generate("Once upon a time", constrain=constrain, **options) for constrain in (None, free)]
            plain, constrained = (output.timings.decode_seconds for output in outputs)
            pairs.append(constrained / plain)
        ratios.append((name, median(pairs[1:]), 1.25 * stdev(pairs[1:]) / rounds**0.5))  # the first one fills caches
    return ratios


def shown(time_of_token: float) -> str:
    return f"{time_of_token:.2f}" if time_of_token else "-"  # a single token has no time but that of its prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="default: slm's choice")
    parser.add_argument("--count", type=int, default=50, help="generations under each schema (default: 50)")
    parser.add_argument("--rounds", type=int, default=41, help="of what is measured in turns (default: 41)")
    parser.add_argument("--max-tokens", type=int, default=400, help="of a generation (default: 400)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    path = hub.resolve(args.model).path
    here = machine.describe()
    rows, n_all, n_length = [], 0, 0
    with slm.load(path, threads=args.threads or None, context=1000) as model:
        threads = args.threads or slm.cpu_info()["threads"]
        _, trie = milliseconds(slm.regex("a")._over, model.tokenizer)
        ratios = overhead(model, args.rounds)
        for question, schema in SCHEMAS:
            constraint, compiled = milliseconds(slm.json, schema)
            first, first_time = token_time(model, question, constrain=constraint, max_tokens=args.max_tokens)
            outputs = model.chat(question, constrain=constraint, max_tokens=args.max_tokens, n=args.count, **SAMPLED)
            for output in outputs:
                if output.finish_reason == "stop":
                    jsonschema.validate(json.loads(output.text), schema)
            length = sum(output.finish_reason == "length" for output in outputs)
            n_all, n_length = n_all + len(outputs), n_length + length
            again = [token_time(model, question, constrain=constraint, max_tokens=args.max_tokens)[1] for _ in range(3)]
            plain = [token_time(model, question, max_tokens=max(first, 2), ignore_eos=True)[1] for _ in range(3)]
            size, states = len(json.dumps(schema)), constraint._automaton.n_states
            rows.append([size, states, compiled, first, first_time, median(again), median(plain), length])
    lines = [
        f"# Constraints, {path.name}, {here['date']}",
        "",
        f"{here['cpu']}, {threads} threads, commit {here['commit']}. {n_all} generations under {len(SCHEMAS)} schemas, "
        f"{args.count} of each as one batch at temperature 0.8: all that ended by themselves valid by jsonschema, {n_length} "
        f"ended by length ({args.max_tokens} tokens). The trie of the vocabulary, once for a tokenizer: {trie:.0f} ms.",
        "",
        "A token under a constraint that lets all text pass takes "
        + ", ".join(f"{ratio:.3f} +- {error:.3f} ({name})" for name, ratio, error in ratios)
        + f" times one without: medians of {args.rounds} pairs in turns, with their standard errors.",
        "",
        "ms a token but the first: of the first answer under its schema, again (median of 3), and of plain text of that length.",
        "",
        "| schema, characters | states | compile, ms | tokens | ms a token, first | again | plain | ended by length |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {size} | {states} | {compiled:.1f} | {tokens} | {shown(first)} | {shown(again)} | {plain:.2f} | {length} |"
        for size, states, compiled, tokens, first, again, plain, length in rows
    ]
    report.publish(args.out, f"{here['date'][:10]}-constraints-{path.stem}", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
