# SPDX-License-Identifier: Apache-2.0
"""Scores: which tokens a continuation is, which windows a long text is read in, and what their log-probabilities say."""

from collections.abc import Iterable, Mapping, Sequence
from math import exp, fsum, sqrt
from typing import TYPE_CHECKING, Any

from slm.options import check_ids, check_int, check_text, refuse_type
from slm.output import Perplexity, Score
from slm.overflow import check_fit
from slm.progress import Progress, counted_from, reported
from slm.tokenizer import Tokenizer, check_length, flat_ids

if TYPE_CHECKING:
    from slm import _core

MOST_TOKENS = 1 << 20  # of windows that are there at once: with a small stride all of them are many times the text


def score_pairs(
    core: "_core.Model",
    tokenizer: Tokenizer | None,
    vocab_size: int,
    context: int,
    pairs: Iterable[Any],
    threads: int,
    progress: Progress,
) -> list[Score]:
    texts, counts = [], []
    for i, (before, behind) in enumerate(encode_pairs(tokenizer, vocab_size, checked_pairs(pairs))):
        check_fit(f"pairs[{i}] without its last token", len(before) + len(behind) - 1, context, 0)
        texts.append(before + behind)
        counts.append(len(behind))
    with reported(progress, len(texts), " pairs") as report:
        found = core.score(texts, counts, threads, progress=report)
    scores = []
    for text, count, (logprobs, is_greedy) in zip(texts, counts, found, strict=True):
        ids = text[-count:]
        pieces = [] if tokenizer is None else [tokenizer.token_bytes(id).decode("utf-8", "replace") for id in ids]
        scores.append(Score(fsum(logprobs), is_greedy, logprobs, ids, pieces))
    return scores


def checked_pairs(pairs: Any) -> list[tuple[Any, Any]]:
    if isinstance(pairs, str | bytes | Mapping) or not isinstance(pairs, Iterable):
        refuse_type("pairs", "a list of (context, continuation)", pairs)
    checked = []
    for i, pair in enumerate(pairs):
        if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) != 2:
            refuse_type(f"pairs[{i}]", "(context, continuation)", pair)
        for j, part in enumerate(pair):
            if isinstance(part, str):
                check_text(f"pairs[{i}][{j}]", part)
        checked.append((pair[0], pair[1]))
    return checked


def encode_pairs(
    tokenizer: Tokenizer | None, vocab_size: int, pairs: Sequence[tuple[Any, Any]]
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each context, at least one, and of its continuation; see Model.score()."""
    unique: dict[str, None] = {}
    joined: list[tuple[str, str] | None] = []
    for context, continuation in pairs:
        both = isinstance(context, str) and isinstance(continuation, str)
        joined.append((context.rstrip(), context + continuation) if both else None)
        unique |= dict.fromkeys(text for text in joined[-1] or (context, continuation) if isinstance(text, str))
    if unique and tokenizer is None:
        raise ValueError("pairs has text, and the model has no tokenizer: pass token ids")
    strings: dict[str, list[int]] = {}
    if tokenizer is not None:
        for text in unique:
            check_length(text)
        strings = dict(zip(unique, tokenizer._core.encode_batch([*unique], False, False), strict=True))
    prefix = [] if tokenizer is None else tokenizer._prefix

    def ids_of(name: str, part: Any) -> list[int]:
        return strings[part] if isinstance(part, str) else check_ids(name, flat_ids(name, part), vocab_size)

    encoded = []
    for i, (pair, texts) in enumerate(zip(pairs, joined, strict=True)):
        name = f"pairs[{i}]"
        if texts is None:
            before, behind = ids_of(f"{name}[0]", pair[0]), ids_of(f"{name}[1]", pair[1])
        else:
            alone, whole = strings[texts[0]], strings[texts[1]]
            n = next((n for n, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
            before, behind = whole[:n], whole[n:]
        if isinstance(pair[0], str):
            before = prefix + before
        if not behind:
            raise ValueError(f"{name}: the continuation is empty; there is nothing to score")
        encoded.append((before or [beginning(name, tokenizer)], behind))
    return encoded


def beginning(name: str, tokenizer: Tokenizer | None) -> int:
    """The token that stands before a continuation of nothing."""
    if tokenizer is None or tokenizer.bos_id is None:
        raise ValueError(f"{name}: the context has no tokens, and the model has no bos token to begin with")
    return tokenizer.bos_id


def windows(n_tokens: int, length: int, stride: int) -> list[tuple[int, int, int]]:
    """(begin, end, n_scored): windows of `length` tokens, each `stride` behind the one before it, that score every token once
    but the first: Transformers' guide on the perplexity of fixed-length models, where labels that a window repeats are masked."""
    found = [(0, min(length, n_tokens), min(length, n_tokens) - 1)]
    while (last := found[-1][1]) < n_tokens:
        begin = found[-1][0] + stride
        end = min(begin + length, n_tokens)
        found.append((begin, end, end - last))
    return found


def measure_perplexity(
    core: "_core.Model",
    tokenizer: Tokenizer | None,
    vocab_size: int,
    context: int,
    text: Any,
    stride: int | None,
    threads: int,
    progress: Progress,
) -> Perplexity:
    prefix: list[int] = []
    if not isinstance(text, str):
        ids = check_ids("text", flat_ids("text", text), vocab_size)
    elif tokenizer is None:
        raise ValueError("text is a str, and the model has no tokenizer: pass token ids")
    else:
        check_length(check_text("text", text))
        prefix, ids = tokenizer._prefix, tokenizer._core.encode(text, False)
    least = 1 if prefix else 2  # tokens of a window, for one of them to stand behind another
    if len(ids) < least:
        raise ValueError(f"text has too few tokens, {len(ids)}: a token is scored behind another one")
    check_fit("the shortest window", len(prefix) + least, context, 0)
    length = context - len(prefix)
    stride = max(1, length // 2) if stride is None else check_int("stride", stride, 1, max(1, length - 1))
    found: list[float] = []
    cut, step = windows(len(ids), length, stride), max(1, MOST_TOKENS // context)
    with reported(progress, len(cut), " windows") as report:
        for first in range(0, len(cut), step):
            part = cut[first : first + step]
            texts = [prefix + ids[begin:end] for begin, end, _ in part]
            counts = [n_scored + (begin == 0 and bool(prefix)) for begin, _, n_scored in part]
            scored = core.score(texts, counts, threads, progress=counted_from(first, len(cut), report))
            found += (-logprob for logprobs, _ in scored for logprob in logprobs)
    n = len(found)
    nll = fsum(found) / n
    deviation = sqrt(fsum((x - nll) ** 2 for x in found) / (n - 1)) if n > 1 else float("nan")
    value = exp(nll)
    return Perplexity(value, value * deviation / sqrt(n), n, nll)
