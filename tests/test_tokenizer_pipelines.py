# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.json of every published pipeline gives the ids and the text that `tokenizers` gives."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizer_pipelines import BYTE_LEVEL, CHARACTERS, PIPELINES, UNIGRAM, WORDPIECE, made, texts
from tokenizers import AddedToken, Tokenizer

import slm
from slm.errors import FormatError, UnsupportedError

# 100,000 texts for each kind of model, shared among its pipelines, and as many again with added tokens in them.
N_TEXTS = {name: -(-100_000 // len(kind)) for kind in (BYTE_LEVEL, CHARACTERS, UNIGRAM, WORDPIECE) for name in kind}


def load(tmp_path: Path, name: str) -> slm.Tokenizer:
    path = tmp_path / "tokenizer.json"
    made(name).save(str(path))
    return slm.load_tokenizer(path)


@pytest.mark.parametrize("name", PIPELINES)
def test_same_ids_and_text_as_tokenizers(tmp_path: Path, name: str) -> None:
    ours, theirs = load(tmp_path, name), made(name)
    assert len(ours) == theirs.get_vocab_size()
    for added in (False, True):
        examples = texts(N_TEXTS[name], seed=len(name) + added, added=added)
        wanted = [encoding.ids for encoding in theirs.encode_batch(examples, add_special_tokens=added)]
        for text, ids in zip(examples, wanted, strict=True):
            assert ours.encode(text, add_special_tokens=added, parse_special=added) == ids, text
        for skip in (False, True):
            decoded = theirs.decode_batch(wanted, skip_special_tokens=skip)
            for ids, text in zip(wanted, decoded, strict=True):
                assert ours.decode(ids, skip_special_tokens=skip) == text, ids


def test_an_added_token_is_normalized_as_the_text_is(tmp_path: Path) -> None:
    """Also where that puts a space before it, so that it is found at the start of a text only."""
    theirs = Tokenizer.from_str(made("llama-2").to_str())
    theirs.add_tokens([AddedToken("<odd>", normalized=True, lstrip=True), AddedToken("word", single_word=True)])
    path = tmp_path / "tokenizer.json"
    theirs.save(str(path))
    ours = slm.load_tokenizer(path)
    parts = ("<odd>", " <odd>", "word", " word", ".word", "  ", "a<tool>", "b", "<s>")
    for text in map("".join, itertools.product(parts, repeat=4)):
        assert ours.encode(text, parse_special=True) == theirs.encode(text).ids, text


def test_gemma_4_from_gguf(tmp_path: Path) -> None:
    theirs = made("gemma")
    content = json.loads(theirs.to_str())
    pieces = [theirs.id_to_token(id) for id in range(theirs.get_vocab_size())]
    added = {token["id"]: 3 if token["special"] else 4 for token in content["added_tokens"]}
    kinds = [added.get(id, 6 if len(piece) == 6 and piece.startswith("<0x") else 1) for id, piece in enumerate(pieces)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tokenizer_model("gemma4")
    writer.add_tokenizer_pre("gemma4")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_unk_token_id(pieces.index(content["model"]["unk_token"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    ours = slm.load_tokenizer(tmp_path / "x.gguf")
    examples = texts(20_000, seed=4, added=False)
    for text, encoding in zip(examples, theirs.encode_batch(examples, add_special_tokens=False), strict=True):
        assert ours.encode(text, add_special_tokens=False) == encoding.ids, text


def test_control_tokens_are_text_unless_they_are_parsed(tmp_path: Path) -> None:
    ours = load(tmp_path, "llama-3")
    end = ours.token_id("<|im_end|>")
    assert end in ours.encode("a<|im_end|>", parse_special=True)
    assert end not in ours.encode("a<|im_end|>")
    assert ours.token_id("<tool>") in ours.encode("a<tool>")
    assert ours.encode("a", add_special_tokens=True)[0] == ours.token_id("<|end|>")


# ---- what slm does not have is named -------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], Any]


def sets(name: str, value: Any) -> Change:
    return lambda content: content.update({name: value})


def in_model(name: str, value: Any) -> Change:
    return lambda content: content["model"].update({name: value})


def split(pattern: Any, **other: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False, **other}


UNSUPPORTED: list[tuple[str, Change, str]] = [
    ("WordLevel", in_model("type", "WordLevel"), "$.model.type"),
    ("dropout", in_model("dropout", 0.1), "$.model.dropout"),
    ("prefix of pieces", in_model("continuing_subword_prefix", "##"), "$.model.continuing_subword_prefix"),
    ("suffix of pieces", in_model("end_of_word_suffix", "</w>"), "$.model.end_of_word_suffix"),
    ("Nmt", sets("normalizer", {"type": "Nmt"}), "$.normalizer.type"),
    ("pattern to replace", sets("normalizer", {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}),
     "$.normalizer.pattern.Regex"),
    ("second normalizer", sets("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Odd"}]}),
     "$.normalizer.normalizers[1].type"),
    ("UnicodeScripts", sets("pre_tokenizer", {"type": "UnicodeScripts"}), "$.pre_tokenizer.type"),
    ("unknown pattern", sets("pre_tokenizer", split({"Regex": "a+"})), "$.pre_tokenizer.pattern.Regex"),
    ("split at text", sets("pre_tokenizer", split({"String": "-"})), "$.pre_tokenizer.pattern.String"),
    ("split that does something else", sets("pre_tokenizer", split({"Regex": r"\p{N}"}, behavior="Odd")),
     "$.pre_tokenizer.behavior"),
    ("empty matches are merged", sets("pre_tokenizer", split({"Regex": r"(?=(\d{3})+(?!\d))"}, behavior="MergedWithNext")),
     "$.pre_tokenizer.behavior"),
    ("text behind bytes", sets("pre_tokenizer", {"type": "Sequence", "pretokenizers": [
        {"type": "ByteLevel", "add_prefix_space": False}, {"type": "Whitespace"}]}), "$.pre_tokenizer.pretokenizers[1]"),
    ("no pre-tokenizer", sets("pre_tokenizer", None), "$.pre_tokenizer"),
    ("marker", sets("pre_tokenizer", {"type": "Metaspace", "replacement": "_"}), "$.pre_tokenizer.replacement"),
    ("post-processor", sets("post_processor", {"type": "Odd"}), "$.post_processor.type"),
    ("no decoder", sets("decoder", None), "$.decoder"),
    ("other decoder", sets("decoder", {"type": "BPEDecoder"}), "$.decoder"),
]  # fmt: skip
MALFORMED: list[tuple[str, Change, str]] = [
    ("unk is no token", in_model("unk_token", "<none>"), "$.model.unk_token"),
    ("component is text", sets("pre_tokenizer", "ByteLevel"), "$.pre_tokenizer"),
    ("component without type", sets("pre_tokenizer", {}), "$.pre_tokenizer.type"),
    ("sequence of text", sets("pre_tokenizer", {"type": "Sequence", "pretokenizers": ["ByteLevel"]}),
     "$.pre_tokenizer.pretokenizers[0]"),
    ("charsmap is no base64", sets("normalizer", {"type": "Precompiled", "precompiled_charsmap": "é"}),
     "$.normalizer.precompiled_charsmap"),
    ("id behind the end", sets("post_processor", {"type": "BertProcessing", "cls": ["a", 1 << 20], "sep": ["a", 0]}),
     "$.post_processor.cls"),
    ("template of no text", sets("post_processor", {"type": "TemplateProcessing", "single": []}), "$.post_processor.single"),
    ("template of an unknown token", sets("post_processor", {
        "type": "TemplateProcessing", "special_tokens": {},
        "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    }), "$.post_processor.special_tokens"),
    ("merge of no token", in_model("merges", [["a", "\u0141\u0141"]]), "tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field"), [row[1:] for row in UNSUPPORTED], ids=[row[0] for row in UNSUPPORTED])
def test_what_slm_does_not_have_is_named_by_its_path(tmp_path: Path, change: Change, field: str) -> None:
    assert refusal(tmp_path, change, UnsupportedError).field == field


@pytest.mark.parametrize(("change", "field"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_what_makes_no_sense_is_named_by_its_path(tmp_path: Path, change: Change, field: str) -> None:
    assert refusal(tmp_path, change, FormatError).field == field


def refusal(tmp_path: Path, change: Change, kind: type[Exception]) -> Any:
    content = json.loads(made("gpt-2").to_str())
    change(content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(kind) as caught:
        slm.load_tokenizer(path)
    assert str(path) in str(caught.value)
    return caught.value
