# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.json -> a description for the core's tokenizer."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from slm.errors import quoted
from slm.families.tokenizer_components import (
    SPACE_MARKER,
    Words,
    describe_decoder,
    read_affixes,
    read_normalizers,
    read_words,
    unsupported,
)
from slm.formats.cursor import Strings
from slm.formats.json_text import Object, shown
from slm.formats.tokenizer_json import AddedToken, TokenizerJson, to_strings
from slm.vocabulary import BYTE, CONTROL, LSTRIP, NORMAL, NORMALIZED, RSTRIP, SINGLE_WORD, USER_DEFINED, Vocabulary, turn_ends

ESCAPE = ("replace", b" ", SPACE_MARKER.encode())
PREPEND = ("prepend", SPACE_MARKER.encode())
MODELS = "'BPE', 'Unigram' or 'WordPiece'"
FROM_MARKER = ("Replace", SPACE_MARKER, " ")
# Decoders that give the text which the core gives. Where encoding puts a space in front, decoding takes it away again.
BYTE_DECODERS = {(("ByteLevel",),)}
DECODERS: Mapping[bool, Collection[Any]] = {
    False: {(FROM_MARKER, ("ByteFallback",), ("Fuse",)), (FROM_MARKER, ("Fuse",)), (("Metaspace", False),)},
    True: {
        (FROM_MARKER, ("ByteFallback",), ("Fuse",), ("Strip", " ", 1, 0)),
        (FROM_MARKER, ("Fuse",), ("Strip", " ", 1, 0)),
        (("Metaspace", True),),
    },
}


def vocabulary_of(file: TokenizerJson, special_ids: Mapping[str, int], chat_templates: Mapping[str, str]) -> Vocabulary:
    """Raises FormatError, UnsupportedError."""
    kind = file.model.get_string("type", None) or guess_type(file)
    if kind not in ("BPE", "Unigram", "WordPiece"):
        raise unsupported(file.model, "type", MODELS, quoted(kind))
    normalizers = read_normalizers(file.normalizer)
    words = read_words(file.pre_tokenizer, ESCAPE in normalizers)
    prefixed = words.space_prefix != "none" or PREPEND in normalizers
    # To the core a marker is a space: putting one for the other last of all changes nothing but what added tokens see that are
    # looked for in normalized text, where they are normalized too.
    if normalizers[-1:] == [ESCAPE] and not any(token.normalized for token in file.added.values()):
        del normalizers[-1]
        if normalizers == [PREPEND]:
            normalizers, words = [], words._replace(space_prefix="always")
    size = len(file.tokens)
    kinds, flags = describe_tokens(file.added, size)
    prefix, suffix = read_affixes(file.post_processor, size)
    pieces = to_strings(file.tokens, file.report, file.model.where("vocab"))
    check_splits(file, words)
    model: dict[str, Any] = {"BPE": read_bpe, "Unigram": read_unigram, "WordPiece": read_wordpiece}[kind](file, words, kinds)
    check_decoder(file, model["model"], prefixed)
    return Vocabulary(
        **model,
        pieces=pieces,
        kinds=kinds.tobytes(),
        flags=flags.tobytes() if flags.any() else None,
        normalizers=tuple(normalizers),
        space_prefix=words.space_prefix,
        splits=words.splits,
        prefix=prefix,
        suffix=suffix,
        special_ids=special_ids,
        end_tokens=end_tokens(pieces, kinds, special_ids),
        chat_templates=chat_templates,
    )


def check_splits(file: TokenizerJson, words: Words) -> None:
    """Where pieces hold markers the core cuts at spaces only, of which nothing but white space is left out before."""
    spaced = words.splits[words.splits[:1] == (("white_space", "removed"),) :] in ((), ("space_words",))
    plain = "space_words" not in words.splits
    if not (spaced if words.escaped else plain):
        found = ", ".join(split if isinstance(split, str) else " ".join(split) for split in words.splits)
        raise file.report.unsupported("COMPONENT", None, "$.pre_tokenizer", "a published way to cut words", found)


def end_tokens(pieces: Strings, kinds: np.ndarray, special_ids: Mapping[str, int]) -> tuple[int, ...]:
    ends = set(turn_ends(pieces, kinds))
    return tuple(sorted(ends | {special_ids["eos_token"]} if "eos_token" in special_ids else ends))


def guess_type(file: TokenizerJson) -> str:
    """Files of the first versions do not name the model."""
    if file.scores is not None:
        return "Unigram"
    return "BPE" if "merges" in file.model else "WordPiece" if "max_input_chars_per_word" in file.model else "WordLevel"


def describe_tokens(added: Mapping[int, AddedToken], size: int) -> tuple[np.ndarray, np.ndarray]:
    """[size] slm_token_kind and slm_token_flag."""
    kinds, flags = np.full(size, NORMAL, np.uint8), np.zeros(size, np.uint8)
    for id, token in added.items():
        kinds[id] = CONTROL if token.special else USER_DEFINED
        flags[id] = LSTRIP * token.lstrip | RSTRIP * token.rstrip | SINGLE_WORD * token.single_word
        flags[id] |= NORMALIZED * token.normalized
    return kinds, flags


def read_bpe(file: TokenizerJson, words: Words, kinds: np.ndarray) -> dict[str, Any]:
    model = file.model
    if model.get_float("dropout", -1.0, 1.0, 0.0) != 0:
        raise unsupported(model, "dropout", "null", shown(model.values["dropout"]))
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get_string(affix, ""):
            raise unsupported(model, affix, "null", shown(model.values[affix]))
    if not words.byte_level and not words.escaped:
        raise file.report.unsupported("COMPONENT", None, "$.pre_tokenizer", "ByteLevel or a marker for spaces", "neither")
    byte_fallback = model.get_bool("byte_fallback", False)
    if byte_fallback:
        mark_bytes(file, kinds)
    return {
        "model": "byte_bpe" if words.byte_level else "bpe",
        "merges": file.merges,
        "ignore_merges": model.get_bool("ignore_merges", False),
        "unk": read_token(file, model, "unk_token"),
        "byte_fallback": byte_fallback,
        "fuse_unk": model.get_bool("fuse_unk", False),
    }


def read_unigram(file: TokenizerJson, words: Words, kinds: np.ndarray) -> dict[str, Any]:
    model, scores = file.model, file.scores
    if scores is None:
        raise file.report.bad("JSON_TYPE", None, model.where("vocab"), "an array of [text, score]", "an object")
    if words.byte_level or not words.escaped:
        raise file.report.unsupported("COMPONENT", None, "$.pre_tokenizer", "Metaspace", "something else")
    byte_fallback = model.get_bool("byte_fallback", False)
    if byte_fallback:
        mark_bytes(file, kinds)
    return {
        "model": "unigram",
        "scores": pad_scores(scores, len(file.tokens)),
        "unk": model.get_int("unk_id", 0, len(file.tokens) - 1, -1),
        "byte_fallback": byte_fallback,
        "fuse_unk": True,
    }


def pad_scores(scores: np.ndarray, size: int) -> bytes:
    """[size] float64; 0 for added tokens that are not of the vocabulary."""
    return np.concatenate([scores, np.zeros(size - len(scores))]).astype(np.float64).tobytes()


def read_wordpiece(file: TokenizerJson, words: Words, kinds: np.ndarray) -> dict[str, Any]:
    model = file.model
    if words.byte_level or words.escaped:
        raise file.report.unsupported("COMPONENT", None, "$.pre_tokenizer", "BertPreTokenizer", "something else")
    return {
        "model": "wordpiece",
        "unk": read_token(file, model, "unk_token"),
        "continuing_prefix": model.get_string("continuing_subword_prefix", "##").encode(),
        "max_word_length": model.get_int("max_input_chars_per_word", 1, 1 << 20, 100),
    }


def mark_bytes(file: TokenizerJson, kinds: np.ndarray) -> None:
    names = {f"<0x{byte:02X}>" for byte in range(256)}
    for id, token in enumerate(file.tokens):
        if len(token) == 6 and token in names and kinds[id] == NORMAL:
            kinds[id] = BYTE


def read_token(file: TokenizerJson, model: Object, name: str) -> int:
    """The id of a token that the model names; -1: none."""
    token = model.get_string(name, "")
    if not token:
        return -1
    if token not in file.tokens:
        raise file.report.bad("VOCAB", None, model.where(name), "a token of the vocabulary", quoted(token))
    return file.tokens.index(token)


def check_decoder(file: TokenizerJson, model: str, prefixed: bool) -> None:
    """Raise UnsupportedError unless the decoder gives the text that the core gives."""
    found = describe_decoder(file.decoder)
    if model == "byte_bpe":
        known: Collection[Any] = BYTE_DECODERS
    elif model == "wordpiece":
        prefix = file.model.get_string("continuing_subword_prefix", "##")
        known = {(("WordPiece", prefix, True),)}
    else:
        known = DECODERS[prefixed]
    if found not in known:
        where = "$.decoder" if file.decoder is None else file.decoder.path
        wanted = " or ".join(", ".join(step[0] for step in steps) for steps in sorted(known))
        raise file.report.unsupported("COMPONENT", None, where, wanted, ", ".join(map(repr, found)) or "none")
