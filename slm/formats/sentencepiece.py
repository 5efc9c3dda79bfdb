# SPDX-License-Identifier: Apache-2.0
"""tokenizer.model, as SentencePiece writes it: a Protocol Buffers message -> pieces, scores, kinds, and what settings decide ids.

Field numbers and defaults are those of sentencepiece_model.proto. Fields that tell how the model was trained are skipped, and so
are unknown ones.
"""

import math
import os
from array import array
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np

from slm.errors import quoted
from slm.formats import protobuf
from slm.formats.cursor import Strings
from slm.formats.files import InputFile
from slm.formats.protobuf import BYTES, FIXED32, VARINT, check_wire
from slm.formats.report import Report

CODES = {  # raised as SENTENCEPIECE_<code>
    **protobuf.CODES,
    "MAGIC": "not a file",
    "CHANGED": "the size of the file is not what it was when it was opened",
    "PIECE": "a refused piece",
    "VALUE": "a value outside its range",
    "LIMIT": "larger than slm accepts",
    "COMPONENT": "a setting that slm does not have",
    "ADDED": "a refused added token",  # of the files beside it, as the next
    "JSON": "text that is not Unicode",
}
MAX_FILE = 64 << 20  # ten times the largest published one
MAX_PIECES = 1 << 20
MAX_PIECE = 4096  # bytes
NORMAL, LAST_KIND = 1, 6  # of SentencePiece.Type, which are slm_token_kind


class ModelType(IntEnum):
    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class TrainerSpec:
    """What of the training settings decides how text is encoded. Ids are as in the file: -1 for none, and not checked."""

    model_type: int = ModelType.UNIGRAM
    treat_whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1


@dataclass(frozen=True)
class NormalizerSpec:
    name: str = ""
    precompiled_charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


@dataclass(frozen=True)
class SentencePieceModel:
    """pieces: as published, U+2581 for a space. scores: [size] float32. kinds: [size] uint8, slm_token_kind."""

    pieces: Strings
    scores: np.ndarray
    kinds: np.ndarray
    trainer: TrainerSpec
    normalizer: NormalizerSpec
    denormalizer: NormalizerSpec
    report: Report

    @property
    def size(self) -> int:
        return len(self.kinds)

    def piece(self, id: int) -> bytes:
        joined, offsets = self.pieces
        return joined[offsets[id] : offsets[id + 1]]


# Field number -> name of the field, which is of the type of its default above.
TRAINER_FIELDS = {
    3: "model_type", 24: "treat_whitespace_as_suffix", 35: "byte_fallback",
    40: "unk_id", 41: "bos_id", 42: "eos_id", 43: "pad_id",
}  # fmt: skip
NORMALIZER_FIELDS = {
    1: "name", 2: "precompiled_charsmap", 3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces",
}  # fmt: skip


def read_sentencepiece(path: str | os.PathLike[str]) -> SentencePieceModel:
    """Raises OSError, FormatError, LimitError, UnsupportedError (no regular file)."""
    report = Report(path, "SENTENCEPIECE", CODES)
    with InputFile(path, report) as file:
        if file.size > MAX_FILE:
            raise report.limit("LIMIT", None, "file size", file.size, MAX_FILE)
        with open(file.fileno(), "rb", closefd=False) as stream:
            data = stream.read(file.size + 1)
        if len(data) != file.size:
            raise report.bad("CHANGED", None, "file size", f"{file.size} bytes", "another number of bytes")
    return parse_sentencepiece(data, report)


def parse_sentencepiece(data: bytes, report: Report) -> SentencePieceModel:
    pieces = Pieces(data, report)
    specs: dict[str, Any] = {
        "trainer_spec": TrainerSpec(),
        "normalizer_spec": NormalizerSpec(),
        "denormalizer_spec": NormalizerSpec(),
    }
    numbers: dict[int, tuple[str, Any]] = {
        2: ("trainer_spec", TRAINER_FIELDS),
        3: ("normalizer_spec", NORMALIZER_FIELDS),
        5: ("denormalizer_spec", NORMALIZER_FIELDS),
    }
    for field in protobuf.fields(data, 0, len(data), report, "the model"):
        number, _, _, start, end = field
        if number == 1:
            check_wire(field, BYTES, report, f"pieces[{len(pieces.kinds)}]")
            pieces.add(start, end, field[2])
        elif number in numbers:
            name, names = numbers[number]
            check_wire(field, BYTES, report, name)
            # A message that stands twice is merged: later fields replace earlier ones.
            specs[name] = read_spec(data, start, end, report, specs[name], name, names)
    trainer = specs["trainer_spec"]
    if not pieces.kinds:
        raise report.bad("PIECE", None, "pieces", "at least one piece", "none")
    if trainer.model_type not in list(ModelType):
        raise report.bad("VALUE", None, "trainer_spec.model_type", "1 to 4", trainer.model_type)
    return pieces.model(trainer, specs["normalizer_spec"], specs["denormalizer_spec"])


class Pieces:
    """Collects the pieces of a model."""

    def __init__(self, data: bytes, report: Report) -> None:
        self.data = data
        self.report = report
        self.texts: list[bytes] = []
        self.scores = array("f")
        self.kinds = bytearray()

    def add(self, start: int, end: int, at: int) -> None:
        data, report, index = self.data, self.report, len(self.kinds)
        if index == MAX_PIECES:
            raise report.limit("LIMIT", at, "pieces", index + 1, MAX_PIECES)
        text, score, kind = b"", 0.0, NORMAL
        # How nearly all pieces are written, tried first: text (1), score (2), and perhaps its kind (3).
        if end - start >= 7 and data[start] == 0x0A and (size := data[start + 1]) < 0x80:
            behind = start + 2 + size
            if behind + 5 == end and data[behind] == 0x15:
                self._append(data[start + 2 : behind], protobuf.FLOAT.unpack_from(data, behind + 1)[0], NORMAL, at)
                return
        name = f"pieces[{index}]"
        for field in protobuf.fields(data, start, end, report, name):
            number = field[0]
            if number == 1:
                check_wire(field, BYTES, report, f"{name}.piece")
                if field[4] - field[3] > MAX_PIECE:
                    raise report.limit("LIMIT", field[2], f"bytes of {name}.piece", field[4] - field[3], MAX_PIECE)
                text = data[field[3] : field[4]]
            elif number == 2:
                check_wire(field, FIXED32, report, f"{name}.score")
                score = protobuf.read_float(data, field)
            elif number == 3:
                check_wire(field, VARINT, report, f"{name}.type")
                kind = field[3]
                if not NORMAL <= kind <= LAST_KIND:
                    raise report.bad("VALUE", field[2], f"{name}.type", f"{NORMAL} to {LAST_KIND}", kind, index=index)
        self._append(text, score, kind, at)

    def _append(self, text: bytes, score: float, kind: int, at: int) -> None:
        if not text or math.isnan(score):
            field, expected, found = ("score", "a number", "NaN") if text else ("piece", "some text", "none")
            name = f"pieces[{len(self.kinds)}].{field}"
            raise self.report.bad("PIECE", at, name, expected, found, index=len(self.kinds))
        self.texts.append(text)
        self.scores.append(score)
        self.kinds.append(kind)

    def model(self, trainer: TrainerSpec, normalizer: NormalizerSpec, denormalizer: NormalizerSpec) -> SentencePieceModel:
        for index, text in enumerate(self.texts):
            try:
                text.decode()
            except UnicodeDecodeError:
                raise self.report.bad("PIECE", None, f"pieces[{index}].piece", "UTF-8", quoted(text), index=index) from None
        offsets = np.zeros(len(self.texts) + 1, np.uint64)
        np.cumsum(np.fromiter(map(len, self.texts), np.uint64, len(self.texts)), out=offsets[1:])
        scores, kinds = np.frombuffer(self.scores, np.float32), np.frombuffer(bytes(self.kinds), np.uint8)
        return SentencePieceModel((b"".join(self.texts), offsets), scores, kinds, trainer, normalizer, denormalizer, self.report)


def read_spec(data: bytes, start: int, end: int, report: Report, spec: Any, name: str, names: dict[int, str]) -> Any:
    """`spec` with the fields of the message in place of its own."""
    values: dict[str, bool | int | str | bytes] = {}
    for field in protobuf.fields(data, start, end, report, name):
        if field[0] not in names:
            continue
        key = names[field[0]]
        where, kind = f"{name}.{key}", type(getattr(spec, key))
        check_wire(field, BYTES if kind in (str, bytes) else VARINT, report, where)
        if kind is bytes:
            values[key] = data[field[3] : field[4]]
        elif kind is str:
            try:
                values[key] = data[field[3] : field[4]].decode()
            except UnicodeDecodeError:
                raise report.bad("VALUE", field[2], where, "UTF-8", quoted(data[field[3] : field[4]])) from None
        else:
            values[key] = bool(field[3]) if kind is bool else protobuf.read_int32(field[3])
    return replace(spec, **values)
