# SPDX-License-Identifier: Apache-2.0
"""Vocabularies in files from strangers: T5's in GGUF against Hugging Face's `tokenizers`; changed files are read or refused."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import texts
import tokenizers
from gguf_writer import write_gguf
from test_tokenizer_core import strings
from test_tokenizer_kinds import read_unigram
from tokenizers import decoders, models, normalizers, pre_tokenizers

import slm
from slm import FormatError, LimitError, UnsupportedError, _core


def t5_file(path: Path, numbers: str = "uint8", first: int | None = None) -> tuple[tokenizers.Tokenizer, bytes]:
    """The small unigram vocabulary as GGUF files of T5 have it, and what `tokenizers` makes of the same.

    numbers: the type of the character map's. first: stands in the place of its first.
    """
    unigram = read_unigram()
    pieces, charsmap = json.loads(bytes(unigram["pieces"])), bytes(unigram["charsmap"])
    metadata = {
        "general.architecture": ("string", "t5"),
        "tokenizer.ggml.model": ("string", "t5"),
        "tokenizer.ggml.tokens": ("array of string", pieces),
        "tokenizer.ggml.scores": ("array of float32", unigram["scores"].tolist()),
        "tokenizer.ggml.token_type": ("array of int32", list(bytes(unigram["kinds"]))),
        "tokenizer.ggml.unknown_token_id": ("uint32", 0),
        "tokenizer.ggml.remove_extra_whitespaces": ("bool", True),
        "tokenizer.ggml.precompiled_charsmap": (
            f"array of {numbers}",
            np.frombuffer(charsmap, "int8" if numbers == "int8" else "uint8").tolist(),
        ),
    }
    if first is not None:
        metadata["tokenizer.ggml.precompiled_charsmap"][1][0] = first
    write_gguf(path, metadata, {})
    scores = unigram["scores"].astype(np.float32).astype(np.float64).tolist()
    theirs = tokenizers.Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=0, byte_fallback=True))
    theirs.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    theirs.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return theirs, charsmap


def test_unigram_from_gguf(tmp_path):
    theirs, _ = t5_file(tmp_path / "t5.gguf")
    tokenizer = slm.load_tokenizer(tmp_path / "t5.gguf")
    for text in texts.strings(3000):
        assert tokenizer.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.parametrize("numbers", ["int8", "int32"])
def test_a_charsmap_may_be_of_any_whole_numbers_that_are_bytes(tmp_path, numbers):
    theirs, _ = t5_file(tmp_path / "t5.gguf", numbers)
    tokenizer = slm.load_tokenizer(tmp_path / "t5.gguf")
    for text in texts.strings(300):
        assert tokenizer.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.mark.parametrize("number", [-1, 256])
def test_numbers_of_a_charsmap_that_are_no_bytes_do_not_wrap(tmp_path, number):
    t5_file(tmp_path / "t5.gguf", "int32", first=number)
    with pytest.raises(FormatError, match=rf"precompiled_charsmap.*bytes from 0 to 255.*\[0\] = {number}"):
        slm.load_tokenizer(tmp_path / "t5.gguf")


def changed(rng: random.Random, data: bytes) -> bytes:
    """A few bytes of data replaced, left out, doubled or swapped; or its end cut off."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, size = rng.randrange(len(broken)), rng.choice((1, 1, 2, 8, 40))
        match rng.randrange(5):
            case 0:
                broken[at : at + size] = rng.randbytes(size)
            case 1:
                del broken[at : at + size]
            case 2:
                broken[at:at] = broken[at : at + size]
            case 3:
                broken[at] = rng.choice(b'0919-.,:"[]{}\xff\0')
            case _ if rng.random() < 0.1:
                del broken[at:]
        if not broken:
            return b"x"
    return bytes(broken)


def small_files(folder: Path) -> list[bytes]:
    """One tokenizer.json of each kind, and a GGUF vocabulary of each kind."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = tokenizers.Tokenizer(models.BPE({p: i for i, p in enumerate([*letters, "ab"])}, [("a", "b")]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    unigram = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.5)], unk_id=0, byte_fallback=False))
    unigram.normalizer, unigram.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    wordpiece = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    wordpiece.normalizer, wordpiece.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    unigram.decoder, wordpiece.decoder = decoders.Metaspace(), decoders.WordPiece()
    files = []
    for tokenizer in (bpe, unigram, wordpiece):
        tokenizer.add_special_tokens([tokenizers.AddedToken("<s>", lstrip=True, special=True)])
        files.append(tokenizer.to_str().encode())
    for model, pieces in (("t5", ["<unk>", "▁a", "b"]), ("bert", ["[UNK]", "▁a", "b"]), ("llama", ["<unk>", "▁a", "<0x00>"])):
        metadata = {
            "general.architecture": ("string", "t5"),
            "tokenizer.ggml.model": ("string", model),
            "tokenizer.ggml.tokens": ("array of string", pieces),
            "tokenizer.ggml.scores": ("array of float32", [0.0, -1.0, -2.0]),
            "tokenizer.ggml.token_type": ("array of int32", [2, 1, 6 if model == "llama" else 1]),
            "tokenizer.ggml.unknown_token_id": ("uint32", 0),
        }
        write_gguf(folder / "x.gguf", metadata, {})
        files.append((folder / "x.gguf").read_bytes())
    return files


def test_changed_files_are_read_or_refused(tmp_path):
    """Never a crash, and no error but those that say what is wrong with the file."""
    rng = random.Random(74)
    messages, read = [], 0
    for data in small_files(tmp_path):
        path = tmp_path / ("x.gguf" if data[:4] == b"GGUF" else "tokenizer.json")
        path.write_bytes(data)
        slm.load_tokenizer(path)
        for _ in range(350):
            path.write_bytes(changed(rng, data))
            try:
                tokenizer = slm.load_tokenizer(path)
            except (FormatError, UnsupportedError, LimitError) as error:
                messages.append((path.name, str(error)))
            else:
                tokenizer.decode(tokenizer.encode("a b  ab<s> é\0 bb"))
                read += 1
    assert len(messages) > 500
    assert read > 200
    assert all(name in message for name, message in messages)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_named(tmp_path, score):
    metadata = {
        "general.architecture": ("string", "t5"),
        "tokenizer.ggml.model": ("string", "t5"),
        "tokenizer.ggml.tokens": ("array of string", ["<unk>", "a"]),
        "tokenizer.ggml.scores": ("array of float32", [0.0, score]),
    }
    write_gguf(tmp_path / "x.gguf", metadata, {})
    with pytest.raises(FormatError, match=r"scores\[1\]"):
        slm.load_tokenizer(tmp_path / "x.gguf")


def test_text_is_not_blown_up():
    """Steps of a file that make ten bytes of each, again and again."""
    steps = (("replace", b"a", b"a" * 10),) * 8
    tokenizer = _core.Tokenizer("unigram", strings(["<unk>", "a"]), b"\2\1", (), scores=bytes(16), unk=0, normalizers=steps)
    with pytest.raises(ValueError, match="normalizers"):
        tokenizer.encode("a" * 1000)
