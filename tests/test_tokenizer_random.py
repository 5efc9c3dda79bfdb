# SPDX-License-Identifier: Apache-2.0
"""BPE, unigram and WordPiece with random vocabularies: the ids, spans and text that `tokenizers` gives.

Left out is where slm means to differ: bytes that are no UTF-8 are decoded as SentencePiece decodes them (ByteFallback makes
U+FFFD of a whole run of byte tokens if one is wrong), Metaspace takes every marker from the first token, and what has no token at
all shifts the spans behind it.
"""

import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import texts
from tokenizer_pipelines import charsmap
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import slm

MARKER = "▁"
CHARACTERS = "abcdé日🦙 .'\u0301Z1"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPECIAL = ("<s>", "</s>", "<tool>")


def random_merges(rng: random.Random, letters: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces, and merges of them; the parts are pieces made shortly before, as in trained vocabularies, or any."""
    pieces, merges = list(letters), dict[tuple[str, str], None]()
    for _ in range(rng.choice((0, 3, 15, 90, 600))):
        left, right = (rng.choice(pieces[-40:] if rng.random() < 0.5 else pieces) for _ in range(2))
        if len(left) + len(right) <= 24:
            merges[left, right] = None
            if left + right not in pieces:
                pieces.append(left + right)
    return pieces, list(merges)


def whole_words(rng: random.Random, letters: list[str], pieces: list[str]) -> list[str]:
    """Pieces that no merges need make."""
    words = ("".join(rng.choices(letters, k=rng.randrange(2, 9))) for _ in range(rng.choice((0, 20))))
    return [word for word in dict.fromkeys(words) if word not in pieces]


def byte_level(rng: random.Random, characters: str) -> Tokenizer:
    words = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.2, use_regex=rng.random() < 0.7)
    used = sorted(set("".join(word for word, _ in words.pre_tokenize_str(characters))))
    pieces, merges = random_merges(rng, used)
    pieces += [letter for letter in sorted(words.alphabet()) if letter not in used]
    pieces += whole_words(rng, used, pieces)
    rng.shuffle(pieces)
    vocab = {piece: id for id, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=rng.random() < 0.4))
    tokenizer.pre_tokenizer, tokenizer.decoder = words, decoders.ByteLevel()
    return tokenizer


def characters(rng: random.Random, characters: str) -> Tokenizer:
    letters = sorted({MARKER, *characters.replace(" ", MARKER)})
    pieces, merges = random_merges(rng, letters)
    byte_fallback = rng.random() < 0.6
    unk = "<unk>" if byte_fallback or rng.random() < 0.7 else None
    pieces = [*([unk] if unk else []), *(BYTES if byte_fallback else []), *pieces, *whole_words(rng, letters, pieces)]
    flags = {"byte_fallback": byte_fallback, "fuse_unk": rng.random() < 0.5, "ignore_merges": rng.random() < 0.3}
    tokenizer = Tokenizer(models.BPE({piece: id for id, piece in enumerate(pieces)}, merges, unk_token=unk, **flags))
    scheme = rng.choice(("none", "prepend", "first", "always", "never"))
    if scheme == "none":
        tokenizer.normalizer = normalizers.Replace(" ", MARKER)
    elif scheme == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARKER), normalizers.Replace(" ", MARKER)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=rng.random() < 0.5)
    steps = [decoders.Replace(MARKER, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps if scheme in ("none", "never") else [*steps, decoders.Strip(" ", 1, 0)])
    return tokenizer


def unigram(rng: random.Random, characters: str) -> Tokenizer:
    letters = sorted({MARKER, *characters.replace(" ", MARKER)})
    byte_fallback = rng.random() < 0.5
    pieces = ["<unk>", *(BYTES if byte_fallback else []), *rng.sample(letters, rng.randrange(1, len(letters) + 1))]
    words = ("".join(rng.choices(letters, k=rng.randrange(1, 9))) for _ in range(rng.choice((3, 20, 200))))
    pieces += [word for word in dict.fromkeys([*words, *random_merges(rng, letters)[0]]) if word not in pieces]
    equal = rng.random() < 0.3  # scores, so that many ways are the best
    scores = [-1.0 * rng.randrange(1, 4) if equal else -rng.random() * 12 for _ in pieces]
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=0, byte_fallback=byte_fallback))
    steps = [charsmap()] if rng.random() < 0.5 else []
    if rng.random() < 0.4:
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), MARKER)]
    tokenizer.normalizer = normalizers.Sequence(steps)
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=rng.choice(("first", "always", "never")), split=rng.random() < 0.5)
    words = [pre_tokenizers.WhitespaceSplit()] if rng.random() < 0.3 else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, metaspace])
    decoded = [decoders.Replace(MARKER, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*decoded, *([decoders.Strip(" ", 1, 0)] * (metaspace.prepend_scheme != "never"))])
    return tokenizer


def wordpiece(rng: random.Random, characters: str) -> Tokenizer:
    prefix = rng.choice(("##", "#", "@@"))
    letters = sorted({*characters, "."} - set(" '"))
    words = ("".join(rng.choices(letters, k=rng.randrange(1, 5))) for _ in range(rng.choice((3, 20, 100))))
    pieces = ["[UNK]", *(rng.choice(("", prefix)) + word for word in words)]
    if rng.random() < 0.5:
        pieces += [before + letter for before in ("", prefix) for letter in letters]
    vocab = {piece: id for id, piece in enumerate(dict.fromkeys(pieces))}
    longest = rng.choice((5, 20, 100))
    model = models.WordPiece(vocab, unk_token="[UNK]", continuing_subword_prefix=prefix, max_input_chars_per_word=longest)
    tokenizer = Tokenizer(model)
    bert, split = pre_tokenizers.BertPreTokenizer(), pre_tokenizers.WhitespaceSplit()
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bert])
    tokenizer.pre_tokenizer = rng.choice((bert, split, digits, pre_tokenizers.Whitespace()))
    if rng.random() < 0.4:
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=rng.random() < 0.5)
    tokenizer.decoder = decoders.WordPiece(prefix=prefix, cleanup=True)
    return tokenizer


def random_text(rng: random.Random, characters: str) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(characters) * rng.randrange(1, 120)
    if kind == 1:
        return "".join(rng.choices(characters, k=2)) * rng.randrange(1, 60)
    if kind == 2:
        return "".join(rng.choices(characters + "xyß字\u200d\n\tﬁ\0\x7f\ufeff…", k=rng.randrange(30)))
    return "".join(rng.choices(characters, k=rng.randrange(30))) if kind == 3 else texts.cut(rng, rng.choice(texts.corpus()))


def is_utf8(pieces: list[str]) -> bool:
    """Is every run of byte tokens?"""
    runs = re.findall("(?:<0x[0-9A-F]{2}>)+", "\n".join(pieces).replace(">\n<0x", "><0x"))
    try:
        return all(bytes.fromhex(run.replace("<0x", "").replace(">", "")).decode() for run in runs)
    except UnicodeDecodeError:
        return False


@pytest.mark.filterwarnings("ignore:the vocabulary has no token:UnicodeWarning")
@pytest.mark.parametrize("make", [byte_level, characters, unigram, wordpiece])
def test_random_vocabularies(tmp_path: Path, make) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        letters = "".join(rng.sample(CHARACTERS, rng.randrange(2, len(CHARACTERS))))
        theirs = make(rng, letters)
        theirs.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL[:2]])
        theirs.add_tokens([AddedToken(SPECIAL[2], normalized=False)])
        path = tmp_path / f"{seed}.json"
        theirs.save(str(path))
        ours = slm.load_tokenizer(path)
        compare_encoding(rng, ours, theirs, letters)
        compare_decoding(rng, ours, theirs)


def compare_encoding(rng: random.Random, ours: slm.Tokenizer, theirs: Tokenizer, letters: str) -> None:
    for _ in range(40):
        text = random_text(rng, letters)
        if rng.random() < 0.2:
            text += rng.choice(SPECIAL) + random_text(rng, letters)
        expected = theirs.encode(text, add_special_tokens=False)
        ids, spans = ours.encode_with_offsets(text, add_special_tokens=False, parse_special=True)
        assert ids == expected.ids == ours.encode(text, add_special_tokens=False, parse_special=True), text
        if not (MARKER in theirs.get_vocab() and "<unk>" not in theirs.get_vocab()):
            assert spans == expected.offsets, text


def compare_decoding(rng: random.Random, ours: slm.Tokenizer, theirs: Tokenizer) -> None:
    vocab = theirs.get_vocab()
    for _ in range(40):
        ids = [rng.randrange(len(vocab)) for _ in range(rng.randrange(12))]
        if BYTES[0] in vocab:
            at = rng.randrange(len(ids) + 1)
            ids[at:at] = [vocab[BYTES[byte]] for byte in rng.choice("é日🦙a").encode()]
        for skip in (False, True):
            pieces = [piece for piece in map(theirs.id_to_token, ids) if not (skip and piece in SPECIAL[:2])]
            if is_utf8(pieces):
                assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip), ids
