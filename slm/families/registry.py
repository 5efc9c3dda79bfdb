# SPDX-License-Identifier: Apache-2.0
"""One file per family of models: its configuration and tensor names -> one Architecture.

Adding a family: a file with `describe(files, context) -> Architecture`, and a line in FAMILIES. Files are imported with the first
model that they are for: all of them take as long as reading a small model's weights.
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, cast

from slm.families.architecture import Architecture, check_types
from slm.families.vocabulary import Vocabulary, read_vocabulary
from slm.formats.gguf_model import GGUFModel
from slm.formats.model_files import ModelFiles

Describe = Callable[[ModelFiles, int | None], Architecture]


class Family(NamedTuple):
    """model_type: of config.json. architecture: of GGUF files, None where there are none of its own. function: "file.name" of its
    describe()."""

    model_type: str | None
    architecture: str | None
    function: str

    def describe(self) -> Describe:
        file, _, name = self.function.partition(".")
        return cast(Describe, getattr(import_module(f"slm.families.{file}"), name))


FAMILIES = (
    Family("arcee", "arcee", "llama.describe_arcee"),
    Family("bert", "bert", "bert.describe"),
    Family("cohere", "command-r", "cohere.describe_1"),
    Family("cohere2", "cohere2", "cohere.describe_2"),
    Family("ernie4_5", None, "llama.describe_ernie"),
    Family("exaone4", None, "exaone.describe_4"),
    Family("gemma", "gemma", "gemma.describe_1"),
    Family("gemma2", "gemma2", "gemma.describe_2"),
    Family("gemma3", None, "gemma.describe_3_text"),
    Family("gemma3_text", "gemma3", "gemma.describe_3"),
    Family("glm", None, "glm.describe_1"),
    Family("glm4", None, "glm.describe_4"),
    Family("gpt2", "gpt2", "gpt.describe_2"),
    Family("gpt_bigcode", "starcoder", "starcoder.describe_1"),
    Family("gpt_neox", "gptneox", "gpt.describe_neox"),
    Family("granite", "granite", "granite.describe"),
    Family("helium", None, "llama.describe_helium"),
    Family("llama", "llama", "llama.describe"),
    Family("ministral", None, "llama.describe_mistral"),
    Family("mistral", None, "llama.describe_mistral"),
    Family("nemotron", "nemotron", "nemotron.describe"),
    Family("olmo2", "olmo2", "olmo.describe_2"),
    Family("persimmon", None, "persimmon.describe"),
    Family("phi", "phi2", "phi.describe_2"),
    Family("phi3", "phi3", "phi.describe_3"),
    Family("qwen2", "qwen2", "qwen.describe_2"),
    Family("qwen3", "qwen3", "qwen.describe_3"),
    Family("seed_oss", None, "llama.describe_seed"),
    Family("smollm3", "smollm3", "smollm3.describe"),
    Family("stablelm", "stablelm", "stablelm.describe"),
    Family("starcoder2", "starcoder2", "starcoder.describe_2"),
    Family("vaultgemma", None, "gemma.describe_vault"),
)


def describe(files: ModelFiles, context: int | None = None) -> Architecture:
    """What the C core needs to run a model, all of it checked. context: positions wanted, None for the default.

    Raises UnsupportedError (an architecture, tensor type or option that slm does not handle), FormatError, LimitError.
    """
    families = {(family.architecture if files.is_gguf else family.model_type): family for family in FAMILIES}
    if files.kind not in families:
        known = ", ".join(repr(name) for name in families if name)
        raise files.unknown_kind(known)
    return families[files.kind].describe()(files, context)


def vocabulary_of(files: ModelFiles) -> Vocabulary | None:
    """None when the files hold none. Raises UnsupportedError, FormatError, LimitError."""
    if isinstance(files, GGUFModel):
        return read_vocabulary(files.gguf)
    from slm.families.tokenizer_folder import read_folder_vocabulary  # with the first folder

    return read_folder_vocabulary(files.path)


__all__ = ["FAMILIES", "Architecture", "Vocabulary", "check_types", "describe", "read_vocabulary", "vocabulary_of"]
