# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.model of SentencePiece, with what stands beside it in a folder -> a description for the core's tokenizer."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from slm.errors import quoted
from slm.families.tokenizer_components import SPACE_MARKER
from slm.families.tokenizer_json import describe_tokens, end_tokens, pad_scores
from slm.formats.json_text import Object
from slm.formats.sentencepiece import ModelType, SentencePieceModel
from slm.formats.tokenizer_config import TokenizerConfig
from slm.formats.tokenizer_json import AddedToken, add_others, to_strings
from slm.vocabulary import CONTROL, NORMAL, USER_DEFINED, Normalizer, Vocabulary

MODELS: Mapping[int, Literal["bpe", "unigram"]] = {ModelType.BPE: "bpe", ModelType.UNIGRAM: "unigram"}
# tokenizer_class -> whether bos goes before a text and eos behind it, where the folder does not say. Classes that number the
# pieces in another way than the file are not among them.
CLASSES = {
    None: (True, False), "LlamaTokenizer": (True, False), "CodeLlamaTokenizer": (True, False), "GemmaTokenizer": (True, False),
    "T5Tokenizer": (False, True), "PreTrainedTokenizer": (True, False), "TokenizersBackend": (True, False),
}  # fmt: skip
WITHOUT_SPACES: tuple[Normalizer, ...] = (("strip_left",), ("strip_right",), ("collapse", b" "))


def vocabulary_of_sentencepiece(model: SentencePieceModel, config: TokenizerConfig) -> Vocabulary:
    """Raises FormatError, UnsupportedError."""
    report, trainer, normalizer, settings = model.report, model.trainer, model.normalizer, config.settings
    if trainer.model_type not in MODELS:
        found = ModelType(trainer.model_type).name
        raise report.unsupported("COMPONENT", None, "trainer_spec.model_type", "UNIGRAM or BPE", found)
    for name, wanted in (("treat_whitespace_as_suffix", False), ("escape_whitespaces", True)):
        place = "trainer_spec" if hasattr(trainer, name) else "normalizer_spec"
        if getattr(trainer, name, getattr(normalizer, name, None)) != wanted:
            raise report.unsupported("COMPONENT", None, f"{place}.{name}", str(wanted), str(not wanted))
    tokenizer_class = settings.get_string("tokenizer_class", None)
    around = CLASSES.get(tokenizer_class and tokenizer_class.removesuffix("Fast"))
    if around is None:
        known = ", ".join(name for name in CLASSES if name)
        raise settings.report.unsupported("COMPONENT", None, "$.tokenizer_class", known, quoted(tokenizer_class))

    tokens = [model.piece(id).decode() for id in range(model.size)]
    spaced = normalizer.add_dummy_prefix and settings.get_bool("add_prefix_space", True)
    for id in np.flatnonzero(model.kinds == USER_DEFINED).tolist():
        if SPACE_MARKER in tokens[id] and spaced:  # it could take the space in front of a text along
            found = f"{quoted(tokens[id])} and add_dummy_prefix"
            raise report.unsupported("COMPONENT", None, f"pieces[{id}]", "a user-defined piece without spaces", found)
        tokens[id] = tokens[id].replace(SPACE_MARKER, " ")  # it is looked for in text as it is written
    if normalizer.remove_extra_whitespaces and not normalizer.precompiled_charsmap:
        expected = "False where no charsmap makes spaces of other white space"
        raise report.unsupported("COMPONENT", None, "normalizer_spec.remove_extra_whitespaces", expected, "True")
    added = {
        id: AddedToken(id, tokens[id], special=kind == CONTROL, normalized=False)
        for id, kind in enumerate(model.kinds.tolist())
        if kind in (CONTROL, USER_DEFINED)
    }
    add_others(tokens, added, config.added.values(), report)
    kinds, flags = describe_tokens(added, len(tokens))
    kinds[: model.size] = np.where(kinds[: model.size] == NORMAL, model.kinds, kinds[: model.size])
    ids = {text: id for id, text in enumerate(tokens)}
    special_ids = {name: ids[text] for name, text in config.special.items() if text in ids}
    for name in ("bos", "eos", "unk", "pad"):
        id = getattr(trainer, f"{name}_id")
        if 0 <= id < model.size:
            special_ids.setdefault(f"{name}_token", id)
    prefix, suffix = wanted_affixes(settings, special_ids, around)
    pieces = to_strings(tokens, report, "pieces")
    charsmap: tuple[Normalizer, ...] = (("charsmap", normalizer.precompiled_charsmap),) if normalizer.precompiled_charsmap else ()
    return Vocabulary(
        model=MODELS[trainer.model_type],
        pieces=pieces,
        kinds=kinds.tobytes(),
        flags=flags.tobytes() if flags.any() else None,
        normalizers=charsmap + (WITHOUT_SPACES if normalizer.remove_extra_whitespaces else ()),
        # legacy: a space also goes before what follows an added token
        space_prefix=("always" if settings.get_bool("legacy", True) else "first") if spaced else "none",
        splits=(),
        scores=pad_scores(model.scores, len(tokens)),
        unk=special_ids.get("unk_token", -1),
        byte_fallback=trainer.byte_fallback,
        fuse_unk=True,
        prefix=prefix,
        suffix=suffix,
        special_ids=special_ids,
        end_tokens=end_tokens(pieces, kinds, special_ids),
        chat_templates=config.chat_templates,
    )


def wanted_affixes(
    settings: Object, special_ids: Mapping[str, int], defaults: tuple[bool, bool]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What add_bos_token and add_eos_token put before and behind a text."""
    names = ("bos_token", "eos_token")
    wanted = [settings.get_bool(f"add_{name}", default) for name, default in zip(names, defaults, strict=True)]
    before, behind = (
        (special_ids[name],) if add and name in special_ids else () for name, add in zip(names, wanted, strict=True)
    )
    return before, behind
