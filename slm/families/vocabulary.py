# SPDX-License-Identifier: Apache-2.0
"""The vocabulary in a GGUF file, which all families write alike -> a description for the core's tokenizer."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from slm.errors import quoted
from slm.families.pretokenizers import PRETOKENIZERS, Pretokenizer
from slm.formats.cursor import Strings
from slm.formats.gguf import GGUF
from slm.vocabulary import BYTE, MAX_MERGES, MAX_PIECE, MAX_VOCAB, NORMAL, Normalizer, Vocabulary, turn_ends

SPACE_MARKER = "\u2581".encode()
MAX_CHARSMAP = 4 << 20  # bytes

# Template variable -> key of the id, the names that Hugging Face's templates use
SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
    "sep_token": "tokenizer.ggml.seperator_token_id",  # spelt so in the format
    "cls_token": "tokenizer.ggml.cls_token_id",
}
CHAT_TEMPLATE = "tokenizer.chat_template"
OTHER_ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def read_vocabulary(gguf: GGUF) -> Vocabulary | None:
    """None when the file holds none. Raises UnsupportedError (tokenizer model, pre-tokenizer), FormatError, LimitError."""
    model = gguf.get_string("tokenizer.ggml.model", default="no_vocab")
    if model == "no_vocab":  # the writers' own word for a file without one
        return None
    if model not in MODELS:
        key, known = "tokenizer.ggml.model", ", ".join(f"{name!r} ({what})" for name, (what, _) in MODELS.items())
        raise gguf.report.unsupported("TOKENIZER", gguf.offset_of(key), key, known, quoted(model))
    key = "tokenizer.ggml.tokens"
    pieces = gguf.get_strings(key)
    size = check_count(gguf, key, pieces, MAX_VOCAB, MAX_PIECE)
    if size == 0:
        raise gguf.report.bad("KEY_RANGE", gguf.offset_of(key), key, "at least one token", "none")
    kinds = read_kinds(gguf, size)
    special_ids = {name: id for name, key in SPECIAL_TOKENS.items() if (id := read_id(gguf, key, size)) is not None}
    read = Read(gguf, pieces, kinds, special_ids)
    ends = {special_ids.get("eos_token"), *(read_id(gguf, key, size) for key in OTHER_ENDS), *turn_ends(pieces, kinds)}
    fields: dict[str, Any] = {"pieces": pieces, **MODELS[model][1](read)}
    return Vocabulary(
        **fields,
        kinds=kinds.tobytes(),
        special_ids=special_ids,
        end_tokens=tuple(sorted(id for id in ends if id is not None)),
        chat_templates=read_chat_templates(gguf),
    )


class Read(NamedTuple):
    """What all models have. kinds: [vocab_size]."""

    gguf: GGUF
    pieces: Strings
    kinds: np.ndarray
    special_ids: Mapping[str, int]


def byte_bpe(read: Read) -> dict[str, Any]:
    pretokenizer = read_pretokenizer(read.gguf)
    fields = {
        "model": "byte_bpe",
        "merges": read_merges(read),
        "splits": pretokenizer.splits,
        "normalizers": pretokenizer.normalizers,
    }
    ends = read_ends(read, bos=pretokenizer.add_bos, eos=pretokenizer.add_eos)
    return fields | {"ignore_merges": pretokenizer.ignore_merges} | ends


def character_bpe(read: Read) -> dict[str, Any]:
    """Merges in their order as in byte-level BPE, from characters with byte fallback as in SentencePiece; no space prefix."""
    fields = {"model": "bpe", "splits": (), "merges": read_merges(read)}
    fallback = {"unk": read.special_ids.get("unk_token", -1), "byte_fallback": True, "fuse_unk": True}
    return fields | fallback | read_ends(read, bos=True)


def scored_bpe(read: Read) -> dict[str, Any]:
    spaced = read.gguf.get_bool("tokenizer.ggml.add_space_prefix", default=True)
    fields = {"model": "bpe", "splits": (), "scores": read_scores(read), "space_prefix": "always" if spaced else "none"}
    fallback = {"unk": read.special_ids.get("unk_token", -1), "byte_fallback": True, "fuse_unk": True}
    return fields | fallback | read_ends(read, bos=True)


def unigram(read: Read) -> dict[str, Any]:
    gguf = read.gguf
    key = "tokenizer.ggml.precompiled_charsmap"
    charsmap = gguf.get_array(key, "int", None, default=None)
    normalizers: list[Normalizer] = []
    if charsmap is not None and len(charsmap):
        if len(charsmap) > MAX_CHARSMAP:
            raise gguf.report.limit("LIMIT", gguf.offset_of(key), key, len(charsmap), MAX_CHARSMAP)
        if charsmap.dtype != np.int8:  # which some writers mean by bytes
            wrong = np.flatnonzero((charsmap < 0) | (charsmap > 255))
            if wrong.size:
                found = f"[{wrong[0]}] = {charsmap[wrong[0]]}"
                raise gguf.report.bad("KEY_RANGE", gguf.offset_of(key), key, "bytes from 0 to 255", found)
        normalizers.append(("charsmap", charsmap.astype(np.uint8).tobytes()))
    if gguf.get_bool("tokenizer.ggml.remove_extra_whitespaces", default=False):
        normalizers += [("strip_left",), ("strip_right",), ("collapse", b" ")]
    spaced = gguf.get_bool("tokenizer.ggml.add_space_prefix", default=True)
    fields: dict[str, Any] = {"model": "unigram", "splits": ("space_words",), "scores": read_scores(read)}
    fields |= {"normalizers": tuple(normalizers), "space_prefix": "missing" if spaced else "none", "fuse_unk": True}
    fallback = {"unk": read.special_ids.get("unk_token", -1), "byte_fallback": bool((read.kinds == BYTE).any())}
    return fields | fallback | read_ends(read, bos=False, eos=True)


def wordpiece(read: Read) -> dict[str, Any]:
    """GGUF files have U+2581 in front of pieces that begin a word, and nothing in front of others; slm has it as published:
    "##" in front of those others. They do not say whether text is lower-cased: it is where no piece has an upper-case letter."""
    joined, offsets = read.pieces
    pieces = [joined[a:b] for a, b in pairwise(offsets.tolist())]
    words = [piece.removeprefix(SPACE_MARKER) if piece.startswith(SPACE_MARKER) else b"##" + piece for piece in pieces]
    bracketed = [piece[:1] == b"[" and piece[-1:] == b"]" for piece in pieces]
    words = [
        piece if kind != NORMAL or whole else word
        for piece, word, kind, whole in zip(pieces, words, read.kinds.tolist(), bracketed, strict=True)
    ]
    cased = any(
        not word.islower() and word.upper() != word.lower() for word, whole in zip(words, bracketed, strict=True) if not whole
    )
    lower = () if cased else (("nfd",), ("strip_nonspacing",), ("lowercase",))
    first, last = (
        next((read.special_ids[name] for name in names if name in read.special_ids), None)
        for names in (("cls_token", "bos_token"), ("sep_token", "eos_token"))
    )
    unk = read.special_ids.get("unk_token")
    if unk is None:
        key = SPECIAL_TOKENS["unk_token"]
        raise read.gguf.report.bad("KEY_MISSING", 0, key, "the id of the unknown token", "no such key")
    joined_words = b"".join(words)
    return {
        "model": "wordpiece",
        "pieces": (joined_words, np.cumsum([0, *map(len, words)], dtype=np.uint64)),
        "normalizers": (("clean",), ("space_cjk",), *lower),
        "splits": (("white_space", "removed"), "punctuation"),
        "unk": unk,
        "continuing_prefix": b"##",
        "prefix": () if first is None else (first,),
        "suffix": () if last is None else (last,),
    }


# tokenizer.ggml.model -> what it is, and how its fields of Vocabulary are read
MODELS: Mapping[str, tuple[str, Callable[[Read], dict[str, Any]]]] = {
    "gpt2": ("byte-level BPE", byte_bpe),
    "llama": ("SentencePiece BPE", scored_bpe),
    "gemma4": ("BPE of characters", character_bpe),
    "t5": ("unigram", unigram),
    "bert": ("WordPiece", wordpiece),
}


def read_ends(read: Read, bos: bool, eos: bool = False) -> dict[str, Any]:
    """What goes around a text; bos, eos: whether it does where the file does not say."""
    gguf, ids = read.gguf, read.special_ids
    defaults = {"bos": bos and "bos_token" in ids, "eos": eos and "eos_token" in ids}
    add = {end: gguf.get_bool(f"tokenizer.ggml.add_{end}_token", default=default) for end, default in defaults.items()}
    for end, wanted in add.items():
        if wanted and f"{end}_token" not in ids:
            key, needed = f"tokenizer.ggml.add_{end}_token", f"tokenizer.ggml.{end}_token_id to go with it"
            raise gguf.report.bad("KEY_MISSING", gguf.offset_of(key), key, needed, "no such key")
    return {"prefix": (ids["bos_token"],) if add["bos"] else (), "suffix": (ids["eos_token"],) if add["eos"] else ()}


def read_pretokenizer(gguf: GGUF) -> Pretokenizer:
    # Without the key nobody knows how the vocabulary cuts text.
    pre = gguf.get_string("tokenizer.ggml.pre", default="default")
    if pre not in PRETOKENIZERS:
        key, known = "tokenizer.ggml.pre", f"one of {len(PRETOKENIZERS)} published names, such as 'gpt-2'"
        raise gguf.report.unsupported("PRETOKENIZER", gguf.offset_of(key), key, known, quoted(pre))
    return PRETOKENIZERS[pre]


def read_merges(read: Read) -> Strings:
    key = "tokenizer.ggml.merges"
    merges = read.gguf.get_strings(key)
    check_count(read.gguf, key, merges, MAX_MERGES, MAX_PIECE + 1 + MAX_PIECE)  # two pieces and a space
    return merges


def read_scores(read: Read) -> bytes:
    """[vocab_size] float64, as bytes."""
    gguf, size = read.gguf, len(read.kinds)
    key = "tokenizer.ggml.scores"
    scores = gguf.get_array(key, "float", size).astype(np.float64)
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        index = int(wrong[0])
        raise gguf.report.bad("KEY_RANGE", gguf.offset_of(key), f"{key}[{index}]", "a number", "NaN", index=index)
    return scores.tobytes()


def check_count(gguf: GGUF, key: str, strings: Strings, maximum: int, longest: int) -> int:
    """How many strings there are: at most `maximum`, none of more than `longest` bytes."""
    offsets = strings[1]
    count = len(offsets) - 1
    if count > maximum:
        raise gguf.report.limit("LIMIT", gguf.offset_of(key), key, count, maximum)
    found = int(np.diff(offsets).max(initial=0))
    if found > longest:
        raise gguf.report.limit("LIMIT", gguf.offset_of(key), f"longest string of {key}", found, longest)
    return count


def read_kinds(gguf: GGUF, size: int) -> np.ndarray:
    """[size] uint8 slm_token_kind; all normal when the file does not say."""
    key = "tokenizer.ggml.token_type"
    kinds = gguf.get_array(key, "int", size, default=None)
    if kinds is None:
        return np.full(size, NORMAL, np.uint8)
    wrong = np.flatnonzero((kinds < NORMAL) | (kinds > BYTE))
    if len(wrong):
        index = int(wrong[0])
        raise gguf.report.bad(
            "KEY_RANGE", gguf.offset_of(key), f"{key}[{index}]", f"{NORMAL} to {BYTE}", kinds[index], index=index
        )
    return kinds.astype(np.uint8)


def read_id(gguf: GGUF, key: str, size: int) -> int | None:
    id = gguf.get_uint(key, default=None)
    if id is not None and id >= size:
        raise gguf.report.bad("KEY_RANGE", gguf.offset_of(key), key, f"an id below {size}, the size of the vocabulary", id)
    return id


def read_chat_templates(gguf: GGUF) -> dict[str, str]:
    """The default one is tokenizer.chat_template, others such as "tool_use" are tokenizer.chat_template.NAME."""
    keys = {key.removeprefix(f"{CHAT_TEMPLATE}."): key for key in gguf.metadata if key.startswith(f"{CHAT_TEMPLATE}.")}
    if CHAT_TEMPLATE in gguf.metadata:
        keys["default"] = CHAT_TEMPLATE
    return {name: gguf.get_string(key) for name, key in keys.items()}
