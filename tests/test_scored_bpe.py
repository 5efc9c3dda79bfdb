# SPDX-License-Identifier: Apache-2.0
"""BPE by scores (SentencePiece) against Hugging Face's `tokenizers`, with the merges and normalizers as published for it."""

import random
import time
from typing import NamedTuple

import gguf
import numpy as np
import pytest
import texts
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokenizer_core import CODE, CONTROL, PARAGRAPHS, USER_DEFINED, VOCAB, WHITE_SPACE, strings

from slm import FormatError, _core

NORMAL, UNKNOWN, BYTE = 1, 2, 6
PARTS = [
    *"aAeé́日1٣½!'.-_/\\\u200d🦙▁<>",
    *WHITE_SPACE,
    *("  ", "   ", "▁▁", "\r\n", " the", "ing", "tion", "The", "<0x41>", "<0x", "<s>", "</s>", "<unk>", "한국", "Ça", "\0"),
]


class Vocabulary(NamedTuple):
    pieces: list[str]
    kinds: list[int]
    scores: list[float]


class Pair(NamedTuple):
    ours: _core.Tokenizer
    theirs: tokenizers.Tokenizer
    vocabulary: Vocabulary
    prefix: bool = True


def make_ours(v: Vocabulary, prefix: bool = True) -> _core.Tokenizer:
    scores = np.array(v.scores, np.float64).tobytes()
    arguments = {
        "scores": scores,
        "unk": 0,
        "byte_fallback": True,
        "fuse_unk": True,
        "space_prefix": "always" if prefix else "none",
    }
    return _core.Tokenizer("bpe", strings(v.pieces), bytes(v.kinds), (), **arguments)


def make_theirs(v: Vocabulary, prefix: bool = True) -> tokenizers.Tokenizer:
    ids = {piece: id for id, piece in enumerate(v.pieces)}
    known = {piece: id for piece, id in ids.items() if v.kinds[id] == NORMAL}
    merges = []
    for piece in sorted(known, key=lambda piece: (-v.scores[known[piece]], known[piece])):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        splits = [(left, right) for left, right in splits if left in known and right in known]
        merges += sorted(splits, key=lambda split: (known[split[0]], known[split[1]]))
    result = tokenizers.Tokenizer(tokenizers.models.BPE(ids, merges, unk_token=v.pieces[0], fuse_unk=True, byte_fallback=True))
    spaces = [tokenizers.normalizers.Prepend("▁")] * prefix + [tokenizers.normalizers.Replace(" ", "▁")]
    result.normalizer = tokenizers.normalizers.Sequence(spaces)
    steps = [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    steps += [tokenizers.decoders.Strip(" ", 1, 0)] * prefix
    result.decoder = tokenizers.decoders.Sequence(steps)
    for piece, kind in zip(v.pieces, v.kinds, strict=True):
        if kind in (CONTROL, UNKNOWN):
            result.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False)])
        elif kind == USER_DEFINED:
            result.add_tokens([tokenizers.AddedToken(piece, special=False, normalized=False)])
    return result


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    fields = gguf.GGUFReader(VOCAB / "ggml-vocab-llama-spm.gguf").fields
    return Vocabulary(*(fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "scores")))


@pytest.fixture(scope="module", params=["prefix", "bare"])
def pair(vocabulary, request) -> Pair:
    prefix = request.param == "prefix"
    return Pair(make_ours(vocabulary, prefix), make_theirs(vocabulary, prefix), vocabulary, prefix)


def assert_same(pair: Pair, inputs: list[str], parse_special: bool = False) -> None:
    pair.theirs.encode_special_tokens = not parse_special
    found = pair.ours.encode_batch(inputs, parse_special=parse_special)
    for text, ours, theirs in zip(inputs, found, pair.theirs.encode_batch_fast(inputs, add_special_tokens=False), strict=True):
        assert ours == theirs.ids, repr(text)
        if not parse_special:
            assert pair.ours.decode(ours) == text.replace("▁", " ")


@pytest.mark.parametrize("parse_special", [False, True])
def test_ids(pair, parse_special):
    rng = random.Random(50)
    inputs = texts.strings(100_000) + ["".join(rng.choices(PARTS, k=rng.randrange(1, 24))) for _ in range(7000)]
    inputs += [unit * 3000 for unit in ("a", " ", "  a", "the", "日", "\n", "é")]
    inputs += ["".join(rng.choices("etaoin", k=n)) for n in (49, 300, 5000)] + ["\n".join(PARAGRAPHS + CODE), ""]
    assert_same(pair, inputs, parse_special)


def test_added_tokens(vocabulary):
    """A space goes before the text and before what follows an added token; user-defined tokens are matched first."""
    added = {"<|user|>": CONTROL, "  ": USER_DEFINED, "th": USER_DEFINED}
    v = Vocabulary(
        [*vocabulary.pieces, *added], [*vocabulary.kinds, *added.values()], [*vocabulary.scores, *([-1000.0] * len(added))]
    )
    pair = Pair(make_ours(v), make_theirs(v), v)
    rng = random.Random(51)
    inputs = ["".join(rng.choices([*added, "<s>", "a", "the", " ", "é"], k=rng.randrange(1, 12))) for _ in range(2000)]
    for parse_special in (False, True):
        pair.theirs.encode_special_tokens = not parse_special
        for text in inputs:
            theirs = pair.theirs.encode(text, add_special_tokens=False).ids
            assert pair.ours.encode(text, parse_special=parse_special) == theirs, repr(text)


def test_a_piece_across_words_is_found(vocabulary):
    """Words are merged one by one only where no piece can reach from one into the next."""
    v = Vocabulary([*vocabulary.pieces, "a▁", ",▁", "a,▁"], [*vocabulary.kinds, 1, 1, 1], [*vocabulary.scores, 5.0, 4.0, 3.0])
    pair = Pair(make_ours(v), make_theirs(v), v)
    assert pair.ours.find("a▁") == len(vocabulary.pieces)
    rng = random.Random(52)
    assert_same(pair, ["".join(rng.choices("aab,  ", k=rng.randrange(1, 40))) for _ in range(1000)])


def test_decode(pair):
    rng = random.Random(53)
    valid = [id for id, kind in enumerate(pair.vocabulary.kinds) if kind != BYTE]
    for skip in (False, True):
        for _ in range(500):
            ids = rng.choices(valid, k=rng.randrange(1, 9)) + rng.choices([1, 2, 29871], k=1)
            assert pair.ours.decode(ids, skip) == pair.theirs.decode(ids, skip_special_tokens=skip)
    assert pair.ours.decode(pair.ours.encode("🦙")) == "🦙"
    assert pair.ours.token_bytes(pair.ours.find("<0x0A>")) == b"\n"
    assert pair.ours.token_bytes(pair.ours.find("▁the")) == b" the"


@settings(deadline=None, max_examples=500)
@given(text=st.text())
def test_decoding_gives_the_text_back(pair, text):
    assert pair.ours.decode(pair.ours.encode(text)) == text.replace("▁", " ")


@settings(deadline=None, max_examples=300)
@given(data=st.binary())
def test_bytes_need_not_be_utf8(pair, data):
    ids = pair.ours.encode(data)
    joined = b"".join(map(pair.ours.token_bytes, ids))
    prefix = b" " if data and pair.prefix else b""
    assert joined == prefix + data.replace(b"\xe2\x96\x81", b" ")


@pytest.mark.parametrize("unit", ["a", " ", "ab ", "日", "\u0378"])
def test_time_is_linear(pair, unit):
    ratios = []
    for _ in range(5):
        times = []
        for size in (1 << 20, 2 << 20):
            text = unit * (size // len(unit.encode()))
            start = time.perf_counter()
            pair.ours.encode(text)
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
        if ratios[-1] <= 3:
            return
    raise AssertionError(f"twice the text took {min(ratios):.1f} times as long")


def test_wrong_vocabularies(vocabulary):
    def changed(**change):
        return make_ours(vocabulary._replace(**change))

    pieces, scores = list(vocabulary.pieces), list(vocabulary.scores)
    for index, piece in ((3, "<0x-1>"), (4, "<0xG1>"), (5, "<0x1>")):
        with pytest.raises(FormatError, match=rf"pieces\[{index}\]: expected <0x00> to <0xFF>") as caught:
            changed(pieces=[*pieces[:index], piece, *pieces[index + 1 :]])
        assert caught.value.index == index
    with pytest.raises(FormatError, match=r"pieces\[4\]: is the same as pieces\[3\]"):
        changed(pieces=[*pieces[:4], "<0x00>", *pieces[5:]])
    with pytest.raises(FormatError, match=r"scores\[300\]: expected a number, found NaN"):
        changed(scores=[*scores[:300], float("nan"), *scores[301:]])
    with pytest.raises(ValueError, match="scores: expected the bytes of 32000 float64, one for each piece"):
        changed(scores=scores[1:])
