# SPDX-License-Identifier: Apache-2.0
"""The engines that are compared: one file each, with a class of this interface. A new peer adds a file and a line in VARIANTS.

class Engine:
    def __init__(self, path: str, threads: int, context: int, **options): load, until the first token can be fed
    version: str                       what is printed beside the name
    settings: dict                     how it was built and configured, for the record
    def run(self, prompt: list[int], n_tokens: int) -> Timing
        from an empty cache: feed the prompt, then pick the most likely token n_tokens times, end tokens included
    def score(self, questions: list[Question]) -> list[list[float]]
        only of the engines that scoring.py compares: ln of the probability of each choice behind its question's context
    def logits(self, ids: list[int]) -> np.ndarray
        only of the engines that accuracy.py compares: [tokens, vocabulary], float32, from an empty cache
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timing:
    tokens: list[int]
    prefill_seconds: float  # from the call until the first token is known
    decode_seconds: float  # from then until the last one is: len(tokens) - 1 steps


@dataclass(frozen=True)
class Question:
    context: list[int]
    choices: list[list[int]]


def common(a: list[int], b: list[int]) -> int:
    """How many tokens they begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True)
class Variant:
    module: str  # in this package; has a class Engine
    package: str  # importable name: the variant is skipped where it is not installed
    form: str | None = None  # of the weights, which convert.py makes; None: the GGUF file itself
    options: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


# Of activations: the larger the faster with int8 weights, the slower with int4, and the less exact.
GROUPS_OF_128: dict[str, object] = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
GROUPS_OF_32: dict[str, object] = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 32}

SCREENING = "slm, screening"
VARIANTS = {
    "slm": Variant("slm_engine", "slm", environment={"SLM_SCREENING": "0"}),
    SCREENING: Variant("slm_engine", "slm", environment={"SLM_SCREENING": "1"}),
    "llama.cpp": Variant("llama_cpp_engine", "llama_cpp"),
    "llama.cpp, no flash attention": Variant("llama_cpp_engine", "llama_cpp", options={"flash_attention": False}),
    "OpenVINO GenAI, int8": Variant("openvino_engine", "openvino_genai", "openvino-int8", GROUPS_OF_128),
    "OpenVINO GenAI, int8, groups of 32": Variant("openvino_engine", "openvino_genai", "openvino-int8", GROUPS_OF_32),
    "OpenVINO GenAI, int4": Variant("openvino_engine", "openvino_genai", "openvino-int4"),
    "ONNX Runtime GenAI, int4": Variant("onnx_engine", "onnxruntime_genai", "onnx-int4"),
    "CTranslate2, int8": Variant("ctranslate2_engine", "ctranslate2", "ctranslate2-int8"),
    "PyTorch, bf16": Variant("torch_engine", "transformers", "bf16"),
}
