# SPDX-License-Identifier: Apache-2.0
"""Published names of pre-tokenizers -> the rules of slm_pretokenizer in csrc/slm.h.

Only names whose rules slm has exactly are here: a near miss would tokenize most text right and some of it wrong.
"default" is not among them, because files carry it that were converted before the name of their pre-tokenizer was recorded.
"""

from collections.abc import Mapping

GPT2_WORDS = {"single_digits": False, "gpt2_words": True}
DIGITS_THEN_GPT2_WORDS = {"single_digits": True, "gpt2_words": True}

PRETOKENIZERS: Mapping[str, Mapping[str, bool]] = {
    "gpt-2": GPT2_WORDS,
    "smollm": DIGITS_THEN_GPT2_WORDS,
}
