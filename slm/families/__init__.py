# SPDX-License-Identifier: Apache-2.0
"""One file per family of models: its metadata and tensor names -> one Architecture. Nowhere else is a model's name written.

Adding a family: a file with `describe(keys) -> Architecture`, and a line in GGUF_FAMILIES.
"""

from collections.abc import Callable

from slm.errors import quoted
from slm.families import gemma, gpt, granite, llama, olmo, phi, qwen, smollm3, stablelm
from slm.families.architecture import Architecture
from slm.families.keys import Keys
from slm.families.tokenizer_folder import read_file_vocabulary, read_folder_vocabulary
from slm.families.vocabulary import Vocabulary, read_vocabulary
from slm.formats.gguf import GGUF

# general.architecture of a GGUF file -> how to describe it
GGUF_FAMILIES: dict[str, Callable[[Keys], Architecture]] = {
    "gemma": gemma.describe_1,
    "gemma2": gemma.describe_2,
    "gemma3": gemma.describe_3,
    "gpt2": gpt.describe_2,
    "gptneox": gpt.describe_neox,
    "granite": granite.describe,
    "llama": llama.describe,
    "olmo2": olmo.describe_2,
    "phi2": phi.describe_2,
    "phi3": phi.describe_3,
    "qwen2": qwen.describe_2,
    "qwen3": qwen.describe_3,
    "smollm3": smollm3.describe,
    "stablelm": stablelm.describe,
}


def describe(gguf: GGUF, context: int | None = None) -> Architecture:
    """What the C core needs to run the model of a file, all of it checked. context: positions wanted, None for the default.

    Raises UnsupportedError (an architecture, tensor type, tokenizer or option that slm does not handle), FormatError, LimitError.
    """
    key = "general.architecture"
    name = gguf.get_string(key)
    if name not in GGUF_FAMILIES:
        known = ", ".join(map(repr, GGUF_FAMILIES))
        raise gguf.report.unsupported("ARCHITECTURE", gguf.offset_of(key), key, known, quoted(name))
    return GGUF_FAMILIES[name](Keys(gguf, read_vocabulary(gguf), context))


__all__ = [
    "GGUF_FAMILIES",
    "Architecture",
    "Vocabulary",
    "describe",
    "read_file_vocabulary",
    "read_folder_vocabulary",
    "read_vocabulary",
]
