# SPDX-License-Identifier: Apache-2.0
"""OpenVINO GenAI on weights that optimum-intel has converted and compressed. One call of generate a measurement."""

import functools
import importlib.metadata
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai

from engines import Timing


class Engine:
    """Options: properties of the CPU plugin. Its own choice is bf16 where the CPU has it, and u8 for the cache."""

    def __init__(self, path: str, threads: int, context: int, **options: Any) -> None:
        self.path, self.settings = path, {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **options}
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # every measurement feeds its whole prompt
        self.pipeline = openvino_genai.LLMPipeline(path, "CPU", scheduler_config=scheduler, **self.settings)
        self.version = f"openvino-genai {importlib.metadata.version('openvino-genai')}"

    def run(self, prompt: list[int], n_tokens: int) -> Timing:
        config = openvino_genai.GenerationConfig(max_new_tokens=n_tokens, ignore_eos=True, do_sample=False)
        start = time.perf_counter()
        result = self.pipeline.generate(openvino.Tensor(np.array([prompt], np.int64)), config)
        seconds = time.perf_counter() - start
        prefill = result.perf_metrics.get_ttft().mean / 1000
        return Timing(list(result.tokens[0]), prefill, seconds - prefill)

    @functools.cached_property
    def request(self) -> openvino.InferRequest:
        """The pipeline keeps its logits: the same model and properties in OpenVINO itself."""
        model = openvino.Core().compile_model(f"{self.path}/openvino_model.xml", "CPU", self.settings)
        return model.create_infer_request()

    def logits(self, ids: list[int]) -> np.ndarray:
        self.request.reset_state()
        n = len(ids)
        inputs = {"input_ids": [ids], "attention_mask": [[1] * n], "position_ids": [list(range(n))], "beam_idx": [0]}
        names = {name for port in self.request.model_inputs for name in port.names}
        kinds = {"beam_idx": np.int32}
        self.request.infer({name: np.array(x, kinds.get(name, np.int64)) for name, x in inputs.items() if name in names})
        return self.request.get_tensor("logits").data[0].copy()
