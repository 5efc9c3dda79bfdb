# SPDX-License-Identifier: Apache-2.0
"""The commands that answer nothing: they show models, scores and tokens."""

import argparse
import json
from dataclasses import asdict
from math import isnan
from typing import Any

import slm
from slm.cli.console import from_json, given_text, printable
from slm.cli.loading import load_options, open_model, refuse_model
from slm.errors import quoted


def models(args: argparse.Namespace) -> None:
    from slm.hub import known_models
    from slm.info import short_bytes

    rows = [("NAME", "SIZE", "CACHED", "LICENCE", "DESCRIPTION")]
    rows += [(m.name, short_bytes(m.size), str(m.path) if m.cached else "no", m.licence, m.description) for m in known_models()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def inspect(args: argparse.Namespace) -> None:
    info = slm.inspect(args.source, **load_options(args))
    for name, value in info.rows().items():
        print(f"{name + ':':<12}{value}")


def score(args: argparse.Namespace) -> None:
    if args.stride is not None and not args.perplexity:
        raise ValueError("--stride is for --perplexity")
    refuse_model(args.file)
    path = None if args.file in (None, "-") else args.file
    text = given_text(args.file if path is None else None, "text" if args.perplexity else "list of pairs", path)
    if args.perplexity:
        with open_model(args) as model:
            perplexity = model.perplexity(text, stride=args.stride)
        record = {name: None if isnan(value) else value for name, value in asdict(perplexity).items()}  # JSON has no NaN
        print(json.dumps(record) if args.json else perplexity)
        return
    pairs = [read_pair(line, i) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    with open_model(args) as model:
        for scored in model.score(pairs):
            shown = printable(repr("".join(scored.pieces) or scored.tokens))
            mark = "greedy" if scored.is_greedy else ""
            print(json.dumps(asdict(scored)) if args.json else f"{scored.logprob:>12.4f}  {mark:<6}  {shown}")


def read_pair(line: str, number: int) -> tuple[Any, Any]:
    pair = from_json(line, f"line {number}")
    if isinstance(pair, dict) and pair.keys() >= {"context", "continuation"}:
        return pair["context"], pair["continuation"]
    if isinstance(pair, list) and len(pair) == 2:
        return pair[0], pair[1]
    raise ValueError(f'line {number} must be {{"context": ..., "continuation": ...}} or [context, continuation]')


def tokenize(args: argparse.Namespace) -> None:
    text = given_text(args.text, "text", args.file)
    refuse_model(args.text)
    tokenizer = slm.load_tokenizer(args.model, revision=args.revision, offline=args.offline)
    if args.decode:
        if args.parse_special or args.no_special_tokens:
            raise ValueError("--parse-special and --no-special-tokens are not for --decode")
        print(printable(tokenizer.decode(read_ids(text))))
        return
    options = {"parse_special": args.parse_special, "add_special_tokens": not args.no_special_tokens}
    ids, spans = tokenizer.encode_with_offsets(text, **options)
    if args.ids:
        print(*ids)
        return
    for id, (start, end) in zip(ids, spans, strict=True):
        piece = tokenizer.token_bytes(id)
        if args.json:
            print(json.dumps({"id": id, "piece": piece.decode("utf-8", "backslashreplace"), "start": start, "end": end}))
        else:
            print(f"{id:>8}  {piece.decode('utf-8', 'backslashreplace')!r}")


def read_ids(text: str) -> list[int]:
    """Ids as --ids prints them, or as a list in Python or JSON."""
    words = text.replace(",", " ").strip(" []\n").split()
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise ValueError(f"--decode takes token ids, not {quoted(wrong)}")
    return [int(word) for word in words]
