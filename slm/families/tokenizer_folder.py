# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a Hugging Face folder, or of one file of it -> a description for the core's tokenizer.

Of several vocabularies the first counts: tokenizer.json, which alone says all; tokenizer.model of SentencePiece; vocab.json with
merges.txt; vocab.txt. Where there is a tokenizer.json, its post-processor decides what goes around a text, and not add_bos_token
and add_eos_token of tokenizer_config.json, as in Transformers 5.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from slm.families.sentencepiece import vocabulary_of_sentencepiece, wanted_affixes
from slm.families.tokenizer_files import read_merges_folder, read_wordpiece_file, read_wordpiece_folder
from slm.families.tokenizer_json import vocabulary_of
from slm.formats.sentencepiece import read_sentencepiece
from slm.formats.tokenizer_config import NO_CONFIG, TokenizerConfig, read_tokenizer_config
from slm.formats.tokenizer_json import AddedToken, TokenizerJson, add_others, read_tokenizer_json
from slm.vocabulary import Vocabulary

Reader = Callable[[Path, TokenizerConfig], Vocabulary]


def read_folder_vocabulary(folder: str | os.PathLike[str]) -> Vocabulary | None:
    """None when the folder holds none. Raises OSError, FormatError, UnsupportedError, LimitError."""
    for name, reader in FOLDER_READERS.items():
        path = Path(folder, name)
        if path.exists():
            return reader(path, read_tokenizer_config(folder))
    return None


def read_file_vocabulary(path: str | os.PathLike[str]) -> Vocabulary | None:
    """By itself, without its neighbours; None when the name is not that of a tokenizer's file. Raises as above."""
    reader = FILE_READERS.get(Path(path).suffix)
    return None if reader is None else reader(Path(path), NO_CONFIG)


def from_tokenizer_json(path: Path, config: TokenizerConfig) -> Vocabulary:
    return complete(read_tokenizer_json(path), config.special, config)


def from_sentencepiece(path: Path, config: TokenizerConfig) -> Vocabulary:
    return vocabulary_of_sentencepiece(read_sentencepiece(path), config)


def from_merges(path: Path, config: TokenizerConfig) -> Vocabulary:
    file, special = read_merges_folder(path.parent, config)
    vocabulary = complete(file, special, config)
    before, behind = wanted_affixes(config.settings, vocabulary.special_ids, (False, False))
    return replace(vocabulary, prefix=before + vocabulary.prefix, suffix=vocabulary.suffix + behind)


def from_wordpiece(path: Path, config: TokenizerConfig) -> Vocabulary:
    return complete(*read_wordpiece_folder(path.parent, config), config)


def from_wordpiece_file(path: Path, config: TokenizerConfig) -> Vocabulary:
    return complete(*read_wordpiece_file(path, config), config)


def complete(file: TokenizerJson, special: Mapping[str, str], config: TokenizerConfig) -> Vocabulary:
    """special: "bos_token", ... -> its text. A special token that the vocabulary lacks has no id."""
    named = [AddedToken(-1, text, True, normalized=False) for text in set(special.values()) - config.added.keys()]
    add_others(file.tokens, file.added, [*config.added.values(), *named], file.report)
    ids = {text: id for id, text in enumerate(file.tokens)}
    special_ids = {name: ids[text] for name, text in special.items() if text in ids}
    return vocabulary_of(file, special_ids, config.chat_templates)


FOLDER_READERS: Mapping[str, Reader] = {
    "tokenizer.json": from_tokenizer_json,
    "tokenizer.model": from_sentencepiece,
    "vocab.json": from_merges,
    "vocab.txt": from_wordpiece,
}
FILE_READERS: Mapping[str, Reader] = {
    ".json": from_tokenizer_json,
    ".model": from_sentencepiece,
    ".txt": from_wordpiece_file,
}
