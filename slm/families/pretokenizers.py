# SPDX-License-Identifier: Apache-2.0
"""Published names of pre-tokenizers -> the splits of csrc/slm.h, and what else a name settles.

Only names whose rules slm has exactly are here: a near miss would tokenize most text right and some of it wrong. The rules are
those of the published tokenizer.json files; where other readers of GGUF files have them differently, the originals count:
Qwen 2, GPT-NeoX, MPT, OLMo and ModernBERT compose text first (NFC); words are cut where their case changes by Unicode's
categories, not those of ASCII (gpt-4o and the like), and marks are of the word (kimi-k2); a run of digits that a letter follows
is no number (tiny_aya), and what comes before one is not of its first group; scripts written without spaces are kept apart, and
all of Thai is one (afmoe). Those of superbpe, youtu, spark2_5 and chameleon are from such a reader's list.
"default" is not among them, because files carry it that were converted before the name of their pre-tokenizer was recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from slm.vocabulary import Normalizer, Split


@dataclass(frozen=True)
class Pretokenizer:
    """ignore_merges: a word that is a piece is not merged from bytes.

    add_bos, add_eos: whether text begins with the bos token, ends with the eos token, where the file does not say.
    normalizers: what text goes through first.
    """

    splits: tuple[Split, ...]
    normalizers: tuple[Normalizer, ...] = ()
    ignore_merges: bool = False
    add_bos: bool = False
    add_eos: bool = False


NFC: tuple[Normalizer, ...] = (("nfc",),)
THREE_DIGITS = Pretokenizer(("line_words_3",))
CASED = Pretokenizer(("cased_words_3",))
DEEPSEEK_LLM = ("newline", "cased_letters", "listed_signs", "white_space_at_end", "east_of_arabic", "number")
CHAMELEON = ("sentinels", "image_codes", "indents", "number", "punctuation", "gpt2_words")

PRETOKENIZERS: Mapping[str, Pretokenizer] = {
    name: pretokenizer
    for pretokenizer, names in (
        (
            Pretokenizer(("gpt2_words",)),
            "gpt-2 phi-2 jais gigachat mellum exaone4 trillion granite-docling jina-es jina-de jina-v2-es jina-v2-de a.x-4.0",
        ),
        (Pretokenizer(("gpt2_words",), NFC), "gpt-neox mpt olmo"),
        (Pretokenizer(("gpt2_words",), add_bos=True, add_eos=True), "roberta-bpe jina-v1-en jina-v2-code"),
        (Pretokenizer(("gpt2_words",), NFC, add_bos=True, add_eos=True), "modern-bert"),
        (Pretokenizer(("number", "gpt2_words")), "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
        (
            Pretokenizer(("line_words_1",)),
            "deepseek-r1-qwen stablelm2 megrez hunyuan kormo solar-open grok-2 bailingmoe bailingmoe2 llada-moe",
        ),
        (Pretokenizer(("line_words_1",), NFC), "qwen2 f2llmv2"),
        (Pretokenizer(("line_words_marks",)), "qwen35"),
        (Pretokenizer(("line_words_bare",)), "seed-coder"),
        (Pretokenizer(("line_words_plain",)), "ufakzeka"),
        (Pretokenizer(("line_words_blocks",)), "jais-2"),
        (Pretokenizer(("line_phrases",)), "exaone-moe"),
        (Pretokenizer(("lines", "line_words_1")), "laguna"),
        (Pretokenizer(("numbers_3", "line_words"), ignore_merges=True), "minicpm5"),
        (Pretokenizer(("numbers_3", "kana_or_han", "symbol_words")), "deepseek-v3 hunyuan-dense hy_v4 joyai-llm"),
        (Pretokenizer(("numbers_3", "kana_or_han", "symbol_words_bare", "number")), "spark2_5"),
        (Pretokenizer(("digit_groups", "unspaced_scripts", "symbol_words")), "afmoe"),
        (Pretokenizer(DEEPSEEK_LLM), "deepseek-llm"),
        (Pretokenizer(("newline", "letters", "signs", "east_of_arabic", "number")), "deepseek-coder"),
        (Pretokenizer((("punctuation", "contiguous"), "gpt2_words", "byte_digits", "three_digits")), "falcon"),
        (Pretokenizer(("phrases",)), "bloom poro-chat gpt3-finnish"),
        (Pretokenizer(("phrases", "number")), "viking"),
        (Pretokenizer(("numbers", "before_groups")), "superbpe"),
        (Pretokenizer(CHAMELEON, add_bos=True), "chameleon"),
        (THREE_DIGITS, "dbrx smaug-bpe glm4 chatglm-bpe"),
        (
            replace(THREE_DIGITS, ignore_merges=True, add_bos=True),
            "llama-bpe llama-v3 llama3 falcon3 falcon-h1 lfm2 midm-2.0 pixtral jina-v5-nano",
        ),
        (Pretokenizer(("cased_words_1",), ignore_merges=True, add_bos=True), "tekken"),
        (CASED, "gpt-4o llama4 kanana2 minimax-m2 talkie"),
        (replace(CASED, ignore_merges=True), "granite-embed-multi-97m"),
        (Pretokenizer(("bounded_groups", "cased_words_3")), "tiny_aya cohere2moe"),
        (Pretokenizer(("east_asian", "cased_words_tailed"), ignore_merges=True), "youtu"),
        (Pretokenizer(("han_or_cased_words",)), "kimi-k2"),
    )
    for name in names.split()
}
