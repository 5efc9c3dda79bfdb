# SPDX-License-Identifier: Apache-2.0
"""Vocabularies without a tokenizer.json: vocab.json with merges.txt, and vocab.txt, made into the tokenizer.json that
Transformers would make of them. Which components go with one follows from tokenizer_class, else from model_type.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slm.errors import quoted
from slm.families.split_patterns import line_words
from slm.formats.json_text import Object, read_object
from slm.formats.report import Report
from slm.formats.tokenizer_config import TokenizerConfig, read_lines, read_optional
from slm.formats.tokenizer_json import CODES, MAX_FILE, MAX_VALUES, TokenizerJson, parse_tokenizer

Components = Mapping[str, Any]  # of a tokenizer.json; "around": the texts of the tokens before and behind a text
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


def gpt2(settings: Object, special: Mapping[str, str]) -> Components:
    words = {"type": "ByteLevel", "add_prefix_space": settings.get_bool("add_prefix_space", False)}
    return {"pre_tokenizer": words, "decoder": {"type": "ByteLevel"}}


def roberta(settings: Object, special: Mapping[str, str]) -> Components:
    return {**gpt2(settings, special), "around": (special.get("cls_token", "<s>"), special.get("sep_token", "</s>"))}


def qwen2(settings: Object, special: Mapping[str, str]) -> Components:
    split = {"type": "Split", "pattern": {"Regex": line_words(r"\p{N}")}, "behavior": "Isolated", "invert": False}
    return {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
        "decoder": {"type": "ByteLevel"},
    }


def bert(settings: Object, special: Mapping[str, str]) -> Components:
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings.get_bool("tokenize_chinese_chars", True),
            "strip_accents": settings.get_bool("strip_accents", None),
            "lowercase": settings.get_bool("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "around": (special.get("cls_token", "[CLS]"), special.get("sep_token", "[SEP]")),
    }


# tokenizer_class -> how its components are made, and what its special tokens are where no file names them
GPT2_SPECIAL = dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
ROBERTA_SPECIAL = {
    "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>",
    "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
BERT_SPECIAL = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "SEP", "PAD", "CLS", "MASK")}
Class = tuple[Callable[[Object, Mapping[str, str]], Components], Mapping[str, str]]
BYTE_LEVEL_CLASSES: Mapping[str, Class] = {
    "GPT2Tokenizer": (gpt2, GPT2_SPECIAL),
    "CodeGenTokenizer": (gpt2, GPT2_SPECIAL),
    "RobertaTokenizer": (roberta, ROBERTA_SPECIAL),
    "Qwen2Tokenizer": (qwen2, dict.fromkeys(("eos_token", "pad_token"), "<|endoftext|>")),
}
WORDPIECE_CLASSES: Mapping[str, Class] = dict.fromkeys(
    ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"), (bert, BERT_SPECIAL)
)
CLASS_OF_TYPE = {
    "gpt2": "GPT2Tokenizer", "codegen": "CodeGenTokenizer", "phi": "CodeGenTokenizer", "roberta": "RobertaTokenizer",
    "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "bert": "BertTokenizer", "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer", "mobilebert": "MobileBertTokenizer",
}  # fmt: skip


def read_merges_folder(folder: Path, config: TokenizerConfig) -> tuple[TokenizerJson, Mapping[str, str]]:
    """vocab.json and merges.txt: byte-level BPE. Also the special tokens by their roles."""
    make, special = class_of(folder, config, BYTE_LEVEL_CLASSES)
    report = Report(folder / "vocab.json", "TOKENIZER", CODES)
    vocab = read_object(folder / "vocab.json", report, MAX_FILE, max_values=MAX_VALUES)
    merges = [line for line in read_lines(folder / "merges.txt") if line and not line.startswith("#version")]
    return assemble({"type": "BPE", "vocab": vocab.values, "merges": merges}, make, {**special, **config.special}, config, report)


def read_wordpiece_folder(folder: Path, config: TokenizerConfig) -> tuple[TokenizerJson, Mapping[str, str]]:
    """vocab.txt: WordPiece, a token a line."""
    make, special = class_of(folder, config, WORDPIECE_CLASSES)
    return read_wordpiece_file(folder / "vocab.txt", config, make, special)


def read_wordpiece_file(
    path: Path, config: TokenizerConfig, make: Callable[..., Components] = bert, special: Mapping[str, str] = BERT_SPECIAL
) -> tuple[TokenizerJson, Mapping[str, str]]:
    report = Report(path, "TOKENIZER", CODES)
    vocab: dict[str, int] = {}
    for id, line in enumerate(read_lines(path)):
        if vocab.setdefault(line, id) != id:
            raise report.bad("VOCAB", None, f"line {id + 1}", "a token of its own", f"{quoted(line)}, as line {vocab[line] + 1}")
    special = {**special, **config.special}
    model = {"type": "WordPiece", "unk_token": special["unk_token"], "vocab": vocab}
    return assemble(model, make, special, config, report)


def class_of(folder: Path, config: TokenizerConfig, classes: Mapping[str, Class]) -> Class:
    name = config.settings.get_string("tokenizer_class", None)
    if name is None:
        place = read_optional(folder / "config.json")
        kind = place.get_string("model_type", None)
        if kind not in CLASS_OF_TYPE:
            known = ", ".join(classes)
            raise config.settings.report.unsupported("COMPONENT", None, "$.tokenizer_class", known, "none")
        name = CLASS_OF_TYPE[kind]
    name = name.removesuffix("Fast")
    if name not in classes:
        known = ", ".join(classes)
        raise config.settings.report.unsupported("COMPONENT", None, "$.tokenizer_class", known, quoted(name))
    return classes[name]


def assemble(
    model: dict[str, Any],
    make: Callable[..., Components],
    special: Mapping[str, str],
    config: TokenizerConfig,
    report: Report,
) -> tuple[TokenizerJson, Mapping[str, str]]:
    components = dict(make(config.settings, special))
    around = components.pop("around", None)
    vocab = model["vocab"]
    if around is not None:
        for token in around:
            if token not in vocab:
                raise report.bad("VOCAB", None, "vocabulary", f"the special token {quoted(token)}", "none")
        components["post_processor"] = {"type": "BertProcessing"} | {
            name: [token, vocab[token]] for name, token in zip(("cls", "sep"), around, strict=True)
        }
    return parse_tokenizer(Object({"model": model, **components}, "$", report)), special
