# SPDX-License-Identifier: Apache-2.0
"""tokenizer.model is read as the `sentencepiece` package reads it (fixtures of tests/oracle/make_sentencepiece.py); bytes that
are no such model are refused by name and place.

Ids of hostile rows are those of a catalogue of real bugs in readers of such files.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slm.errors import Error, FormatError, LimitError, UnsupportedError
from slm.formats import sentencepiece
from slm.formats.report import Report
from slm.formats.sentencepiece import CODES, ModelType, SentencePieceModel, parse_sentencepiece, read_sentencepiece

DATA = Path(__file__).parent / "data" / "sentencepiece"
NAMES = ["bpe", "bpe_without_prefix", "unigram", "unigram_bytes"]
KINDS = {"unknown": 2, "control": 3, "unused": 5, "byte": 6}


def expected(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_read_as_sentencepiece_reads_it(name: str) -> None:
    model, wanted = read_sentencepiece(DATA / f"{name}.model"), expected(name)
    assert [model.piece(id).decode() for id in range(model.size)] == wanted["pieces"]
    assert model.scores.tolist() == wanted["scores"]
    for kind, number in KINDS.items():
        assert np.flatnonzero(model.kinds == number).tolist() == wanted[kind]
    trainer = model.trainer
    assert {f"{name}_id": getattr(trainer, f"{name}_id") for name in ("unk", "bos", "eos", "pad")} == {
        f"{name}_id": wanted[f"{name}_id"] for name in ("unk", "bos", "eos", "pad")
    }
    assert trainer.model_type == (ModelType.UNIGRAM if name.startswith("unigram") else ModelType.BPE)
    assert trainer.byte_fallback == (name != "unigram")
    assert len(model.normalizer.precompiled_charsmap) == wanted["charsmap_size"]
    assert model.normalizer.add_dummy_prefix == (name != "bpe_without_prefix")
    assert model.normalizer.remove_extra_whitespaces == name.startswith("unigram")
    assert model.normalizer.escape_whitespaces
    assert model.normalizer.name == ("nmt_nfkc" if name == "unigram" else "identity")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tagged(number: int, wire: int, value: bytes = b"") -> bytes:
    return varint(number << 3 | wire) + value


def message(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return tagged(number, 2, varint(len(body)) + body)


def piece(text: bytes, score: float = 0.0, *more: bytes) -> bytes:
    return message(1, message(1, text), tagged(2, 5, struct.pack("<f", score)), *more)


def parse(data: bytes) -> SentencePieceModel:
    return parse_sentencepiece(data, Report("file", "SENTENCEPIECE", CODES))


def test_what_stands_nowhere_has_the_published_default() -> None:
    model = parse(message(1, message(1, b"a")))
    assert (model.piece(0), model.scores.tolist(), model.kinds.tolist()) == (b"a", [0.0], [1])
    trainer, normalizer = model.trainer, model.normalizer
    assert (trainer.model_type, trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id) == (1, 0, 1, 2, -1)
    assert not trainer.byte_fallback
    assert (normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces) == (True, True, True)
    assert normalizer.precompiled_charsmap == b""


def test_fields_in_any_order_unknown_ones_skipped_messages_merged() -> None:
    unknown = [tagged(77, 0, b"\xff\x01"), tagged(78, 1, bytes(8)), tagged(79, 5, bytes(4)), message(1000, b"\xff\xff")]
    odd = message(
        1, tagged(3, 0, b"\x04"), *unknown, tagged(2, 5, struct.pack("<f", 2.5)), message(1, b"first"), message(1, b"\0b")
    )
    specs = [message(2, tagged(40, 0, b"\x01")), message(2, tagged(41, 0, varint(2**64 - 1)), *unknown)]
    model = parse(b"".join([*unknown, specs[0], odd, *unknown, piece(b"a"), specs[1]]))
    assert [model.piece(0), model.piece(1)] == [b"\0b", b"a"]
    assert (model.scores.tolist(), model.kinds.tolist()) == ([2.5, 0.0], [4, 1])
    assert (model.trainer.unk_id, model.trainer.bos_id, model.trainer.eos_id) == (1, -1, 2)


A = piece(b"a")  # 10 bytes
HOSTILE = [
    ("empty", b"", "PIECE", "pieces", None),
    ("T6", A + tagged(3, 2, b"\x05abc"), "TRUNCATED", "the model, field 3", 10),
    ("T6", A + message(3, tagged(2, 2, b"\xff\xff\xff\xff\x0f")), "TRUNCATED", "normalizer_spec, field 2", 12),
    ("T1", message(1, tagged(1, 2, varint(2**63) + b"a")), "TRUNCATED", "pieces[0], field 1", 2),
    ("T7", piece(b"a" * 4097), "LIMIT", "bytes of pieces[0].piece", 3),
    ("piece is empty", A + piece(b""), "PIECE", "pieces[1].piece", 10),
    ("piece is not UTF-8", A + piece(b"\xe2\x96"), "PIECE", "pieces[1].piece", None),
    ("seams make no piece UTF-8", piece(b"\xe2\x96") + piece(b"\x81"), "PIECE", "pieces[0].piece", None),
    ("score is NaN", piece(b"a", float("nan")), "PIECE", "pieces[0].score", 0),
    ("no such kind", piece(b"a", 0.0, tagged(3, 0, b"\x07")), "VALUE", "pieces[0].type", 10),
    ("no such model", A + message(2, tagged(3, 0, b"\x05")), "VALUE", "trainer_spec.model_type", None),
    ("name is not UTF-8", A + message(3, message(1, b"\xff")), "VALUE", "normalizer_spec.name", 12),
    ("group", A + tagged(9, 3) + tagged(9, 4), "TAG", "the model", 10),
    ("wire type 6", A + tagged(9, 6), "TAG", "the model", 10),
    ("field 0", A + tagged(0, 0, b"\x01"), "TAG", "the model", 10),
    ("field above 2^29", A + varint(1 << 32) + b"\x01", "TAG", "the model", 10),
    ("tag of 11 bytes", A + b"\x80" * 10 + b"\x01", "VARINT", "the model", 10),
    ("number of 65 bits", A + tagged(9, 0, b"\xff" * 9 + b"\x02"), "VARINT", "the model, field 9", 11),
    ("number without end", A + tagged(9, 0, b"\x80"), "TRUNCATED", "the model, field 9", 11),
    ("pieces as numbers", tagged(1, 0, b"\x01"), "WIRE_TYPE", "pieces[0]", 0),
    ("score as a number", message(1, message(1, b"a"), tagged(2, 0, b"\x01")), "WIRE_TYPE", "pieces[0].score", 5),
    ("flag as bytes", A + message(3, message(3, b"\x01")), "WIRE_TYPE", "normalizer_spec.add_dummy_prefix", 12),
]


@pytest.mark.parametrize(("data", "code", "field", "offset"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_bytes_are_refused(data: bytes, code: str, field: str, offset: int | None) -> None:
    with pytest.raises((FormatError, LimitError)) as caught:
        parse(data)
    error = caught.value
    assert (error.code, error.field, error.offset) == (f"SENTENCEPIECE_{code}", field, offset)
    assert isinstance(error, LimitError) == (code == "LIMIT")


def test_too_many_pieces_and_too_large_a_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.model"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(LimitError, match="file size"):
        read_sentencepiece(path)
    with pytest.raises(UnsupportedError, match="a folder"):
        read_sentencepiece(tmp_path)
    monkeypatch.setattr(sentencepiece, "MAX_PIECES", 1000)
    assert parse(A * 1000).size == 1000
    with pytest.raises(LimitError) as caught:
        parse(A * 1001)
    assert (caught.value.field, caught.value.value, caught.value.offset) == ("pieces", 1001, 10000)


def test_every_byte_changed_and_every_prefix_is_read_or_refused() -> None:
    """A refusal is one of slm's, and what is accepted is still whole."""
    data = (DATA / "bpe.model").read_bytes()
    data = data[:600] + data[-600:]  # pieces; the specifications
    accepted = 0
    mutants = [data[:end] for end in range(len(data))]
    mutants += [data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :] for at in range(len(data)) for bits in (0x01, 0x80, 0xFF)]
    for mutant in mutants:
        try:
            model = parse(mutant)
        except Error:
            continue
        accepted += 1
        assert len(model.scores) == len(model.kinds) == len(model.pieces[1]) - 1 == model.size
        assert int(model.pieces[1][-1]) == len(model.pieces[0])
    assert 0 < accepted < len(mutants)
