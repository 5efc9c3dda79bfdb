# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/oracle/unigram.npz: a small unigram vocabulary and SentencePiece's character map nmt_nfkc_cf.

pip install sentencepiece, then python tests/oracle/make_unigram.py
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

import texts  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "text")
        source.write_text("\n".join(texts.corpus()), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(source),
            model_prefix=str(Path(folder, "unigram")),
            vocab_size=1500,
            model_type="unigram",
            normalization_rule_name="nmt_nfkc_cf",
            character_coverage=0.98,
            byte_fallback=True,
            max_sentence_length=100_000,
            minloglevel=2,
        )
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(Path(folder, "unigram.model").read_bytes())
    np.savez_compressed(
        texts.DATA / "oracle" / "unigram.npz",
        pieces=np.frombuffer(json.dumps([piece.piece for piece in model.pieces]).encode(), np.uint8),
        scores=np.array([piece.score for piece in model.pieces], np.float32),
        kinds=np.array([piece.type for piece in model.pieces], np.uint8),
        charsmap=np.frombuffer(model.normalizer_spec.precompiled_charsmap, np.uint8),
    )


if __name__ == "__main__":
    main()
