# SPDX-License-Identifier: Apache-2.0
"""One file per family of models: its config and tensor names -> one Architecture. Nowhere else is a model's name written.

Adding a family: a file with `describe(gguf, vocabulary) -> Architecture`, and a line in GGUF_FAMILIES.
"""

from collections.abc import Callable

from slm.errors import quoted
from slm.families import llama
from slm.families.architecture import Architecture
from slm.families.vocabulary import Vocabulary, read_vocabulary
from slm.formats.gguf import GGUF

# general.architecture of a GGUF file -> how to describe it
GGUF_FAMILIES: dict[str, Callable[[GGUF, Vocabulary | None], Architecture]] = {
    "llama": llama.describe,
}


def describe(gguf: GGUF) -> Architecture:
    """What the C core needs to run the model of a file, all of it checked.

    Raises UnsupportedError (an architecture, tensor type, tokenizer or option that slm does not handle), FormatError, LimitError.
    """
    key = "general.architecture"
    name = gguf.get_string(key)
    if name not in GGUF_FAMILIES:
        known = ", ".join(map(repr, GGUF_FAMILIES))
        raise gguf.report.unsupported("ARCHITECTURE", gguf.offset_of(key), key, known, quoted(name))
    return GGUF_FAMILIES[name](gguf, read_vocabulary(gguf))


__all__ = ["GGUF_FAMILIES", "Architecture", "Vocabulary", "describe", "read_vocabulary"]
