# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of the published pipelines, made by `tokenizers` with small vocabularies, and texts to compare them on.

A pipeline is what a published tokenizer.json holds beside its vocabulary: normalizer, pre-tokenizer, post-processor, decoder.
"""

import json
import random
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from texts import strings
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from slm.formats.sentencepiece import read_sentencepiece

DATA = Path(__file__).parent / "data"
SEPARATOR = "\n__ggml_vocab_test__\n"
SPACE, MARKER = " ", "\u2581"

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{LINES}"
QWEN_2 = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{LINES}"
QWEN_35 = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{LINES}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{LINES}"
)
GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{LINES}"
)
DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@cache
def corpus() -> list[str]:
    files = [*sorted((DATA / "vocab").glob("*.inp")), Path(__file__), Path(__file__).parent / "gguf_writer.py"]
    return [text for file in files for text in file.read_text(encoding="utf-8").split(SEPARATOR)]


# ---- byte-level BPE ------------------------------------------------------------------------------------------------------------


def byte_level(
    *steps: pre_tokenizers.PreTokenizer,
    words: bool = False,
    add_prefix_space: bool = False,
    normalizer: normalizers.Normalizer | None = None,
    ignore_merges: bool = False,
) -> Tokenizer:
    """steps come before ByteLevel. words: ByteLevel cuts words itself, as for GPT-2."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    last = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=words)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, last]) if steps else last
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def llama_3() -> Tokenizer:
    tokenizer = byte_level(split(LLAMA_3), ignore_merges=True)
    end = tokenizer.token_to_id("<|end|>")
    template = processors.TemplateProcessing(single="<|end|> $A", pair="<|end|> $A $B", special_tokens=[("<|end|>", end)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


# ---- BPE over characters, as converted from SentencePiece ----------------------------------------------------------------------


def characters(
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    *,
    strip: bool = False,
    byte_fallback: bool = True,
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace(MARKER, SPACE), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(SPACE, 1, 0)] if strip else steps)
    special = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1800, special_tokens=special + byte_tokens, limit_alphabet=300, show_progress=False)
    # Words, as SentencePiece would have them, else a merge could hold a whole text.
    tokenizer.train_from_iterator((word for text in corpus() for word in words_of(text)), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def words_of(text: str) -> Iterable[str]:
    words = text.split(SPACE)
    return words[:1] + [SPACE + word for word in words[1:]]


def llama_2() -> Tokenizer:
    return characters(normalizers.Sequence([normalizers.Prepend(MARKER), normalizers.Replace(SPACE, MARKER)]), None, strip=True)


def gemma() -> Tokenizer:
    return characters(normalizers.Replace(SPACE, MARKER), pre_tokenizers.Split(SPACE, "merged_with_previous"))


def mistral_3() -> Tokenizer:
    return characters(None, pre_tokenizers.Metaspace(MARKER, "first", split=False), strip=True)


# ---- unigram and WordPiece -----------------------------------------------------------------------------------------------------


def unigram(normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer, template: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=1500, special_tokens=special, unk_token="<unk>", show_progress=False)
    # A special token that stands in the text would be learned once more.
    lines = (line for text in corpus() for line in text.splitlines() if not any(token in line for token in special))
    tokenizer.train_from_iterator(lines, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return tokenizer


def charsmap() -> normalizers.Normalizer:
    model = read_sentencepiece(DATA / "sentencepiece" / "unigram.model")
    return normalizers.Precompiled(model.normalizer.precompiled_charsmap)


def t5() -> Tokenizer:
    words = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return unigram(charsmap(), words, "$A </s>")


def xlm_r() -> Tokenizer:
    steps = [charsmap(), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), MARKER)]
    return unigram(normalizers.Sequence(steps), pre_tokenizers.Metaspace(), "<s> $A </s>")


def bert(*, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, limit_alphabet=400, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


Make = Callable[[], Tokenizer]
BYTE_LEVEL: dict[str, Make] = {
    "gpt-2": lambda: byte_level(words=True),
    "smollm": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True), words=True),
    "gpt-neox": lambda: byte_level(words=True, normalizer=normalizers.NFC()),
    "roberta": lambda: byte_level(words=True, add_prefix_space=True),
    "llama-3": llama_3,
    "qwen-2": lambda: byte_level(split(QWEN_2), normalizer=normalizers.NFC()),
    "deepseek-v3": lambda: byte_level(*map(split, DEEPSEEK_3)),
    "phi-4": lambda: byte_level(pre_tokenizers.Split(Regex(LLAMA_3), "removed", invert=True)),
    "stablelm-2": lambda: byte_level(split(QWEN_2)),
    "qwen-3.5": lambda: byte_level(split(QWEN_35)),
    "mistral-nemo": lambda: byte_level(split(TEKKEN), ignore_merges=True),
    "gpt-4o": lambda: byte_level(split(GPT_4O)),
}
CHARACTERS: dict[str, Make] = {"llama-2": llama_2, "mistral-0.3": mistral_3, "gemma": gemma}
UNIGRAM: dict[str, Make] = {"t5": t5, "xlm-r": xlm_r}
WORDPIECE: dict[str, Make] = {"bert-uncased": lambda: bert(lowercase=True), "bert-cased": lambda: bert(lowercase=False)}
PIPELINES = BYTE_LEVEL | CHARACTERS | UNIGRAM | WORDPIECE


@cache
def made(name: str) -> Tokenizer:
    """With added tokens of every flag, where they are looked for in the text as it is and where in normalized text."""
    tokenizer = PIPELINES[name]()
    # Where normalizing puts a space before the token, tokenizers decodes it with that space.
    normalized = name != "llama-2"
    tokenizer.add_tokens([
        AddedToken("<tool>", normalized=False), AddedToken("<left>", normalized=False, lstrip=True),
        AddedToken("<right>", normalized=normalized, rstrip=True), AddedToken("<one>", normalized=False, single_word=True),
    ])  # fmt: skip
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", normalized=False, rstrip=True), AddedToken("<|im_start|>")])
    return tokenizer


# ---- texts ---------------------------------------------------------------------------------------------------------------------

ADDED = (
    "<tool>", "<left>", "<right>", "<one>", "<|im_end|>", "<|im_start|>", "<unk>", "<pad>", "<s>", "</s>", "<|end|>",
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
)  # fmt: skip


def texts(count: int, seed: int, *, added: bool) -> list[str]:
    """strings() without added tokens in them, or with some where they may matter: between, beside and inside of words."""
    plain = [text for text in strings(count + count // 10, seed) if not any(token in text for token in ADDED)][:count]
    assert len(plain) == count
    if not added:
        return plain
    draw = random.Random(seed)
    spliced: list[str] = []
    for text in plain:
        for _ in range(draw.randint(0, 3)):
            at = draw.randint(0, len(text))
            before, after = draw.choice(("", "", " ", "  ")), draw.choice(("", "", " ", "\n"))
            text = f"{text[:at]}{before}{draw.choice(ADDED)}{after}{text[at:]}"
        spliced.append(text)
    return spliced
