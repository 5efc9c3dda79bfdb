# SPDX-License-Identifier: Apache-2.0
"""The components of a tokenizer.json -> what the core takes: normalizers, space prefix, words, and what goes around a text.

Only what the core does exactly is taken; any other component or pattern raises UnsupportedError with its JSON path.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from slm.errors import UnsupportedError, quoted
from slm.families.split_patterns import PATTERNS, SEQUENCES
from slm.formats.json_text import Object, shown
from slm.vocabulary import Normalizer, SpacePrefix, Split

SPACE_MARKER = "\u2581"
MAX_COMPONENTS = 256
MAX_SPLITS = 8  # SLM_MAX_SPLITS
SIMPLE_NORMALIZERS = {
    "NFC": "nfc",
    "NFD": "nfd",
    "NFKC": "nfkc",
    "NFKD": "nfkd",
    "Lowercase": "lowercase",
    "StripAccents": "strip_marks",
}
SPACE_PREFIXES: Mapping[str, SpacePrefix] = {
    "always": "missing",
    "first": "first",
    "never": "none",
}  # of Metaspace -> slm_space_prefix


def flat(component: Object | None, members: str) -> list[Object]:
    """The steps of a component in the order that they act; `members` names those of a Sequence."""
    steps: list[Object] = []
    if component is not None:
        add_steps(component, members, steps)
    return steps


def add_steps(component: Object, members: str, steps: list[Object]) -> None:
    if component.get_string("type") != "Sequence":
        if len(steps) == MAX_COMPONENTS:
            raise component.report.limit("LIMIT", None, component.path, MAX_COMPONENTS + 1, MAX_COMPONENTS)
        steps.append(component)
        return
    for index, member in enumerate(component.get_list(members)):
        where = f"{component.where(members)}[{index}]"
        if not isinstance(member, dict):
            raise component.report.bad("JSON_TYPE", None, where, "an object", shown(member))
        add_steps(Object(member, where, component.report), members, steps)


def unsupported(component: Object, name: str, expected: str | None, found: str) -> UnsupportedError:
    return component.report.unsupported("COMPONENT", None, component.where(name), expected, found)


def refuse(component: Object, expected: str | None = None) -> UnsupportedError:
    return unsupported(component, "type", expected, quoted(component.get_string("type")))


# ---- normalizers ---------------------------------------------------------------------------------------------------------------


def read_normalizers(component: Object | None) -> list[Normalizer]:
    normalizers: list[Normalizer] = []
    for step in flat(component, "normalizers"):
        normalizers += read_normalizer(step)
    return normalizers


def read_normalizer(step: Object) -> Iterator[Normalizer]:
    kind = step.get_string("type")
    if kind in SIMPLE_NORMALIZERS:
        yield (SIMPLE_NORMALIZERS[kind],)
    elif kind == "Strip":
        for side in ("left", "right"):
            if step.get_bool(f"strip_{side}"):
                yield (f"strip_{side}",)
    elif kind == "Replace":
        yield read_replace(step)
    elif kind == "Prepend":
        yield "prepend", text(step, "prepend")
    elif kind == "Precompiled":
        try:
            yield "charsmap", base64.b64decode(step.get_string("precompiled_charsmap"), validate=True)
        except (binascii.Error, ValueError):
            where = step.where("precompiled_charsmap")
            raise step.report.bad("JSON_RANGE", None, where, "base64", "something else") from None
    elif kind == "BertNormalizer":
        yield from bert_normalizers(
            clean_text=step.get_bool("clean_text"),
            handle_chinese_chars=step.get_bool("handle_chinese_chars"),
            strip_accents=step.get_bool("strip_accents", None),
            lowercase=step.get_bool("lowercase"),
        )
    else:
        raise refuse(step)


def bert_normalizers(
    *, clean_text: bool, handle_chinese_chars: bool, strip_accents: bool | None, lowercase: bool
) -> Iterator[Normalizer]:
    """strip_accents None: as lowercase."""
    if clean_text:
        yield ("clean",)
    if handle_chinese_chars:
        yield ("space_cjk",)
    if lowercase if strip_accents is None else strip_accents:
        yield ("nfd",)
        yield ("strip_nonspacing",)
    if lowercase:
        yield ("lowercase",)


def read_replace(step: Object) -> Normalizer:
    pattern = step.get_object("pattern")
    content = text(step, "content")
    if "String" in pattern:
        return "replace", text(pattern, "String"), content
    if pattern.get_string("Regex") != " {2,}":
        raise unsupported(pattern, "Regex", "' {2,}'", quoted(pattern.get_string("Regex")))
    return "collapse", content


def text(component: Object, name: str) -> bytes:
    value = component.get_string(name)
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise component.report.bad("JSON", None, component.where(name), "Unicode", "half of a surrogate pair") from None


# ---- pre-tokenizers ------------------------------------------------------------------------------------------------------------


class Words(NamedTuple):
    """How text is cut into words. escaped: the marker stands for spaces, here or before. byte_level: words become bytes."""

    splits: tuple[Split, ...]
    space_prefix: SpacePrefix = "none"
    escaped: bool = False
    byte_level: bool = False


# type -> splits, of those that have no settings
PLAIN_SPLITS: Mapping[str, tuple[Split, ...]] = {
    "BertPreTokenizer": (("white_space", "removed"), "punctuation"),
    "Whitespace": (("words_and_signs", "kept"),),
    "WhitespaceSplit": (("white_space", "removed"),),
}
# behavior -> slm_behavior; INVERTED: where matches and what lies between them change places
BEHAVIORS = {
    "Isolated": "isolated",
    "Removed": "removed",
    "MergedWithPrevious": "merged_with_previous",
    "MergedWithNext": "merged_with_next",
    "Contiguous": "contiguous",
}
INVERTED = {
    "isolated": "isolated",
    "removed": "kept",
    "merged_with_previous": "merged_with_next",
    "merged_with_next": "merged_with_previous",
    "contiguous": "contiguous",
}
BYTE_SPLITS = ("byte_digit", "byte_digits", "three_digits")  # which cut the letters that stand for bytes


def read_words(component: Object | None, escaped: bool) -> Words:
    """escaped: the normalizer has already put the marker for every space."""
    words = Words((), escaped=escaped)
    steps = flat(component, "pretokenizers")
    joined = join_splits(steps)
    for index, step in enumerate(steps):
        kind = step.get_string("type")
        behind_bytes = words.byte_level
        splits: tuple[Split, ...] = ()
        if kind == "ByteLevel":
            if step.get_bool("add_prefix_space"):
                if index > 0:
                    raise unsupported(step, "add_prefix_space", "false behind other pre-tokenizers", "true")
                words = words._replace(space_prefix="missing")
            splits = ("gpt2_words",) if step.get_bool("use_regex", True) else ()
            words = words._replace(byte_level=True)
        elif kind == "Metaspace":
            words = words._replace(space_prefix=read_metaspace(step), escaped=True)
            splits = ("space_words",) if step.get_bool("split", True) else ()
        elif index in joined:
            splits = joined[index]
        elif kind == "Split":
            splits = read_split(step, words.escaped)
        elif kind == "Digits":
            name = "digit" if step.get_bool("individual_digits") else "digits"
            splits = (f"byte_{name}" if behind_bytes else name.replace("digit", "number"),)
        elif kind == "Punctuation":
            splits = (with_behavior("punctuation", read_behavior(step, "Isolated")),)
        elif kind in PLAIN_SPLITS:
            splits = PLAIN_SPLITS[kind]
        else:
            raise refuse(step)
        if behind_bytes and not all(split in BYTE_SPLITS for split in splits):
            raise step.report.unsupported("COMPONENT", None, step.path, "Digits behind ByteLevel", quoted(kind))
        words = words._replace(splits=words.splits + splits)
        if len(words.splits) > MAX_SPLITS:
            raise step.report.limit("LIMIT", None, step.path, len(words.splits), MAX_SPLITS)
    return words


def join_splits(steps: list[Object]) -> dict[int, tuple[Split, ...]]:
    """The splits of those steps that only together are one: it stands at the first of them."""
    patterns = [read_pattern(step) for step in steps]
    joined: dict[int, tuple[Split, ...]] = {}
    for sequence, split in SEQUENCES.items():
        size = len(sequence)
        for index in range(len(steps) - size + 1):
            if tuple(patterns[index : index + size]) == sequence:
                joined |= dict.fromkeys(range(index, index + size), ()) | {index: (split,)}
    return joined


def read_pattern(step: Object) -> str | None:
    """The regular expression whose matches a Split keeps apart; None: it is something else."""
    if step.get_string("type") != "Split" or step.get_string("behavior") != "Isolated":
        return None
    return step.get_object("pattern").get_string("Regex", None)


def escape_lines(pattern: str) -> str:
    """Some files hold the ends of lines themselves, in a class of characters, where others hold escapes."""
    return pattern.replace("\r", r"\r").replace("\n", r"\n")


def read_metaspace(step: Object) -> SpacePrefix:
    """slm_space_prefix."""
    if step.get_string("replacement") != SPACE_MARKER:
        raise unsupported(step, "replacement", quoted(SPACE_MARKER), quoted(step.get_string("replacement")))
    if "prepend_scheme" not in step:  # as it was written before there were three schemes
        return "missing" if step.get_bool("add_prefix_space", True) else "none"
    scheme = step.get_string("prepend_scheme")
    if scheme not in SPACE_PREFIXES:
        raise unsupported(step, "prepend_scheme", ", ".join(map(repr, SPACE_PREFIXES)), quoted(scheme))
    return SPACE_PREFIXES[scheme]


def read_split(step: Object, escaped: bool) -> tuple[Split, ...]:
    behavior, invert = read_behavior(step), step.get_bool("invert", False)
    pattern = step.get_object("pattern")
    if escaped and pattern.values == {"String": " "}:  # no space is left to split at
        return ()
    name = "String" if "String" in pattern else "Regex"
    text = escape_lines(pattern.get_string(name))
    if name == "String" or text not in PATTERNS:
        raise unsupported(pattern, name, "a published way to cut words", quoted(text))
    split = PATTERNS[text]
    if invert:
        behavior = INVERTED[behavior]
    # To the core a match of these is what follows it, up to the next.
    if split == "before_groups" and behavior != "isolated":
        raise unsupported(step, "behavior", "'Isolated', as matches are empty", quoted(step.get_string("behavior")))
    return (with_behavior(split, behavior),)


def with_behavior(split: str, behavior: str) -> Split:
    return split if behavior == "isolated" else (split, behavior)


def read_behavior(step: Object, *default: str) -> str:
    """slm_behavior."""
    behavior = step.get_string("behavior", *default)
    if behavior not in BEHAVIORS:
        raise unsupported(step, "behavior", ", ".join(map(repr, BEHAVIORS)), quoted(behavior))
    return BEHAVIORS[behavior]


# ---- post-processors -----------------------------------------------------------------------------------------------------------


def read_affixes(component: Object | None, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that go before and behind a text."""
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    for step in flat(component, "processors"):
        kind = step.get_string("type")
        if kind == "TemplateProcessing":
            before, behind = read_template(step, size)
        elif kind in ("BertProcessing", "RobertaProcessing"):
            before, behind = read_pair(step, "cls", size), read_pair(step, "sep", size)
        elif kind == "ByteLevel":  # changes offsets only
            continue
        else:
            raise refuse(step)
        prefix, suffix = before + prefix, suffix + behind
    return prefix, suffix


def read_pair(step: Object, name: str, size: int) -> tuple[int, ...]:
    pair = step.get_list(name)
    if len(pair) != 2 or type(pair[1]) is not int or not 0 <= pair[1] < size:
        raise step.report.bad("JSON_RANGE", None, step.where(name), f"[text, id below {size}]", shown(pair))
    return (pair[1],)


def read_template(step: Object, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sides: tuple[list[int], list[int]] = ([], [])
    n_texts = 0
    special = step.get_object("special_tokens", None)
    for index, item in enumerate(step.get_list("single")):
        where = f"{step.where('single')}[{index}]"
        if not isinstance(item, dict):
            raise step.report.bad("JSON_TYPE", None, where, "an object", shown(item))
        part = Object(item, where, step.report)
        if "Sequence" in part:
            n_texts += 1
            continue
        name = part.get_object("SpecialToken").get_string("id")
        if special is None or name not in special:
            raise step.report.bad("JSON_MISSING", None, step.where("special_tokens"), f"an entry {quoted(name)}", "none")
        sides[min(n_texts, 1)].extend(special.get_object(name).get_ids("ids", size))
    if n_texts != 1:
        raise step.report.bad("JSON_RANGE", None, step.where("single"), "one Sequence", n_texts)
    return tuple(sides[0]), tuple(sides[1])


# ---- decoders ------------------------------------------------------------------------------------------------------------------


def describe_decoder(component: Object | None) -> tuple[Any, ...]:
    """The steps of a decoder, each with the settings that matter; to be compared with those that go with a model."""
    steps: list[Any] = []
    for step in flat(component, "decoders"):
        kind = step.get_string("type")
        if kind == "Replace":
            pattern = step.get_object("pattern")
            steps.append((kind, pattern.get_string("String", None), step.get_string("content")))
        elif kind == "Strip":
            steps.append((kind, step.get_string("content"), *(step.get_int(side, 0, 1 << 30) for side in ("start", "stop"))))
        elif kind == "WordPiece":
            steps.append((kind, step.get_string("prefix"), step.get_bool("cleanup")))
        elif kind == "Metaspace":
            steps.append((kind, read_metaspace(step) != "none"))
        else:
            steps.append((kind,))
    return tuple(steps)
