# SPDX-License-Identifier: Apache-2.0
"""The engines that are compared: one file each, with a class of this interface. A new peer adds a file and a line in VARIANTS.

class Engine:
    def __init__(self, path: str, threads: int, context: int, **options): load, until the first token can be fed
    version: str                       what is printed beside the name
    settings: dict                     how it was built and configured, for the record
    bytes_per_token: int               of weights that one token reads
    def run(self, prompt: list[int], n_tokens: int) -> Timing
        from an empty cache: feed the prompt, then pick the most likely token n_tokens times, end tokens included
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    tokens: list[int]
    prefill_seconds: float  # from the call until the first token is known
    decode_seconds: float  # from then until the last one is: len(tokens) - 1 steps


@dataclass(frozen=True)
class Variant:
    module: str  # in this package; has a class Engine
    package: str  # importable name: the variant is skipped where it is not installed
    options: dict[str, object]


VARIANTS = {
    "slm": Variant("slm_engine", "slm", {}),
    "llama.cpp": Variant("llama_cpp_engine", "llama_cpp", {}),
    "llama.cpp, no flash attention": Variant("llama_cpp_engine", "llama_cpp", {"flash_attention": False}),
}
