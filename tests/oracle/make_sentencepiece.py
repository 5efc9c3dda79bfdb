# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/sentencepiece/: small models trained by `sentencepiece`, and what it says of them and makes of some texts.

Run: python tests/oracle/make_sentencepiece.py. Needs the package sentencepiece. Settings are those of published models: BPE as in
Llama 2 (identity normalizer, byte fallback), BPE without a space prefix as in Gemma, unigram as in T5 (nmt_nfkc, <pad> first).
"""

import json
from pathlib import Path
from typing import Any

import sentencepiece

DATA = Path(__file__).parent.parent / "data"
OUT = DATA / "sentencepiece"
SEPARATOR = "\n__ggml_vocab_test__\n"

COMMON = {"hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1}
MODELS: dict[str, dict[str, Any]] = {
    "bpe": {
        "model_type": "bpe", "vocab_size": 700, "byte_fallback": True, "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "max_sentencepiece_length": 16,
    },
    "bpe_without_prefix": {
        "model_type": "bpe", "vocab_size": 700, "byte_fallback": True, "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "add_dummy_prefix": False,
        "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
        "user_defined_symbols": ["<unused0>", "\n", "\n\n", "▁▁", "▁▁▁", "<b>"], "control_symbols": ["<mask>"],
    },
    "unigram": {
        "model_type": "unigram", "vocab_size": 600, "normalization_rule_name": "nmt_nfkc",
        "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1,
    },
    "unigram_bytes": {
        "model_type": "unigram", "vocab_size": 700, "byte_fallback": True, "normalization_rule_name": "identity",
    },
}  # fmt: skip


def texts() -> list[str]:
    """What published vocabularies are tested on, and lines of this script."""
    published = (DATA / "vocab" / "ggml-vocab-llama-spm.gguf.inp").read_text(encoding="utf-8").split(SEPARATOR)
    extra = [
        "", " ", "  two  spaces  ", "a\u3000b", "ﬁne ½ ＡＢＣ ｶﾞ", "e\u0301 é", "\u200bzero\u00adwidth", "tab\there",
        "<unused0>x<mask>",
    ]  # fmt: skip
    return [text for text in published if "\0" not in text] + extra


def main() -> None:
    OUT.mkdir(exist_ok=True)
    corpus = OUT / "corpus.txt"
    lines = [line for text in texts() for line in text.splitlines() if line.strip()]
    lines += Path(__file__).read_text(encoding="utf-8").splitlines()
    lines += (DATA.parent.parent / "LICENSE").read_text(encoding="utf-8").splitlines()
    corpus.write_text("\n".join(lines), encoding="utf-8")
    for name, settings in MODELS.items():
        sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(OUT / name), **COMMON, **settings)
        (OUT / f"{name}.vocab").unlink()
        model = sentencepiece.SentencePieceProcessor(model_file=str(OUT / f"{name}.model"))
        size = model.get_piece_size()
        kind = {"control": model.is_control, "unknown": model.is_unknown, "unused": model.is_unused, "byte": model.is_byte}
        expected = {
            "pieces": [model.id_to_piece(id) for id in range(size)],
            "scores": [model.get_score(id) for id in range(size)],
            **{name: [id for id in range(size) if of(id)] for name, of in kind.items()},
            "unk_id": model.unk_id(),
            "bos_id": model.bos_id(),
            "eos_id": model.eos_id(),
            "pad_id": model.pad_id(),
            "texts": texts(),
            "ids": [model.encode(text) for text in texts()],
            "decoded": [model.decode(model.encode(text)) for text in texts()],
            "charsmap_size": len(charsmap(model)),
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in expected.items()]
        (OUT / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    corpus.unlink()


def charsmap(model: sentencepiece.SentencePieceProcessor) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.serialized_model_proto())
    return proto.normalizer_spec.precompiled_charsmap


if __name__ == "__main__":
    main()
