# SPDX-License-Identifier: Apache-2.0
"""The vocabulary in a GGUF file, which all families write alike -> a description for the core's tokenizer."""

import numpy as np

from slm.errors import quoted
from slm.families.pretokenizers import PRETOKENIZERS, Pretokenizer
from slm.formats.cursor import Strings
from slm.formats.gguf import GGUF
from slm.vocabulary import BYTE, MAX_MERGES, MAX_PIECE, MAX_VOCAB, NO_STRINGS, NORMAL, Vocabulary, turn_ends

SCORED = Pretokenizer({}, add_bos=True)  # text begins with bos where the file does not say

# Template variable -> key of the id, the names that Hugging Face's templates use
SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
    "sep_token": "tokenizer.ggml.seperator_token_id",  # spelt so in the format
}
CHAT_TEMPLATE = "tokenizer.chat_template"
OTHER_ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def read_vocabulary(gguf: GGUF) -> Vocabulary | None:
    """None when the file holds none. Raises UnsupportedError (tokenizer model, pre-tokenizer), FormatError, LimitError."""
    model = gguf.get_string("tokenizer.ggml.model", default="no_vocab")
    if model == "no_vocab":  # the writers' own word for a file without one
        return None
    if model not in ("gpt2", "llama"):
        key, known = "tokenizer.ggml.model", "'gpt2' (byte-level BPE) or 'llama' (SentencePiece BPE)"
        raise gguf.report.unsupported("TOKENIZER", gguf.offset_of(key), key, known, quoted(model))
    pretokenizer = SCORED if model == "llama" else read_pretokenizer(gguf)

    key = "tokenizer.ggml.tokens"
    pieces = gguf.get_strings(key)
    size = check_count(gguf, key, pieces, MAX_VOCAB, MAX_PIECE)
    if size == 0:
        raise gguf.report.bad("KEY_RANGE", gguf.offset_of(key), key, "at least one token", "none")
    merges = NO_STRINGS
    if model == "gpt2":
        key = "tokenizer.ggml.merges"
        merges = gguf.get_strings(key)
        check_count(gguf, key, merges, MAX_MERGES, MAX_PIECE + 1 + MAX_PIECE)  # two pieces and a space
    kinds = read_kinds(gguf, size)
    special_ids = {name: id for name, key in SPECIAL_TOKENS.items() if (id := read_id(gguf, key, size)) is not None}
    defaults = {"bos": pretokenizer.add_bos and "bos_token" in special_ids, "eos": False}
    add = {end: gguf.get_bool(f"tokenizer.ggml.add_{end}_token", default=default) for end, default in defaults.items()}
    for end, wanted in add.items():
        if wanted and f"{end}_token" not in special_ids:
            key, needed = f"tokenizer.ggml.add_{end}_token", f"tokenizer.ggml.{end}_token_id to go with it"
            raise gguf.report.bad("KEY_MISSING", gguf.offset_of(key), key, needed, "no such key")
    ends = {special_ids.get("eos_token"), *(read_id(gguf, key, size) for key in OTHER_ENDS), *turn_ends(pieces, kinds)}
    spaced = model == "llama" and gguf.get_bool("tokenizer.ggml.add_space_prefix", default=True)
    return Vocabulary(
        model="bpe" if model == "llama" else "byte_bpe",
        pieces=pieces,
        kinds=kinds.tobytes(),
        space_prefix="always" if spaced else "none",
        pretokenizer=pretokenizer.rules,
        scores=read_scores(gguf, size) if model == "llama" else None,
        merges=merges,
        ignore_merges=pretokenizer.ignore_merges,
        unk=special_ids.get("unk_token", -1) if model == "llama" else -1,
        byte_fallback=model == "llama",
        fuse_unk=model == "llama",
        prefix=(special_ids["bos_token"],) if add["bos"] else (),
        suffix=(special_ids["eos_token"],) if add["eos"] else (),
        special_ids=special_ids,
        end_tokens=tuple(sorted(ends - {None})),
        chat_templates=read_chat_templates(gguf),
    )


def read_pretokenizer(gguf: GGUF) -> Pretokenizer:
    # Without the key nobody knows how the vocabulary cuts text.
    pre = gguf.get_string("tokenizer.ggml.pre", default="default")
    if pre not in PRETOKENIZERS:
        key, known = "tokenizer.ggml.pre", ", ".join(map(repr, PRETOKENIZERS))
        raise gguf.report.unsupported("PRETOKENIZER", gguf.offset_of(key), key, known, quoted(pre))
    return PRETOKENIZERS[pre]


def read_scores(gguf: GGUF, size: int) -> bytes:
    """[size] float32, as bytes."""
    key = "tokenizer.ggml.scores"
    scores = gguf.get_array(key, "float", size).astype(np.float32)
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
