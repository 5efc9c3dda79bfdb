# SPDX-License-Identifier: Apache-2.0
"""A running generation, whole or as a stream."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

from slm.options import GenerateOptions
from slm.output import Chunk, FinishReason, Output, Timings, Usage
from slm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from slm import _core


class Run:
    """One generation on a core session: what was asked, and what has come of it so far.

    prompt: the ids to run behind the n_cached positions that the session holds; slm.overflow has let them pass, and left out
    n_cut others.
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
        n_cached: int = 0,
        n_cut: int = 0,
    ) -> None:
        if options.stop and tokenizer is None:
            raise ValueError("stop is given, and the model has no tokenizer to make text with")
        assert options.seed is not None  # checked options have one
        self._generation = core.generate(
            None if tokenizer is None else tokenizer._core,
            prompt,
            options.max_tokens,
            options.ignore_eos,
            options.temperature,
            options.top_k,
            options.top_p,
            options.seed,
            0,
            [stop.encode() for stop in options.stop],
            end_ids,
        )
        self._threads = threads
        self.n_cached, self._n_prompt, self._n_cut = n_cached, n_cached + len(prompt), n_cut
        self._seed = options.seed
        self.texts: list[str] = []
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._seconds = (0.0, 0.0)

    def advance(self, whole: bool) -> Chunk:
        """Run to the next piece of text, or to the end."""
        text, tokens, finish_reason, prefill_seconds, decode_seconds = self._generation.next(whole, self._threads)
        self.texts.append(text)
        self.tokens += tokens
        self.finish_reason = finish_reason
        self._seconds = prefill_seconds, decode_seconds
        return Chunk(text, tokens, finish_reason)

    def close(self) -> None:
        self._generation.close()

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def timings(self) -> Timings:
        return Timings(*self._seconds, self._n_prompt - self.n_cached, max(0, len(self.tokens) - 1))

    @property
    def usage(self) -> Usage:
        return Usage(self._n_prompt, len(self.tokens), self._n_cut)

    def finish(self) -> Output:
        """Run to the end and free the session."""
        try:
            self.advance(whole=True)
        finally:
            self.close()
        assert self.finish_reason is not None  # it has run to the end
        return Output(
            self.text,
            self.tokens,
            finish_reason=self.finish_reason,
            usage=self.usage,
            timings=self.timings,
            seed=self._seed,
        )


class Stream(Iterator[Chunk]):
    """Iterator over a running generation. close(), the end of a `with` block or dropping it cancels what is left."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._closed = False

    def __next__(self) -> Chunk:
        if self._closed:
            raise StopIteration
        chunk = self._run.advance(whole=False)
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
    def timings(self) -> Timings:
        """Of what has run so far."""
        return self._run.timings

    @property
    def usage(self) -> Usage:
        """Of what has run so far; cut_tokens is known from the start."""
        return self._run.usage
