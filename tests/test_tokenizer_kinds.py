# SPDX-License-Identifier: Apache-2.0
"""Normalizers, unigram, WordPiece and the flags of added tokens against Hugging Face's `tokenizers`, id for id."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import texts
import tokenizers
from gguf_writer import write_gguf
from test_tokenizer_core import strings
from tokenizers import models, normalizers, pre_tokenizers

import slm
from slm import FormatError, UnsupportedError, _core

N_STRINGS = 100_000
MARKER = "▁".encode()
BERT = (("clean",), ("space_cjk",), ("nfd",), ("strip_nonspacing",), ("lowercase",))


def assert_same(ours: _core.Tokenizer, theirs: tokenizers.Tokenizer, inputs: list[str]) -> None:
    for start in range(0, len(inputs), 10_000):
        batch = inputs[start : start + 10_000]
        expected = theirs.encode_batch_fast(batch, add_special_tokens=False)
        for text, encoding in zip(batch, expected, strict=True):
            assert ours.encode(text, False, True) == encoding.ids, repr(text)


# ---- normalizers ----------------------------------------------------------------------------------------------------------

NORMALIZERS = {
    "nfc": (normalizers.NFC(), (("nfc",),)),
    "nfd": (normalizers.NFD(), (("nfd",),)),
    "nfkc": (normalizers.NFKC(), (("nfkc",),)),
    "nfkd": (normalizers.NFKD(), (("nfkd",),)),
    "lowercase": (normalizers.Lowercase(), (("lowercase",),)),
    "strip": (normalizers.Strip(), (("strip_left",), ("strip_right",))),
    "accents": (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), (("nfd",), ("strip_marks",))),
    "replace": (normalizers.Replace("aa", "é"), (("replace", b"aa", "é".encode()),)),
    "collapse": (normalizers.Replace(tokenizers.Regex(" {2,}"), "▁"), (("collapse", MARKER),)),
    "prepend": (normalizers.Prepend("▁"), (("prepend", MARKER),)),
    "bert": (normalizers.BertNormalizer(), BERT),
}


def normalizer_pair(name: str) -> tuple[_core.Tokenizer, tokenizers.Tokenizer]:
    """Seen through a vocabulary of bytes."""
    theirs_normalizer, ours_normalizer = NORMALIZERS[name]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = sorted(level.alphabet())
    theirs = tokenizers.Tokenizer(models.BPE({letter: id for id, letter in enumerate(letters)}, []))
    theirs.normalizer, theirs.pre_tokenizer = theirs_normalizer, level
    return _core.Tokenizer("byte_bpe", strings(letters), b"\1" * 256, (), normalizers=ours_normalizer), theirs


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers(name):
    every = texts.assigned()
    packed = ["".join(f"a{c}{c}\u0301\u0345\u0323" for c in every[i : i + 16]) for i in range(0, len(every), 16)]
    assert_same(*normalizer_pair(name), packed + texts.strings(10_000))


# ---- unigram --------------------------------------------------------------------------------------------------------------


UNIGRAM = {
    # normalizers beside the map, Metaspace's prepend_scheme and split, white space left out, byte fallback
    "first": ([normalizers.Strip(left=False), normalizers.Replace(tokenizers.Regex(" {2,}"), "▁")], "first", True, False, False),
    "always": ([], "always", True, False, True),
    "words": ([], "always", True, True, False),
    "whole": ([], "never", False, False, True),
}


def read_unigram() -> dict[str, Any]:
    """A small vocabulary and the character map nmt_nfkc_cf of SentencePiece: tests/oracle/make_unigram.py."""
    with np.load(texts.DATA / "oracle" / "unigram.npz") as data:
        return {name: data[name] for name in data.files}


def unigram_pair(name: str) -> tuple[_core.Tokenizer, tokenizers.Tokenizer]:
    others, scheme, split, words, byte_fallback = UNIGRAM[name]
    unigram = read_unigram()
    pieces, charsmap = json.loads(bytes(unigram["pieces"])), bytes(unigram["charsmap"])
    scores, kinds = unigram["scores"].astype(np.float64), bytes(unigram["kinds"])
    theirs = tokenizers.Tokenizer(
        models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=0, byte_fallback=byte_fallback)
    )
    theirs.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), *others])
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([*[pre_tokenizers.WhitespaceSplit()] * words, metaspace])
    special = [piece for piece, kind in zip(pieces, kinds, strict=True) if kind in (2, 3)]
    theirs.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False) for piece in special])
    ours = _core.Tokenizer(
        "unigram",
        strings(pieces),
        kinds,
        (("white_space", "removed"),) * words + ("space_words",) * split,
        scores=scores.tobytes(),
        unk=0,
        byte_fallback=byte_fallback,
        fuse_unk=True,
        normalizers=(("charsmap", charsmap), *((("strip_right",), ("collapse", MARKER)) if others else ())),
        space_prefix={"never": "none", "always": "missing", "first": "first"}[scheme],
    )
    return ours, theirs


@pytest.mark.parametrize("name", UNIGRAM)
def test_unigram(name):
    assert_same(*unigram_pair(name), texts.strings(N_STRINGS if name == "always" else 30_000))


def test_charsmaps_that_are_garbage():
    """Any bytes are refused, or give some text: the walk stays inside."""
    rng = random.Random(70)
    charsmap, letters = bytes(read_unigram()["charsmap"]), [chr(97 + i) for i in range(26)]
    arguments = ("unigram", strings(["<unk>", *letters]), bytes([2, *[1] * 26]), ())
    scores = np.zeros(27).tobytes()
    for broken in (
        b"",
        b"\1\0\0",
        b"\5\0\0\0abcde\0",
        b"\0\0\0\0",
        b"\x10\0\0\0abcd",
        b"\4\0\0\0abcdx",
        b"\4\0\0\0abcd" + b"x" * 256 + b"\0",
    ):
        with pytest.raises(FormatError, match="precompiled_charsmap"):
            _core.Tokenizer(*arguments, scores=scores, unk=0, normalizers=(("charsmap", broken),))
    for _ in range(20):
        changed = bytearray(charsmap)
        for _ in range(rng.choice((1, 30, 3000))):
            changed[rng.randrange(4, len(changed) - 1)] = rng.randrange(256)
        try:
            ours = _core.Tokenizer(*arguments, scores=scores, unk=0, normalizers=(("charsmap", bytes(changed)),))
        except FormatError:
            continue
        for text in texts.strings(3000)[::100]:
            ours.encode(text)


# ---- WordPiece ------------------------------------------------------------------------------------------------------------


def wordpiece_pair(folder: Path) -> tuple[_core.Tokenizer, tokenizers.Tokenizer, list[str], bytes]:
    """The real vocabulary of a published BERT."""
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    pieces = [piece for piece, _ in sorted(theirs.get_vocab().items(), key=lambda item: item[1])]
    kinds = bytearray(b"\1" * len(pieces))
    for id in theirs.get_added_tokens_decoder():
        kinds[id] = 3
    rules = (("white_space", "removed"), "punctuation")
    ours = _core.Tokenizer("wordpiece", strings(pieces), bytes(kinds), rules, unk=100, continuing_prefix=b"##", normalizers=BERT)
    return ours, theirs, pieces, bytes(kinds)


@pytest.fixture(scope="module")
def wordpiece(minilm_path):
    return wordpiece_pair(minilm_path)


def test_wordpiece(wordpiece):
    ours, theirs, *_ = wordpiece
    assert_same(ours, theirs, texts.strings(N_STRINGS) + ["a" * n for n in (99, 100, 101)] + ["é" * 100, "[CLS] [MASK]x[SEP]"])


def test_wordpiece_decodes(wordpiece):
    ours, theirs, pieces, _ = wordpiece
    rng = random.Random(71)
    samples = [rng.choices(range(len(pieces)), k=rng.randrange(1, 9)) for _ in range(5000)]
    samples += [ours.encode(text) for text in texts.strings(4000)]
    for ids in samples:
        for skip in (False, True):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_wordpiece_from_gguf(wordpiece, tmp_path):
    """There pieces that begin a word are marked, not those inside one."""
    _, theirs, pieces, kinds = wordpiece
    phantom = [p if p[:1] == "[" and p[-1:] == "]" else p[2:] if p.startswith("##") else f"▁{p}" for p in pieces]
    metadata = {
        "general.architecture": ("string", "bert"),
        "tokenizer.ggml.model": ("string", "bert"),
        "tokenizer.ggml.tokens": ("array of string", phantom),
        "tokenizer.ggml.token_type": ("array of int32", list(kinds)),
        "tokenizer.ggml.unknown_token_id": ("uint32", 100),
        "tokenizer.ggml.seperator_token_id": ("uint32", 102),
        "tokenizer.ggml.cls_token_id": ("uint32", 101),
    }
    write_gguf(tmp_path / "x.gguf", metadata, {})
    tokenizer = slm.load_tokenizer(tmp_path / "x.gguf")
    for text in texts.strings(3000):
        assert tokenizer.encode(text) == theirs.encode(text).ids


# ---- added tokens ----------------------------------------------------------------------------------------------------------

FLAGS = {"lstrip": 1, "rstrip": 2, "single_word": 4, "normalized": 8}


@pytest.mark.parametrize("lowercase", [False, True])
def test_flags_of_added_tokens(lowercase):
    rng = random.Random(72)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    letters = sorted(level.alphabet())
    for _ in range(60):
        names = rng.sample(["<a>", "<A>", "<a><b>", "a", "ab", "  ", " ", "é", "b\n", "<b>", "Été", "1"], rng.randrange(1, 6))
        flags = [rng.randrange(16) if rng.random() < 0.8 else 0 for _ in names]
        if any(name[0] == " " for name in names):  # tokens in the white space that another takes along make theirs panic
            flags = [flag & ~FLAGS["rstrip"] for flag in flags]
        theirs = tokenizers.Tokenizer(models.BPE({letter: id for id, letter in enumerate(letters)}, []))
        theirs.pre_tokenizer = level
        if lowercase:
            theirs.normalizer = normalizers.Lowercase()
        for name, flag in zip(names, flags, strict=True):
            theirs.add_special_tokens(
                [tokenizers.AddedToken(name, **{key: bool(flag & bit) for key, bit in FLAGS.items()}, special=True)]
            )
        added = [(theirs.token_to_id(name), name, flag) for name, flag in zip(names, flags, strict=True)]
        if any(id < 256 for id, *_ in added):
            continue  # a letter of the alphabet became an added token
        ours = _core.Tokenizer(
            "byte_bpe",
            strings([*letters, *names]),
            b"\1" * 256 + b"\3" * len(names),
            ("gpt2_words",),
            flags=bytes(256) + bytes(flags),
            normalizers=(("lowercase",),) if lowercase else (),
        )
        inputs = [
            "".join(rng.choices([*names, " ", "  ", "\n", "\u3000", "x", "_", "é", "<", "A"], k=rng.randrange(1, 14)))
            for _ in range(400)
        ]
        assert_same(ours, theirs, inputs)


# ---- offsets and batches ---------------------------------------------------------------------------------------------------


def assert_same_spans(ours: _core.Tokenizer, theirs: tokenizers.Tokenizer, inputs: list[str]) -> None:
    for text, expected in zip(inputs, theirs.encode_batch(inputs, add_special_tokens=False), strict=True):
        assert ours.encode(text, False, True, (), True) == (expected.ids, expected.offsets), repr(text)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_spans(name):
    assert_same_spans(*normalizer_pair(name), texts.strings(4000))


def test_spans_of_words(wordpiece):
    assert_same_spans(*wordpiece[:2], texts.strings(4000))


@pytest.mark.parametrize("name", UNIGRAM)
def test_spans_of_mapped_characters(name):
    """Also where the map makes several of one, one of several and none at all, at the start of a text too."""
    rng = random.Random(73)
    removed = [*"\0\1\x1f\x7f\x8f\xad\u200b\u200d\u2060\ufeff", "\x01\u0301"]
    others = [*"ab !日Å½\u3000ΐẞİ\n🦙ﬁﷺ①㊿…é\u0301", "  ", "e\u0301", "か\u3099", "ｶﾞ", "\r\n"]
    mixed = ["".join(rng.choices(removed + others, k=rng.randrange(1, 9))) for _ in range(4000)]
    assert_same_spans(*unigram_pair(name), [*mixed, *texts.strings(2000)])


def test_a_batch_is_what_its_texts_are():
    tokenizer = slm.load_tokenizer(texts.DATA / "vocab" / "ggml-vocab-llama-spm.gguf")
    inputs = [*texts.strings(2000), "", "x" * 100_000]
    expected = [tokenizer.encode(text) for text in inputs]
    assert tokenizer.encode_batch(inputs) == expected
    assert tokenizer.encode_batch(inputs, threads=1) == expected
    assert tokenizer.encode_batch([]) == []
    ids, spans = tokenizer.encode_with_offsets("Hello wörld 🦙")
    assert ids == tokenizer.encode("Hello wörld 🦙")
    assert spans == [(0, 0), (0, 5), (5, 7), (7, 9), (9, 11), (11, 12), *[(12, 13)] * 4]
    assert tokenizer.special_tokens == {"bos_token": 1, "eos_token": 2, "unk_token": 0}
    for wrong in ("text", 7, ["a", 7], [b"a"]):
        with pytest.raises(TypeError, match="texts"):
            tokenizer.encode_batch(wrong)


def test_rules_that_do_not_go_with_a_model_are_refused():
    for model, rules in (
        ("bpe", ("gpt2_words",)),
        ("unigram", ("punctuation",)),
        ("byte_bpe", ("space_words",)),
    ):
        with pytest.raises(UnsupportedError, match="splits"):
            _core.Tokenizer(model, strings(["a"]), b"\1", rules, scores=np.zeros(1).tobytes())
