# SPDX-License-Identifier: Apache-2.0
"""tokenizer.json: what a file holds is read by id, and what is wrong in one is named by its JSON path.

Ids of hostile rows are those of a catalogue of real bugs in readers of such files.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm.errors import Error, FormatError, LimitError
from slm.formats.tokenizer_json import AddedToken, TokenizerJson, read_tokenizer_json

Change = Callable[[dict[str, Any]], Any]


def document() -> dict[str, Any]:
    """A small file of the published shape."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": 0, "content": "<s>", **flags, "special": True},
            {"id": 4, "content": "<tool>", **flags, "special": False, "lstrip": True},
        ],
        "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "post_processor": None,
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"]},
    }  # fmt: skip


def read(tmp_path: Path, content: Any) -> TokenizerJson:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_tokenizer_json(path)


def test_vocabulary_merges_and_added_tokens_by_id(tmp_path: Path) -> None:
    file = read(tmp_path, document())
    assert file.tokens == ["<s>", "a", "b", "ab", "<tool>"]
    joined, offsets = file.merges
    assert (joined, offsets.tolist(), file.scores) == (b"a b", [0, 3], None)
    assert file.added == {
        0: AddedToken(0, "<s>", True, normalized=False, where="$.added_tokens[0]"),
        4: AddedToken(4, "<tool>", False, lstrip=True, normalized=False, where="$.added_tokens[1]"),
    }
    assert file.pre_tokenizer is not None
    assert (file.pre_tokenizer.path, file.normalizer) == ("$.pre_tokenizer", None)


def test_merges_as_pairs_are_the_same(tmp_path: Path) -> None:
    content = document()
    content["model"]["merges"] = [["a", "b"], ["ab", "a"]]
    joined, offsets = read(tmp_path, content).merges
    assert (joined, offsets.tolist()) == (b"a bab a", [0, 3, 7])


def test_scores_of_a_unigram_model(tmp_path: Path) -> None:
    content = document()
    content["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<s>", 0], ["a", -1.5], ["b", -2], ["ab", -3.25]]}
    file = read(tmp_path, content)
    assert file.scores is not None
    assert (file.tokens, file.scores.tolist()) == (["<s>", "a", "b", "ab", "<tool>"], [0.0, -1.5, -2.0, -3.25])


def test_added_tokens_fill_the_gaps_of_the_vocabulary(tmp_path: Path) -> None:
    content = document()
    del content["model"]["vocab"]["<s>"]
    assert read(tmp_path, content).tokens == ["<s>", "a", "b", "ab", "<tool>"]


def test_flags_that_are_not_there_are_those_of_hugging_face(tmp_path: Path) -> None:
    content = document()
    content["added_tokens"] = [{"id": 4, "content": "x", "special": False}, {"id": 5, "content": "y", "special": True}]
    file = read(tmp_path, content)
    assert (file.added[4].normalized, file.added[5].normalized) == (True, False)


def put(*path: str | int) -> Callable[[Any], Change]:
    def with_value(value: Any) -> Change:
        def change(content: dict[str, Any]) -> None:
            target: Any = content
            for name in path[:-1]:
                target = target[name]
            target[path[-1]] = value

        return change

    return with_value


VOCAB, MERGES, ADDED = ("model", "vocab"), ("model", "merges"), ("added_tokens",)
HOSTILE: list[tuple[str, Change, str, str]] = [
    ("no model", put("model")(None), "JSON_MISSING", "$.model"),
    ("model is a list", put("model")([]), "JSON_TYPE", "$.model"),
    ("no vocabulary", put(*VOCAB)(None), "JSON_MISSING", "$.model.vocab"),
    ("vocabulary is text", put(*VOCAB)("a"), "JSON_TYPE", "$.model.vocab"),
    ("vocabulary is empty", lambda c: c.update(added_tokens=[], model={"vocab": {}}), "VOCAB", "$.model.vocab"),
    ("id is text", put(*VOCAB, "a")("1"), "JSON_TYPE", "$.model.vocab['a']"),
    ("id is a bool", put(*VOCAB, "a")(True), "JSON_TYPE", "$.model.vocab['a']"),
    ("id is a fraction", put(*VOCAB, "a")(1.0), "JSON_TYPE", "$.model.vocab['a']"),
    ("id below 0", put(*VOCAB, "a")(-1), "VOCAB", "$.model.vocab['a']"),
    ("T2", put(*VOCAB, "a")(1 << 32), "VOCAB", "$.model.vocab['a']"),
    ("T9", put(*VOCAB, "a")(2), "VOCAB", "$.model.vocab['b']"),
    ("ids leave a gap", put(*VOCAB, "c")(9), "VOCAB", "$.model.vocab"),
    ("an id is left out", lambda c: c["model"]["vocab"].update(ab=5) or c["added_tokens"].pop(), "VOCAB", "$.model.vocab"),
    ("half a surrogate", put(*MERGES)(["\ud800 a"]), "JSON", "$.model.merges[0]"),
    ("T11", put(*MERGES)(["ab"]), "MERGE", "$.model.merges[0]"),
    ("merge of three", put(*MERGES)(["a b", "a b b"]), "MERGE", "$.model.merges[1]"),
    ("pair of three", put(*MERGES)([["a", "b"], ["a", "b", "b"]]), "MERGE", "$.model.merges[1]"),
    ("pair with a number", put(*MERGES)([["a", "b"], ["a", 1]]), "MERGE", "$.model.merges[1]"),
    ("pair with a space", put(*MERGES)([["a", " b"]]), "MERGE", "$.model.merges[0]"),
    ("merges of two spellings", put(*MERGES)([["a", "b"], "a b"]), "MERGE", "$.model.merges[1]"),
    ("merge is a number", put(*MERGES)(["a b", 3]), "MERGE", "$.model.merges[1]"),
    ("merges are an object", put(*MERGES)({}), "JSON_TYPE", "$.model.merges"),
    ("score is text", put("model")({"vocab": [["a", "0"]]}), "VOCAB", "$.model.vocab[0]"),
    ("score is infinite", put("model")({"vocab": [["a", 0], ["b", 1e999]]}), "VOCAB", "$.model.vocab[1]"),
    ("score is missing", put("model")({"vocab": [["a"]]}), "VOCAB", "$.model.vocab[0]"),
    ("text twice", put("model")({"vocab": [["a", 0], ["a", 1]]}), "VOCAB", "$.model.vocab[1]"),
    ("added is text", put(*ADDED, 0)("<s>"), "JSON_TYPE", "$.added_tokens[0]"),
    ("added without text", put(*ADDED, 1, "content")(""), "ADDED", "$.added_tokens[1].content"),
    ("added without id", put(*ADDED, 1, "id")(None), "JSON_MISSING", "$.added_tokens[1].id"),
    ("added of another id", put(*ADDED, 0, "id")(1), "ADDED", "$.added_tokens[0].id"),
    ("added takes an id", put(*ADDED, 1, "id")(2), "ADDED", "$.added_tokens[1].id"),
    ("added beyond the end", put(*ADDED, 1, "id")(5), "ADDED", "$.added_tokens[1].id"),
    ("added twice", lambda c: c["added_tokens"].append(c["added_tokens"][1]), "ADDED", "$.added_tokens[2]"),
    ("flag is text", put(*ADDED, 1, "lstrip")("no"), "JSON_TYPE", "$.added_tokens[1].lstrip"),
    ("normalizer is text", put("normalizer")("NFC"), "JSON_TYPE", "$.normalizer"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "code", "field"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_files_are_refused(tmp_path: Path, change: Change, code: str, field: str) -> None:
    content = document()
    change(content)
    with pytest.raises(FormatError) as caught:
        read(tmp_path, content)
    assert (caught.value.code, caught.value.field) == (f"TOKENIZER_{code}", field)
    assert str(tmp_path) in str(caught.value)


LIMITS: list[tuple[str, Change, str]] = [
    ("T1", put(*VOCAB, "a" * 4097)(4), "bytes of $.model.vocab"),
    ("T1", put(*VOCAB, "é" * 2049)(4), "bytes of $.model.vocab"),
    ("added id", put(*ADDED, 1, "id")(1 << 20), "$.added_tokens[1].id"),
    ("depth", put("normalizer")(json.loads("[" * 70 + "]" * 70)), "depth of the document"),
]


@pytest.mark.parametrize(("change", "field"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
def test_what_is_too_large_is_refused(tmp_path: Path, change: Change, field: str) -> None:
    content = document()
    content["added_tokens"][1]["id"] = 5 if field.startswith("bytes") else 4
    change(content)
    with pytest.raises(LimitError) as caught:
        read(tmp_path, content)
    assert str(caught.value.field).startswith(field)


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf{}", b"[1]", b'{"model": ', b'{"model": "\xff"}', b'{"a":1,"a":2}'])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(FormatError):
        read(tmp_path, text)


def test_every_byte_changed_and_every_prefix_is_read_or_refused(tmp_path: Path) -> None:
    data = json.dumps(document()).encode()
    accepted = 0
    mutants = [data[:end] for end in range(0, len(data), 7)]
    mutants += [data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :] for at in range(len(data)) for bits in (0x01, 0x10)]
    for mutant in mutants:
        try:
            file = read(tmp_path, mutant)
        except Error:
            continue
        accepted += 1
        assert len(set(file.tokens)) == len(file.tokens)
        assert all(file.tokens[id] == token.content for id, token in file.added.items())
    assert 0 < accepted < len(mutants)


def test_a_file_of_the_largest_published_size_is_accepted(tmp_path: Path) -> None:
    """262,144 tokens, 514,906 merges as pairs, 6,400 added tokens."""
    content = document()
    tokens = [f"\u2581token{id:06}" for id in range(262_144)]
    content["model"] |= {
        "vocab": {token: id for id, token in enumerate(tokens)},
        "merges": [[tokens[i % 262_144], tokens[i % 7919]] for i in range(514_906)],
    }
    content["added_tokens"] = [{"id": id, "content": tokens[id], "special": True} for id in range(6400)]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    start = time.process_time()
    file = read_tokenizer_json(path)
    assert time.process_time() - start < 20
    assert (len(file.tokens), len(file.merges[1]), len(file.added)) == (262_144, 514_907, 6400)
