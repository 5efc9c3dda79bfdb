# SPDX-License-Identifier: Apache-2.0
"""tokenizer.json, as Hugging Face's tokenizers write it: the vocabulary by id, merges, scores, added tokens, and the JSON objects
of the other components, which slm.families gives a meaning.

Tokens have the ids from 0 to n - 1, each once: those of the model's vocabulary, and behind them, or in its gaps, the added tokens
that it does not hold.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from slm.errors import quoted
from slm.formats import json_text
from slm.formats.cursor import Strings
from slm.formats.json_text import Object, read_object, shown
from slm.formats.report import Report

CODES = {  # raised as TOKENIZER_<code>
    **json_text.CODES,
    "MAGIC": "not a file",
    "VOCAB": "a refused vocabulary",
    "MERGE": "a refused merge",
    "ADDED": "a refused added token",
    "COMPONENT": "a component that slm does not have",
    "VOCABULARY": "the vocabulary contradicts itself",
}
MAX_FILE = 128 << 20  # bytes; the largest published one has 40 million
MAX_VALUES = 6 << 20  # of JSON in it; the largest has 2 million
MAX_OBJECTS = 1 << 17  # nearly all are added tokens
MAX_VOCAB = 1 << 20
MAX_MERGES = 2 << 20
MAX_PIECE = 4096  # bytes of a token


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in text before anything else is. Fields as in Hugging Face's AddedToken, and where it stands."""

    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = True
    where: str = ""


@dataclass(frozen=True)
class TokenizerJson:
    """tokens: [n] texts by id, in the spelling of the model. added: by id -> AddedToken. merges: "left right", in order.

    scores: float64, of the tokens that are in the vocabulary of a unigram model; else None.
    model, normalizer, ...: the components' objects; None where the file has null.
    """

    root: Object
    model: Object
    tokens: list[str]
    added: dict[int, AddedToken]
    merges: Strings
    scores: np.ndarray | None
    normalizer: Object | None
    pre_tokenizer: Object | None
    post_processor: Object | None
    decoder: Object | None

    @property
    def report(self) -> Report:
        return self.root.report


def read_tokenizer_json(path: str | os.PathLike[str]) -> TokenizerJson:
    """Raises OSError, FormatError, LimitError, UnsupportedError (a model without a vocabulary that slm could read)."""
    report = Report(path, "TOKENIZER", CODES)
    return parse_tokenizer(read_object(path, report, MAX_FILE, max_values=MAX_VALUES, max_objects=MAX_OBJECTS))


def parse_tokenizer(root: Object) -> TokenizerJson:
    model = root.get_object("model")
    tokens, scores = read_vocab(model)
    added = read_added(root, tokens)
    check_texts(model, tokens)
    components = (root.get_object(name, None) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return TokenizerJson(root, model, tokens, added, read_merges(model), scores, *components)


def read_vocab(model: Object) -> tuple[list[Any], np.ndarray | None]:
    """Texts by id, None in gaps; the scores of a list of [text, score]."""
    report, where = model.report, model.where("vocab")
    vocab = model.get("vocab", (dict, list), "an object or an array")
    if len(vocab) > MAX_VOCAB:
        raise report.limit("LIMIT", None, where, len(vocab), MAX_VOCAB)
    if isinstance(vocab, list):
        return read_scored(vocab, where, report)
    ids = list(vocab.values())
    if not set(map(type, ids)) <= {int}:
        text = next(text for text, id in vocab.items() if type(id) is not int)
        raise report.bad("JSON_TYPE", None, f"{where}[{quoted(text)}]", "an id", shown(vocab[text]))
    size = max(ids, default=-1) + 1
    if ids and (min(ids) < 0 or size > MAX_VOCAB):
        text = next(text for text, id in vocab.items() if not 0 <= id < MAX_VOCAB)
        raise report.bad("VOCAB", None, f"{where}[{quoted(text)}]", f"an id below {MAX_VOCAB}", shown(vocab[text]))
    tokens: list[Any] = [None] * size
    for text, id in vocab.items():
        if tokens[id] is not None:
            raise report.bad("VOCAB", None, f"{where}[{quoted(text)}]", "an id of its own", f"{id}, as {quoted(tokens[id])} has")
        tokens[id] = text
    return tokens, None


def read_scored(vocab: list[Any], where: str, report: Report) -> tuple[list[Any], np.ndarray]:
    for id, entry in enumerate(vocab):
        if not (
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
            and type(entry[1]) in (int, float) and math.isfinite(entry[1])
        ):  # fmt: skip
            raise report.bad("VOCAB", None, f"{where}[{id}]", "[text, finite score]", shown(entry))
    tokens = [text for text, _ in vocab]
    if len(set(tokens)) < len(tokens):
        first: dict[str, int] = {}
        id = next(id for id, text in enumerate(tokens) if first.setdefault(text, id) != id)
        raise report.bad("VOCAB", None, f"{where}[{id}]", "a text of its own", f"{quoted(tokens[id])} again")
    return tokens, np.array([score for _, score in vocab], np.float64)


def read_added(root: Object, tokens: list[Any]) -> dict[int, AddedToken]:
    """The added tokens; those that are not in the vocabulary take their place in `tokens`."""
    report = root.report
    ids = {text: id for id, text in enumerate(tokens) if text is not None}
    entries = root.get_list("added_tokens", [])
    if len(entries) + len(tokens) > 2 * MAX_VOCAB:
        raise report.limit("LIMIT", None, root.where("added_tokens"), len(entries), 2 * MAX_VOCAB - len(tokens))
    added: dict[int, AddedToken] = {}
    for index, entry in enumerate(entries):
        where = f"{root.where('added_tokens')}[{index}]"
        if not isinstance(entry, dict):
            raise report.bad("JSON_TYPE", None, where, "an object", shown(entry))
        token = read_added_token(Object(entry, where, report))
        known = ids.get(token.content)
        if known is None and token.id < len(tokens) and tokens[token.id] is None:
            tokens[token.id] = token.content
        elif known is None and token.id == len(tokens):
            tokens.append(token.content)
        elif known != token.id:
            expected = f"{known}, its id in the vocabulary" if known is not None else f"{len(tokens)}, the next id"
            raise report.bad("ADDED", None, f"{where}.id", expected, f"{token.id} for {quoted(token.content)}")
        elif token.id in added:
            raise report.bad("ADDED", None, where, "each token once", f"{quoted(token.content)} again")
        ids[token.content] = token.id
        added[token.id] = token
    return added


def read_added_token(entry: Object, id: int | None = None) -> AddedToken:
    """id: where the file gives it elsewhere."""
    content = entry.get_string("content")
    if not content:
        raise entry.report.bad("ADDED", None, entry.where("content"), "some text", "none")
    special = entry.get_bool("special", False)
    return AddedToken(
        entry.get_int("id", 0, MAX_VOCAB - 1) if id is None else id,
        content,
        special,
        entry.get_bool("lstrip", False),
        entry.get_bool("rstrip", False),
        entry.get_bool("single_word", False),
        entry.get_bool("normalized", not special),
        entry.path,
    )


def add_others(tokens: list[str], added: dict[int, AddedToken], others: Iterable[AddedToken], report: Report) -> None:
    """Take in what other files say of added tokens: their flags hold, and new ones with an id come behind the last token.

    One of no id (-1) that the vocabulary does not hold is left out: no text can become it. Raises FormatError.
    """
    ids = {text: id for id, text in enumerate(tokens)}
    for token in sorted(others, key=lambda token: token.id):
        known = ids.get(token.content)
        if known is None and token.id < 0:
            continue
        if token.id not in (-1, len(tokens) if known is None else known):
            expected = f"{len(tokens)}, the next id" if known is None else f"{known}, its id in the vocabulary"
            raise report.bad("ADDED", None, token.where, expected, f"{token.id} for {quoted(token.content)}")
        if known is None:
            known = ids[token.content] = len(tokens)
            tokens.append(token.content)
        before = added.get(known)
        added[known] = replace(token, id=known, special=token.special or (before is not None and before.special))


def check_texts(model: Object, tokens: list[Any]) -> None:
    report, where = model.report, model.where("vocab")
    if not tokens:
        raise report.bad("VOCAB", None, where, "at least one token", "none")
    for id, text in enumerate(tokens):
        if text is None:
            raise report.bad("VOCAB", None, where, f"ids from 0 to {len(tokens) - 1}, each once", f"no token of id {id}")
        if len(text) > MAX_PIECE // 4 and len(text.encode("utf-8", "replace")) > MAX_PIECE:
            raise report.limit(
                "LIMIT", None, f"bytes of {where}[{quoted(text)}]", len(text.encode("utf-8", "replace")), MAX_PIECE
            )


def read_merges(model: Object) -> Strings:
    """Merges, which files spell "left right" or ["left", "right"]."""
    report, where = model.report, model.where("merges")
    merges = model.get_list("merges", [])
    if len(merges) > MAX_MERGES:
        raise report.limit("LIMIT", None, where, len(merges), MAX_MERGES)
    kinds = set(map(type, merges))
    if kinds == {list}:
        # One pass each over what may be half a million pairs, and a slow look only where something is wrong.
        if set(map(len, merges)) != {2} or set(map(type, chain.from_iterable(merges))) != {str}:
            index = next(i for i, pair in enumerate(merges) if len(pair) != 2 or not all(type(side) is str for side in pair))
            raise report.bad("MERGE", None, f"{where}[{index}]", "[left, right]", shown(merges[index]))
        merges = list(map(" ".join, merges))
    elif not kinds <= {str}:
        index = next(i for i, merge in enumerate(merges) if type(merge) is not type(merges[0]) or type(merge) not in (str, list))
        raise report.bad("MERGE", None, f"{where}[{index}]", "text or a pair, as the others are", shown(merges[index]))
    spaces = list(map(str.count, merges, " " * len(merges)))
    if spaces.count(1) < len(spaces):
        index = next(i for i, count in enumerate(spaces) if count != 1)
        raise report.bad("MERGE", None, f"{where}[{index}]", "two tokens without a space in them", quoted(merges[index]))
    return to_strings(merges, report, where)


def to_strings(texts: list[str], report: Report, where: str) -> Strings:
    try:
        encoded = list(map(str.encode, texts))
    except UnicodeEncodeError:
        index = next(i for i, text in enumerate(texts) if not is_unicode(text))
        raise report.bad(
            "JSON", None, f"{where}[{index}]", "Unicode", f"{quoted(texts[index])}, half of a surrogate pair"
        ) from None
    offsets = np.zeros(len(encoded) + 1, np.uint64)
    np.cumsum(np.fromiter(map(len, encoded), np.uint64, len(encoded)), out=offsets[1:])
    return b"".join(encoded), offsets


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
