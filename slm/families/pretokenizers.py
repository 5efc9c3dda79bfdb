# SPDX-License-Identifier: Apache-2.0
"""Published names of pre-tokenizers -> the rules of slm_pretokenizer in csrc/slm.h, and what else a name settles.

Only names whose rules slm has exactly are here: a near miss would tokenize most text right and some of it wrong.
"default" is not among them, because files carry it that were converted before the name of their pre-tokenizer was recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slm.vocabulary import Normalizer


@dataclass(frozen=True)
class Pretokenizer:
    """rules: fields of slm_pretokenizer that are not zero. ignore_merges: a word that is a piece is not merged from bytes.

    add_bos: whether text begins with the bos token where the file does not say. normalizers: what text goes through first.
    """

    rules: Mapping[str, bool | int]
    normalizers: tuple[Normalizer, ...] = ()
    ignore_merges: bool = False
    add_bos: bool = False


GPT2_WORDS = Pretokenizer({"gpt2_words": True})
DIGITS_THEN_GPT2_WORDS = Pretokenizer({"single_digits": True, "gpt2_words": True})
LINE_WORDS = {"line_words": True, "contractions": True}
ONE_DIGIT = Pretokenizer({**LINE_WORDS, "number_length": 1})
ONE_DIGIT_AND_MARKS = Pretokenizer({**LINE_WORDS, "number_length": 1, "marks_are_letters": True})
THREE_DIGITS = Pretokenizer({**LINE_WORDS, "number_length": 3})
THREE_DIGITS_WHOLE = replace(THREE_DIGITS, ignore_merges=True, add_bos=True)
CASED = {"line_words": True, "cased_words": True, "slashes_at_end": True}
CASED_ONE_DIGIT = Pretokenizer({**CASED, "number_length": 1}, ignore_merges=True, add_bos=True)
CASED_THREE_DIGITS = Pretokenizer({**CASED, "number_length": 3, "contractions_at_end": True})
ONE_DIGIT_BARE = Pretokenizer({**LINE_WORDS, "number_length": 1, "bare_symbols": True})
SYMBOLS = Pretokenizer({"symbol_words": True, "number_length": 3})

PRETOKENIZERS: Mapping[str, Pretokenizer] = {
    name: pretokenizer
    for pretokenizer, names in (
        (GPT2_WORDS, "gpt-2 phi-2 gpt-neox mpt olmo jais gigachat mellum exaone4 trillion granite-docling jina-es jina-de"),
        (DIGITS_THEN_GPT2_WORDS, "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
        (ONE_DIGIT, "qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan kormo solar-open grok-2 bailingmoe bailingmoe2 llada-moe"),
        (ONE_DIGIT_AND_MARKS, "qwen35"),
        (ONE_DIGIT_BARE, "seed-coder"),
        (SYMBOLS, "deepseek-v3 hunyuan-dense"),
        (THREE_DIGITS, "dbrx smaug-bpe glm4 chatglm-bpe"),
        (THREE_DIGITS_WHOLE, "llama-bpe llama-v3 llama3 falcon3 falcon-h1 lfm2"),
        (CASED_ONE_DIGIT, "tekken"),
        (CASED_THREE_DIGITS, "gpt-4o llama4 kanana2 minimax-m2"),
    )
    for name in names.split()
}
