# SPDX-License-Identifier: Apache-2.0
"""Published names of pre-tokenizers -> the splits of csrc/slm.h, and what else a name settles.

Only names whose rules slm has exactly are here: a near miss would tokenize most text right and some of it wrong. The rules are
those of the published tokenizer.json files; where converters of GGUF files write them down differently, the originals count.
"default" is not among them, because files carry it that were converted before the name of their pre-tokenizer was recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slm.vocabulary import Normalizer


@dataclass(frozen=True)
class Pretokenizer:
    """splits: slm_split in lower case. ignore_merges: a word that is a piece is not merged from bytes.

    add_bos: whether text begins with the bos token where the file does not say. normalizers: what text goes through first.
    """

    splits: tuple[str, ...]
    normalizers: tuple[Normalizer, ...] = ()
    ignore_merges: bool = False
    add_bos: bool = False


THREE_DIGITS = Pretokenizer(("line_words_3",))
DEEPSEEK_LLM = ("newline", "cased_letters", "listed_signs", "white_space_at_end", "east_of_arabic", "number")

PRETOKENIZERS: Mapping[str, Pretokenizer] = {
    name: pretokenizer
    for pretokenizer, names in (
        (
            Pretokenizer(("gpt2_words",)),
            "gpt-2 phi-2 gpt-neox mpt olmo jais gigachat mellum exaone4 trillion granite-docling jina-es jina-de",
        ),
        (Pretokenizer(("number", "gpt2_words")), "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
        (
            Pretokenizer(("line_words_1",)),
            "qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan kormo solar-open grok-2 bailingmoe bailingmoe2 llada-moe",
        ),
        (Pretokenizer(("line_words_marks",)), "qwen35"),
        (Pretokenizer(("line_words_bare",)), "seed-coder"),
        (Pretokenizer(("lines", "line_words_1")), "laguna"),
        (Pretokenizer(("numbers_3", "line_words")), "minicpm5"),
        (Pretokenizer(("numbers_3", "kana_or_han", "symbol_words")), "deepseek-v3 hunyuan-dense joyai-llm"),
        (Pretokenizer(DEEPSEEK_LLM), "deepseek-llm"),
        (Pretokenizer(("newline", "letters", "signs", "east_of_arabic", "number")), "deepseek-coder"),
        (Pretokenizer(("punctuations", "gpt2_words", "byte_digits", "three_digits")), "falcon"),
        (Pretokenizer(("phrases",)), "bloom poro-chat gpt3-finnish"),
        (Pretokenizer(("phrases", "number")), "viking"),
        (THREE_DIGITS, "dbrx smaug-bpe glm4 chatglm-bpe"),
        (replace(THREE_DIGITS, ignore_merges=True, add_bos=True), "llama-bpe llama-v3 llama3 falcon3 falcon-h1 lfm2"),
        (Pretokenizer(("cased_words_1",), ignore_merges=True, add_bos=True), "tekken"),
        (Pretokenizer(("cased_words_3",)), "gpt-4o llama4 kanana2 minimax-m2"),
    )
    for name in names.split()
}
