# SPDX-License-Identifier: Apache-2.0
"""A running generation, whole or as a stream; and batches of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from slm.activations import edit_taps
from slm.families.tool_calls import Style
from slm.messages import plain
from slm.options import GenerateOptions
from slm.output import Chunk, FinishReason, Kind, Logprob, Output, Timings, ToolCall, Usage
from slm.overflow import Fitted
from slm.progress import Progress, reported
from slm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from slm import _core

CALLS_DEPTH = 6  # of what holds the arguments of a call, in the JSON of a saved session
MOST_LOGITS = 16 << 20  # of a step over a prompt


def core_arguments(tokenizer: Tokenizer | None, end_ids: Sequence[int], options: GenerateOptions) -> "_core.GenerateArguments":
    """What Session.generate and Model.generate of the core take beside the prompt."""
    if options.stop and tokenizer is None:
        raise ValueError("stop is given, and the model has no tokenizer to make text with")
    if options.constrain is not None and tokenizer is None:
        raise ValueError("constrain is given, and the model has no tokenizer to make text with")
    assert options.seed is not None  # checked options have one
    bias = options.logit_bias or {}
    limits: _core.Limits = {} if options.constrain is None or tokenizer is None else options.constrain._limits(tokenizer)
    return {
        "tokenizer": None if tokenizer is None else tokenizer._core,
        "max_tokens": options.max_tokens,
        "ignore_eos": options.ignore_eos,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "seed": options.seed,
        "sample": 0,
        "stop": [stop.encode() for stop in options.stop],
        "end_tokens": end_ids,
        "draft": options.draft or "none",
        "min_p": options.min_p,
        "typical_p": options.typical_p,
        "repetition_penalty": options.repetition_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "penalty_window": options.penalty_window,
        "no_repeat_ngram": options.no_repeat_ngram,
        "bias_ids": list(bias),
        "bias": list(bias.values()),
        "n": options.n,
        "logprobs": options.logprobs,
        "processors": checked_processors(options),
        **limits,
    }


def checked_processors(options: GenerateOptions) -> "tuple[_core.Processor, ...]":
    assert isinstance(options.processors, tuple)
    return options.processors


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt as the beginning of its output."""

    text: str
    tokens: list[int]
    logprobs: list[Logprob] | None


def echo_of(
    core: "_core.Model", tokenizer: Tokenizer | None, ids: Sequence[int], options: GenerateOptions, threads: int
) -> Echo | None:
    if not options.echo:
        return None
    text = "" if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=True)
    taps = edit_taps(options.edit)
    logprobs = prompt_logprobs(core, tokenizer, ids, options.logprobs, threads, taps) if options.logprobs else None
    return Echo(text, list(ids), logprobs)


def prompt_logprobs(
    core: "_core.Model",
    tokenizer: Tokenizer | None,
    ids: Sequence[int],
    n_likeliest: int,
    threads: int,
    taps: "tuple[_core.Tap, ...]",
) -> list[Logprob]:
    """Of each token of a prompt given those before it, in a pass of its own."""
    session, vocab_size = core.session(), core.stats()["vocab_size"]
    n_known = vocab_size if tokenizer is None else min(vocab_size, tokenizer.vocab_size)
    step = max(1, min(256, MOST_LOGITS // vocab_size))
    found = [logprob_of(tokenizer, (ids[0], None))]
    for start in range(0, len(ids) - 1, step):
        fed = ids[start : min(start + step, len(ids) - 1)]
        for row, token in zip(session.forward(fed, "all", threads, taps=taps), ids[start + 1 :], strict=False):
            exact = row.astype(np.float64)
            p = exact - (exact.max() + np.log(np.exp(exact - exact.max()).sum()))
            n = min(n_likeliest, n_known)
            least = np.partition(p[:n_known], n_known - n)[n_known - n]
            likeliest = np.flatnonzero(p[:n_known] >= least)
            likeliest = likeliest[np.argsort(-p[likeliest], kind="stable")][:n]
            found.append(logprob_of(tokenizer, (token, float(p[token])), *((int(id), float(p[id])) for id in likeliest)))
    return found


def logprob_of(tokenizer: Tokenizer | None, token: tuple[int, float | None], *likeliest: tuple[int, float]) -> Logprob:
    id, logprob = token
    text = b"" if tokenizer is None or id >= tokenizer.vocab_size else tokenizer.token_bytes(id)
    return Logprob(id, logprob, text, tuple(logprob_of(tokenizer, other) for other in likeliest))


class Result:
    """What has come of one prompt so far: of n_prompt tokens, n_cached of which need not run; n_cut others were left out.

    style: how a whole answer may call tools; None where it has none to call.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, n_prompt: int, n_cached: int, n_cut: int, echo: Echo | None, style: Style | None
    ) -> None:
        self.tokenizer, self.echo, self.style = tokenizer, echo, style
        self.called: tuple[str, list[ToolCall]] | None = None
        self.n_prompt, self.n_cached, self.n_cut = n_prompt, n_cached, n_cut
        self.logprobs: list[Logprob] | None = None
        self.began = False
        self.texts: list[str] = []
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.seconds = (0.0, 0.0)
        self.n_shared = self.n_drafted = self.n_accepted = 0

    def add(self, piece: "_core.Chunk") -> Chunk:
        text, tokens, self.finish_reason, prefill, decode, self.n_shared, self.n_drafted, self.n_accepted, rows = piece
        self.texts.append(text)
        self.tokens += tokens
        self.seconds = prefill, decode
        logprobs = None if rows is None else [logprob_of(self.tokenizer, *row) for row in rows]
        if logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs += logprobs
        if self.echo is not None and not self.began:
            text, tokens = self.echo.text + text, self.echo.tokens + tokens
            logprobs = None if logprobs is None else (self.echo.logprobs or []) + logprobs
        self.began = True
        return Chunk(text, tokens, self.finish_reason, logprobs)

    @property
    def timings(self) -> Timings:
        return Timings(*self.seconds, self.n_prompt - self.n_cached - self.n_shared, max(0, len(self.tokens) - 1))

    @property
    def usage(self) -> Usage:
        return Usage(self.n_prompt, len(self.tokens), self.n_cut, self.n_drafted, self.n_accepted)

    def output(self, seed: int, kind: Kind) -> Output:
        text, tokens = "".join(self.texts), list(self.tokens)
        logprobs = None if self.logprobs is None else list(self.logprobs)
        if self.echo is not None:
            text, tokens = self.echo.text + text, self.echo.tokens + tokens
            logprobs = None if logprobs is None else (self.echo.logprobs or []) + logprobs
        calls: list[ToolCall] = []
        if self.style is not None and self.tokenizer is not None and self.finish_reason is not None:
            if self.called is None:  # once: each call has an id of its own, which the conversation goes on with
                self.called = read_calls(self.style, self.tokenizer, text, tokens)
            text, calls = self.called
        return Output(
            text,
            tokens,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            usage=self.usage,
            timings=self.timings,
            seed=seed,
            kind=kind,
            tool_calls=list(calls),
        )


def read_calls(style: Style, tokenizer: Tokenizer, text: str, tokens: Sequence[int]) -> tuple[str, list[ToolCall]]:
    """The text of an answer without the calls in it, and those."""
    whole = text if style.mark in text else tokenizer.decode(tokens)  # the mark can be a control token
    content, calls = style.read(whole)
    try:
        plain(calls, "calls", CALLS_DEPTH - 1)
    except ValueError:  # what no conversation can go on with: a lone surrogate, or nested too deep
        calls = []
    return (content, [ToolCall(*call) for call in calls]) if calls else (text, [])


class Run:
    """One generation on a core session: what was asked, and what has come of it so far.

    prompt: all ids, of which the session holds the first n_cached; slm.overflow has let them pass, and left out n_cut others.
    """

    def __init__(
        self,
        core: "_core.Session",
        tokenizer: Tokenizer | None,
        end_ids: Sequence[int],
        prompt: Sequence[int],
        options: GenerateOptions,
        *,
        threads: int,
        kind: Kind = "text_completion",
        n_cached: int = 0,
        n_cut: int = 0,
        echo: Echo | None = None,
        style: Style | None = None,
    ) -> None:
        arguments = core_arguments(tokenizer, end_ids, options)
        self._generation = core.generate(prompt=prompt, n_held=n_cached, **arguments)
        self._threads = threads
        self._seed, self._kind = arguments["seed"], kind
        self._processors, self._taps = arguments["processors"], edit_taps(options.edit)
        self._guide = arguments.get("guide")
        self._result = Result(tokenizer, len(prompt), n_cached, n_cut, echo, style)

    def advance(self) -> Chunk:
        """Run to the next piece of text."""
        return self._run(False)

    def _run(self, whole: bool) -> Chunk:
        return self._result.add(self._generation.next(whole, self._threads, 0, self._processors, self._taps, self._guide))

    def close(self) -> None:
        self._generation.close()

    @property
    def tokens(self) -> list[int]:
        return self._result.tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        return self._result.finish_reason

    @property
    def timings(self) -> Timings:
        return self._result.timings

    @property
    def usage(self) -> Usage:
        return self._result.usage

    @property
    def output(self) -> Output:
        """What has come so far."""
        return self._result.output(self._seed, self._kind)

    def finish(self) -> Output:
        """Run to the end and free the session; an exception has what came before it."""
        try:
            self._run(True)
        except BaseException as error:
            self._result.add(self._generation.so_far())
            error.output = self.output  # type: ignore[attr-defined]
            raise
        finally:
            self.close()
        return self.output


def run_batch(
    core: "_core.Model",
    tokenizer: Tokenizer | None,
    end_ids: Sequence[int],
    prompts: Sequence[Fitted],
    options: GenerateOptions,
    threads: int,
    kind: Kind = "text_completion",
    progress: Progress = None,
    style: Style | None = None,
) -> list[Any]:
    """All prompts to their ends, together: an output of each, or a list of n, in their order."""
    arguments = core_arguments(tokenizer, end_ids, options)
    echoes = [echo_of(core, tokenizer, prompt.ids, options, threads) for prompt in prompts]

    def outputs_of(chunks: "list[_core.Chunk]") -> list[Any]:
        pieces, outputs = iter(chunks), []
        for prompt, echo in zip(prompts, echoes, strict=True):
            samples = []
            for _ in range(options.n):
                result = Result(tokenizer, len(prompt.ids), 0, prompt.n_cut, echo, style)
                result.add(next(pieces))
                samples.append(result.output(arguments["seed"], kind))
            outputs.append(samples if options.n > 1 else samples[0])
        return outputs

    so_far: list[_core.Chunk] = []
    try:
        with reported(progress, len(prompts) * options.n, " texts") as report:
            ids = [prompt.ids for prompt in prompts]
            chunks = core.generate(
                prompts=ids, threads=threads, progress=report, so_far=so_far, taps=edit_taps(options.edit), **arguments
            )
        return outputs_of(chunks)
    except BaseException as error:
        if so_far:
            error.output = outputs_of(so_far)  # type: ignore[attr-defined]
        raise


class Stream(Iterator[Chunk]):
    """Iterator over a running generation. close(), the end of a `with` block or dropping it cancels what is left.

    After an exception in next(), such as a KeyboardInterrupt, it can go on; what came so far is the exception's `output`.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._closed = False

    def __next__(self) -> Chunk:
        if self._closed:
            raise StopIteration
        try:
            chunk = self._run.advance()
        except BaseException as error:
            error.output = self.output  # type: ignore[attr-defined]
            raise
        if chunk.finish_reason is not None:
            self.close()
        return chunk

    def close(self) -> None:
        self._run.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def output(self) -> Output:
        """What came so far, as generate() would give it; behind the end with the calls of tools, whose text was streamed too."""
        return self._run.output

    @property
    def timings(self) -> Timings:
        """Of what has run so far."""
        return self._run.timings

    @property
    def usage(self) -> Usage:
        """Of what has run so far; cut_tokens is known from the start."""
        return self._run.usage
