# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness over a Model: needs the extra slm-cpu[eval]. Nothing else of slm imports this.

import lm_eval
from slm.harness import HarnessModel
with slm.load("smollm2-135m") as model:
    results = lm_eval.simple_evaluate(model=HarnessModel(model), tasks=["hellaswag"], limit=100)
"""

import json
from collections.abc import Sequence
from typing import Any

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as error:
    if error.name != "lm_eval":
        raise
    raise ImportError('slm.harness needs lm-evaluation-harness: pip install "slm-cpu[eval]"') from None

from slm.model import Model

MAX_GENERATED = 256  # tokens, where a task names no number, as in the harness's own models


class HarnessModel(TemplateLM):
    """What the harness asks of a model. All requests of one kind run together, and what they begin with in common runs once.

    Texts are cut into tokens where the harness cuts them. One that does not fit the context loses its beginning, as in the
    harness's own models; only there does slm cut anything unasked.
    Control tokens that are written in a text are read as such only once a chat template was applied, which writes them.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if model.tokenizer is None:
            raise ValueError("the model has no tokenizer; the harness asks in text")
        self.model, self._tokenizer = model, model.tokenizer
        self._templated = False

    @property
    def max_length(self) -> int:
        return self.model.context

    @property
    def eot_token_id(self) -> int:
        eos = self._tokenizer.eos_id
        if eos is None:
            raise ValueError("the model's vocabulary names no eos token")
        return eos

    @property
    def prefix_token_id(self) -> int:
        """What the first token of a text stands behind: bos, or eos where there is none."""
        return self.eot_token_id if self._tokenizer.bos_id is None else self._tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        return self.model.info.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        ids = self._tokenizer.encode(string, add_special_tokens=False, parse_special=self._templated)
        prefix = self._tokenizer._prefix
        if add_special_tokens is False or (add_special_tokens is None and ids[: len(prefix)] == prefix):
            return ids
        return prefix + ids

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Its source, by which the harness tells results apart."""
        templates = self._tokenizer.chat_templates
        return templates.get("default" if chat_template is True else str(chat_template)) if chat_template else None

    def apply_chat_template(self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
        self._templated = True
        return self._tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = []
        for _text, context, continuation in requests:
            kept = max(1, self.max_length + 1 - len(continuation))
            pairs.append((context[-kept:], continuation))
        scores = self.model.score(pairs, progress=False if disable_tqdm else None)
        answers = [(score.logprob, score.is_greedy) for score in scores]
        for (text, *_ids), answer in zip(requests, answers, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            own = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            windows += [(None, *make_disjoint_window(window)) for window in own]
            counts.append(len(windows))
        logprobs = [logprob for logprob, _ in self._loglikelihood_tokens(windows, disable_tqdm)]
        sums = [sum(logprobs[begin:end]) for begin, end in zip([0, *counts], counts, strict=False)]
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        texts = [""] * len(requests)
        for members in groups.values():
            options = dict(normalize_gen_kwargs(requests[members[0]].args[1], MAX_GENERATED))
            options.pop("do_sample")  # it has decided about the temperature, 0 where it says none
            options.setdefault("temperature", 0.0)
            until, max_tokens = [stop for stop in options.pop("until") if stop], options.pop("max_gen_toks")
            kept = max(1, self.max_length - max_tokens)
            prompts = [self.tok_encode(requests[i].args[0])[-kept:] for i in members]
            progress = False if disable_tqdm else None
            outputs = self.model.generate(prompts, progress=progress, max_tokens=max_tokens, stop=until, **options)
            for i, output in zip(members, outputs, strict=True):
                texts[i] = output.text
                self.cache_hook.add_partial("generate_until", requests[i].args, output.text)
        return texts
