# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness over a Model: needs the extra slm-cpu[eval]. Nothing else of slm imports this.

import lm_eval
from slm.harness import HarnessModel
with slm.load("smollm2-135m") as model:
    results = lm_eval.simple_evaluate(model=HarnessModel(model), tasks=["hellaswag"], limit=100)
"""

import json
import logging
import random
from collections import Counter
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
from slm.output import Output
from slm.progress import Progress

logger = logging.getLogger(__name__)

MAX_GENERATED = 256  # tokens, where a task names no number, as in the harness's own models


class HarnessModel(TemplateLM):
    """What the harness asks of a model. All requests of one kind run together, and what they begin with in common runs once.

    Texts are cut into tokens where the harness cuts them. One that does not fit the context loses its beginning, as in the
    harness's own models, and a warning is logged; only there does slm cut anything unasked.
    A task that samples gets as many different answers as it repeats a text. Where it names no seed, Python's `random` draws one,
    which the harness seeds: its random_seed gives the same answers again.
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
        """Its source, which the harness records with the results. It hands no name on to apply_chat_template()."""
        if chat_template not in (True, False, None, "default"):
            raise ValueError(
                f"apply_chat_template must be True or False, not {chat_template!r}: it is the default one that is used"
            )
        return self._tokenizer.chat_templates.get("default") if chat_template else None

    def apply_chat_template(self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
        self._templated = True
        return self._tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _fitting(self, texts: Sequence[list[int]], room: Sequence[int]) -> list[list[int]]:
        """Their last tokens, at most so many of each."""
        n_cut = sum(len(text) > most for text, most in zip(texts, room, strict=True))
        if n_cut:
            logger.warning("%d of %d texts lose their beginning to fit the context of %d", n_cut, len(texts), self.max_length)
        return [text[-most:] for text, most in zip(texts, room, strict=True)]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        behind = [continuation for _, _, continuation in requests]
        before = self._fitting(
            [context for _, context, _ in requests], [max(1, self.max_length + 1 - len(continuation)) for continuation in behind]
        )
        scores = self.model.score(zip(before, behind, strict=True), progress=False if disable_tqdm else None)
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
        asked = [(request.args[0], json.dumps(request.args[1], sort_keys=True)) for request in requests]
        times = Counter(asked)
        groups: dict[tuple[str, int], dict[str, list[int]]] = {}  # options and how often a text comes -> text -> its requests
        for i, (text, options) in enumerate(asked):
            groups.setdefault((options, times[text, options]), {}).setdefault(text, []).append(i)
        answers = [""] * len(requests)
        for (_, n_times), members in groups.items():
            every = [i for indices in members.values() for i in indices]
            progress = False if disable_tqdm else None
            outputs = self._generate([*members], n_times, requests[every[0]].args[1], progress)
            for i, output in zip(every, outputs, strict=True):
                answers[i] = output.text
                self.cache_hook.add_partial("generate_until", requests[i].args, output.text)
        return answers

    def _generate(self, texts: Sequence[str], n_times: int, kwargs: dict[str, Any], progress: Progress) -> list[Output]:
        """Of each text n_times answers, one behind another: samples where the task samples, else all the same."""
        options = dict(normalize_gen_kwargs(kwargs, MAX_GENERATED))
        options.pop("do_sample")  # it has decided about the temperature, 0 where it says none
        options.setdefault("temperature", 0.0)
        if options.get("num_beams") == 1:  # as some tasks say that they want no beams
            del options["num_beams"]
        until, max_tokens = [stop for stop in options.pop("until") if stop], options.pop("max_gen_toks")
        if max_tokens >= self.max_length:
            raise ValueError(
                f"max_gen_toks is {max_tokens}, and the context of the model has {self.max_length} positions: that leaves none "
                "for the prompt; give the task's generation_kwargs a smaller one"
            )
        prompts = self._fitting([self.tok_encode(text) for text in texts], [self.max_length - max_tokens] * len(texts))
        sampled = options["temperature"] > 0
        if sampled:
            options |= {"n": n_times, "seed": options.get("seed", random.getrandbits(32))}  # the harness seeds `random`
        outputs: Any = self.model.generate(prompts, progress=progress, max_tokens=max_tokens, stop=until, **options)
        if sampled and n_times > 1:
            return [output for samples in outputs for output in samples]
        return [output for output in outputs for _ in range(n_times)]
