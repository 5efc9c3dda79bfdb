# SPDX-License-Identifier: Apache-2.0
"""What a tokenizer is made of, from whichever file it was read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from slm.formats.cursor import Strings

MAX_VOCAB = 1 << 20
MAX_MERGES = 4 << 20
MAX_PIECE = 4096  # bytes

SpacePrefix = Literal["none", "always", "missing", "first"]  # slm_space_prefix
# slm_token_kind
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
# slm_token_flag
LSTRIP, RSTRIP, SINGLE_WORD, NORMALIZED = 1, 2, 4, 8

NO_STRINGS: Strings = (b"", np.zeros(1, np.uint64))

# A name of slm_normalizer_kind in lower case ("nfc"), and its operands: ("replace", a, b), ("collapse", b), ("prepend", b),
# ("charsmap", a)
Normalizer = tuple[str, *tuple[bytes, ...]]
Split = str | tuple[str, str]  # slm_split in lower case, whose matches are isolated; or it and an slm_behavior

# Control tokens that end a turn although the file may name only one of them as its end of sequence.
TURN_ENDS = frozenset(
    b"<|im_end|> <|endoftext|> <|end_of_text|> <|eot_id|> <|eom_id|> <|eot|> <|end|> <end_of_turn> </s>".split()
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The fields down to suffix are those of slm_tokenizer_spec in csrc/slm.h; the rest is for whoever talks to the model.

    kinds, flags: [vocab_size] uint8. scores: [vocab_size] float64.
    special_ids: "bos_token", "eos_token", ... -> id. end_tokens: ids that end a generation.
    chat_templates: name -> source, "default" the one for every conversation; empty when there is none.
    """

    model: Literal["byte_bpe", "bpe", "unigram", "wordpiece"]
    pieces: Strings
    kinds: bytes
    flags: bytes | None = None
    normalizers: tuple[Normalizer, ...] = ()
    space_prefix: SpacePrefix = "none"
    splits: tuple[Split, ...]
    scores: bytes | None = None
    merges: Strings = NO_STRINGS
    ignore_merges: bool = False
    unk: int = -1
    byte_fallback: bool = False
    fuse_unk: bool = False
    continuing_prefix: bytes = b""
    max_word_length: int = 100
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    special_ids: Mapping[str, int]
    end_tokens: tuple[int, ...]
    chat_templates: Mapping[str, str]

    @property
    def size(self) -> int:
        return len(self.kinds)

    def core_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `_core.Tokenizer`."""
        others = ("special_ids", "end_tokens", "chat_templates")
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in others}


def turn_ends(pieces: Strings, kinds: np.ndarray) -> list[int]:
    """The ids of control tokens that end a turn by their name."""
    joined, offsets = pieces
    longest = max(map(len, TURN_ENDS))
    control = np.flatnonzero((kinds == CONTROL) & (np.diff(offsets) <= longest))
    return [id for id in control.tolist() if joined[offsets[id] : offsets[id + 1]] in TURN_ENDS]
