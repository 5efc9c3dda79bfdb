# SPDX-License-Identifier: Apache-2.0
"""Folders: which vocabulary counts, what the files beside it change, and vocabularies that are not a tokenizer.json."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_pipelines import QWEN_2, byte_level, corpus, made, split, texts
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import slm
from slm.errors import FormatError, UnsupportedError
from slm.families.tokenizer_folder import read_folder_vocabulary

SENTENCEPIECE = Path(__file__).parent / "data" / "sentencepiece"


def folder(path: Path, **files: Any) -> Path:
    """Files by name, with "__" for the dot: texts as they are, bytes as they are, all else as JSON."""
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        file = path / name.replace("__", ".")
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def assert_same(ours: slm.Tokenizer, theirs: Tokenizer, seed: int) -> None:
    for special in (False, True):
        examples = texts(5000, seed, added=special)
        for text, encoding in zip(examples, theirs.encode_batch(examples, add_special_tokens=special), strict=True):
            assert ours.encode(text, add_special_tokens=special, parse_special=special) == encoding.ids, text


# ---- tokenizer.model -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bpe", "bpe_without_prefix", "unigram"])
def test_sentencepiece_models_give_the_ids_of_sentencepiece(name: str) -> None:
    expected = json.loads((SENTENCEPIECE / f"{name}.json").read_text(encoding="utf-8"))
    tokenizer = slm.load_tokenizer(SENTENCEPIECE / f"{name}.model")
    for text, ids, decoded in zip(expected["texts"], expected["ids"], expected["decoded"], strict=True):
        if "\uff76\uff9e" in text:  # the original composes these; tokenizers, which slm follows, maps each grapheme or character
            continue
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == decoded.replace(" \u2047 ", "<unk>")  # how the original shows what it does not know
    assert tokenizer.bos_id == (expected["bos_id"] if expected["bos_id"] >= 0 else None)
    assert tokenizer.eos_id == expected["eos_id"]


def test_what_a_sentencepiece_model_needs_and_slm_lacks_is_named() -> None:
    with pytest.raises(UnsupportedError) as caught:
        slm.load_tokenizer(SENTENCEPIECE / "unigram_bytes.model")
    assert caught.value.field == "normalizer_spec.remove_extra_whitespaces"


def test_a_folder_adds_tokens_and_affixes_to_a_sentencepiece_model(tmp_path: Path) -> None:
    model = (SENTENCEPIECE / "bpe.model").read_bytes()
    config = {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True,
        "bos_token": "<s>", "eos_token": "<|end|>",
        "added_tokens_decoder": {
            "700": {"content": "<|end|>", "special": True, "normalized": False},
            "701": {"content": "<tool>", "special": False, "normalized": False, "rstrip": True},
        },
        "pad_token": "<nowhere>",
    }  # fmt: skip
    tokenizer = slm.load_tokenizer(folder(tmp_path / "a", tokenizer__model=model, tokenizer_config__json=config))
    plain = slm.load_tokenizer(SENTENCEPIECE / "bpe.model")
    assert (len(tokenizer), tokenizer.bos_id, tokenizer.eos_id) == (702, 1, 700)
    assert tokenizer.encode("ab") == [1, *plain.encode("ab", add_special_tokens=False), 700]
    assert 700 in tokenizer.end_ids
    before, behind = (plain.encode(text, add_special_tokens=False) for text in ("a", "b"))
    assert tokenizer.encode("a<tool>  b", add_special_tokens=False) == [*before, 701, *behind]
    assert plain.encode("ab") == [1, *plain.encode("ab", add_special_tokens=False)]


def test_added_tokens_of_the_first_spelling(tmp_path: Path) -> None:
    model = (SENTENCEPIECE / "bpe.model").read_bytes()
    files = {"tokenizer__model": model, "added_tokens__json": {"[PAD]": 700}, "special_tokens_map__json": {"pad_token": "[PAD]"}}
    tokenizer = slm.load_tokenizer(folder(tmp_path / "a", **files))
    assert tokenizer.token_id("[PAD]") == 700
    assert 700 in tokenizer.control_ids


@pytest.mark.parametrize("text", ["\ud800", "<a>"])
def test_added_tokens_that_a_sentencepiece_model_cannot_take(tmp_path: Path, text: str) -> None:
    model, added = (SENTENCEPIECE / "bpe.model").read_bytes(), {text: 700 if text == "\ud800" else 9999}
    with pytest.raises(FormatError):
        slm.load_tokenizer(folder(tmp_path / "a", tokenizer__model=model, added_tokens__json=added))


def test_a_class_that_numbers_pieces_in_another_way_is_refused(tmp_path: Path) -> None:
    model = (SENTENCEPIECE / "unigram.model").read_bytes()
    config = {"tokenizer_class": "XLMRobertaTokenizer"}
    with pytest.raises(UnsupportedError) as caught:
        slm.load_tokenizer(folder(tmp_path / "a", tokenizer__model=model, tokenizer_config__json=config))
    assert caught.value.field == "$.tokenizer_class"


# ---- vocab.json with merges.txt, vocab.txt -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer_class", ["GPT2Tokenizer", "CodeGenTokenizerFast", "Qwen2Tokenizer", "RobertaTokenizer"])
def test_byte_level_vocabulary_and_merges(tmp_path: Path, tokenizer_class: str) -> None:
    if tokenizer_class == "Qwen2Tokenizer":
        theirs = byte_level(split(QWEN_2), normalizer=normalizers.NFC())
    else:
        theirs = byte_level(words=True)
    path = folder(tmp_path / "a", tokenizer_config__json={"tokenizer_class": tokenizer_class, "eos_token": "<|end|>"})
    config = json.loads((path / "tokenizer_config.json").read_text())
    if tokenizer_class == "RobertaTokenizer":
        end = ("<|end|>", theirs.token_to_id("<|end|>"))
        theirs.post_processor = processors.RobertaProcessing(end, end)
        folder(path, tokenizer_config__json=config | {"cls_token": "<|end|>", "sep_token": "<|end|>"})
    theirs.model.save(str(path))
    ours = slm.load_tokenizer(path)
    assert_same(ours, theirs, seed=1)
    assert ours.end_ids == (theirs.token_to_id("<|end|>"),)


def test_the_model_type_tells_the_class(tmp_path: Path) -> None:
    theirs = byte_level(words=True)
    theirs.model.save(str(folder(tmp_path / "a", config__json={"model_type": "gpt2"})))
    assert slm.load_tokenizer(tmp_path / "a").encode("a  b") == theirs.encode("a  b").ids
    folder(tmp_path / "a", config__json={"model_type": "unheard"})
    with pytest.raises(UnsupportedError, match="tokenizer_class"):
        slm.load_tokenizer(tmp_path / "a")


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_in_lines_is_bert_s(tmp_path: Path, lower: bool) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    theirs = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer = normalizers.BertNormalizer(lowercase=lower)
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, limit_alphabet=400, show_progress=False)
    theirs.train_from_iterator(corpus(), trainer)
    theirs.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    path = folder(tmp_path / "a", tokenizer_config__json=config)
    theirs.model.save(str(path))
    ours = slm.load_tokenizer(path)
    assert_same(ours, theirs, seed=2)
    ids = theirs.encode("An unheard-of word, isn't it?").ids
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids)
    if lower:
        assert slm.load_tokenizer(path / "vocab.txt").encode("Ärger") == theirs.encode("Ärger").ids


# ---- what stands beside the vocabulary -----------------------------------------------------------------------------------------


def test_tokenizer_json_comes_first_and_says_what_goes_around_a_text(tmp_path: Path) -> None:
    theirs = made("llama-3")
    path = folder(
        tmp_path / "a",
        tokenizer__json=theirs.to_str(),
        tokenizer__model=(SENTENCEPIECE / "bpe.model").read_bytes(),
        tokenizer_config__json={"add_bos_token": False, "add_eos_token": True, "eos_token": "<|im_end|>"},
    )
    assert slm.load_tokenizer(path).encode("a") == theirs.encode("a").ids


def test_the_configuration_names_special_tokens_and_their_flags(tmp_path: Path) -> None:
    theirs = byte_level(words=True)
    new = theirs.get_vocab_size()
    config = {
        "bos_token": "<|end|>", "pad_token": "<nowhere>",
        "eos_token": {"content": "<new>", "lstrip": True, "__type": "AddedToken"},
        "additional_special_tokens": ["<|end|>", "<elsewhere>"],
        "added_tokens_decoder": {str(new): {"content": "<new>", "lstrip": True, "normalized": False, "special": False}},
    }  # fmt: skip
    path = folder(tmp_path / "a", tokenizer__json=theirs.to_str(), tokenizer_config__json=config)
    vocabulary = read_folder_vocabulary(path)
    assert vocabulary is not None
    assert vocabulary.special_ids == {"bos_token": theirs.token_to_id("<|end|>"), "eos_token": new}
    theirs.add_special_tokens([AddedToken("<new>", lstrip=True, normalized=False)])
    ours = slm.load_tokenizer(path)
    for text in ("a  <new>b", "other <|end|> one"):
        assert ours.encode(text, parse_special=True) == theirs.encode(text).ids
    assert set(ours.control_ids) == {theirs.token_to_id(text) for text in ("<new>", "<|end|>")}


HOSTILE = [
    ({"added_tokens_decoder": {"x": {"content": "<a>"}}}, "ADDED", "$.added_tokens_decoder.x"),
    ({"added_tokens_decoder": {"9999": {"content": "<a>"}}}, "ADDED", "$.added_tokens_decoder.9999"),
    ({"added_tokens_decoder": {"0": {}}}, "JSON_MISSING", "$.added_tokens_decoder.0.content"),
    ({"additional_special_tokens": [1]}, "JSON_TYPE", "$.additional_special_tokens[0]"),
    ({"bos_token": {}}, "JSON_MISSING", "$.bos_token.content"),
    ({"chat_template": 1}, "JSON_TYPE", "$.chat_template"),
    ({"chat_template": ["a"]}, "JSON_TYPE", "$.chat_template[0]"),
    ({"chat_template": [{"name": "a", "template": "b"}] * 2}, "JSON_TYPE", "$.chat_template"),
]


@pytest.mark.parametrize(("config", "code", "field"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_configurations(tmp_path: Path, config: Any, code: str, field: str) -> None:
    path = folder(tmp_path / "a", tokenizer__json=made("gpt-2").to_str(), tokenizer_config__json=config)
    with pytest.raises(FormatError) as caught:
        slm.load_tokenizer(path)
    assert (caught.value.code, caught.value.field) == (f"TOKENIZER_{code}", field)


def test_chat_templates_in_every_place(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", tokenizer__json=made("gpt-2").to_str())
    assert templates(path) == {}
    folder(path, tokenizer_config__json={"chat_template": "config"})
    assert templates(path) == {"default": "config"}
    named = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]
    folder(path, tokenizer_config__json={"chat_template": named})
    assert templates(path) == {"default": "one", "tool_use": "two"}
    folder(path, chat_template__jinja=b"line\r\nline")
    assert templates(path) == {"default": "line\nline"}
    folder(path / "additional_chat_templates", tool_use__jinja="tools", notes__txt="no template")
    assert templates(path) == {"default": "line\nline", "tool_use": "tools"}
    folder(path, chat_template__jinja=b"\xff")
    with pytest.raises(FormatError, match=r"chat_template\.jinja"):
        templates(path)


def templates(path: Path) -> dict[str, str]:
    vocabulary = read_folder_vocabulary(path)
    assert vocabulary is not None
    return dict(vocabulary.chat_templates)


def test_a_folder_without_a_vocabulary(tmp_path: Path) -> None:
    assert read_folder_vocabulary(tmp_path) is None
    with pytest.raises(FormatError, match="none of them"):
        slm.load_tokenizer(tmp_path)
