# SPDX-License-Identifier: Apache-2.0
"""Running generations, and conversations that keep their KV state between turns."""

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from slm.errors import BusyError, ContextLengthError, TemplateError
from slm.options import GenerateOptions, check_ids, check_int, refuse_type
from slm.output import Chunk, FinishReason, Output, Timings, Usage
from slm.tokenizer import Tokenizer, flat_ids

if TYPE_CHECKING:
    from slm import _core
    from slm.model import Model


class Run:
    """One generation on a core session: what was asked, and what has come of it so far.

    Raises ContextLengthError when prompt and one token do not fit.
    """

    def __init__(
        self,
        core: "_core.Session",
        tokenizer: Tokenizer | None,
        prompt: Sequence[int],
        options: GenerateOptions,
        *,
        n_ctx: int,
        threads: int,
        n_cached: int = 0,
    ) -> None:
        n_prompt = n_cached + len(prompt)
        if n_prompt + min(options.max_tokens, 1) > n_ctx:
            raise ContextLengthError(
                f"the prompt has {n_prompt} tokens and the context {n_ctx} positions, which leaves no room for an answer",
                n_prompt=n_prompt,
                n_ctx=n_ctx,
                max_new=options.max_tokens,
            )
        if options.stop and tokenizer is None:
            raise ValueError("stop is given, and the model has no tokenizer to make text with")
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
            () if tokenizer is None else tokenizer.end_ids,
        )
        self._threads = threads
        self.n_cached, self._n_prompt = n_cached, n_prompt
        self._seed = options.seed
        self.texts: list[str] = []
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._seconds = (0.0, 0.0)

    def advance(self, whole: bool) -> Chunk:
        """Run to the next piece of text, or to the end."""
        text, tokens, finish_reason, *seconds = self._generation.next(whole, self._threads)
        self.texts.append(text)
        self.tokens += tokens
        self.finish_reason = finish_reason
        self._seconds = tuple(seconds)
        return Chunk(text, tokens, finish_reason)

    def close(self) -> None:
        self._generation.close()

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def timings(self) -> Timings:
        return Timings(*self._seconds, self._n_prompt - self.n_cached, max(0, len(self.tokens) - 1))

    def finish(self) -> Output:
        """Run to the end and free the session."""
        try:
            self.advance(whole=True)
        finally:
            self.close()
        return Output(
            self.text,
            self.tokens,
            finish_reason=self.finish_reason,
            usage=Usage(self._n_prompt, len(self.tokens)),
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


class Session:
    """A conversation over one KV state: each turn computes only its new tokens.

    One thread at a time: a call while another runs, or while a stream is open, raises BusyError.
    """

    def __init__(self, model: "Model", system: str | None = None) -> None:
        if system is not None and not isinstance(system, str):
            refuse_type("system", "a str or None", system)
        self._model = model
        self._core = model._open_core().session()
        self._tokens: list[int] = []  # what the KV state holds
        self._messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self._n_system = len(self._messages)
        self._turn_ends: list[int] = []  # per finished turn of two messages: length of the state behind it
        self._pinned = (0, 0)  # the first n tokens stand for the first k messages, however the template would write those
        self._lock = threading.Lock()
        self._turn: Run | None = None
        self._stream: weakref.ref[Stream] | None = None

    @property
    def length(self) -> int:
        """Positions that the KV state holds."""
        with self._exclusive():
            return len(self._tokens)

    @property
    def tokens(self) -> list[int]:
        """The token ids that the KV state holds."""
        with self._exclusive():
            return self._tokens.copy()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far, as mappings with role and content."""
        with self._exclusive():
            return [message.copy() for message in self._messages]

    def send(self, text: str, **options: Any) -> Output:
        """Say something and get the whole answer. options: the fields of GenerateOptions.

        Raises TemplateError, ContextLengthError (the conversation is kept as it was), BusyError, ClosedError.
        """
        with self._exclusive():
            self._begin(text, GenerateOptions.of("send", options))
            try:
                return self._turn.finish()
            finally:
                self._settle()

    def stream(self, text: str, **options: Any) -> Stream:
        """Say something and get the answer as it is made. Closing the stream early keeps what was said so far."""
        with self._exclusive():
            self._begin(text, GenerateOptions.of("stream", options))
            stream = Stream(self._turn)
            self._stream = weakref.ref(stream)
            return stream

    def append(self, ids: Iterable[int]) -> None:
        """Put token ids behind the state, exactly as given; the conversation goes on behind them."""
        with self._exclusive():
            new = check_ids("ids", flat_ids("ids", ids), self._model.vocab_size)
            n_prompt, n_ctx = len(self._tokens) + len(new), self._model.context
            if n_prompt > n_ctx:
                what = f"the state would hold {n_prompt} tokens and the context has {n_ctx} positions"
                raise ContextLengthError(what, n_prompt=n_prompt, n_ctx=n_ctx, max_new=0)
            if new:
                self._core.forward(new, "none", self._model.threads)
            self._tokens += new
            self._pinned = (len(self._tokens), len(self._messages))

    def rewind(self, n_tokens: int) -> None:
        """Keep the first n_tokens positions and the turns within them. A turn that is cut leaves its tokens, not its messages."""
        with self._exclusive():
            n_tokens = check_int("n_tokens", n_tokens, 0, len(self._tokens))
            self._core.rewind(n_tokens)
            del self._tokens[n_tokens:]
            self._turn_ends = [end for end in self._turn_ends if end <= n_tokens]
            n_messages = self._n_system + 2 * len(self._turn_ends)
            del self._messages[n_messages:]
            if n_tokens == 0:
                self._pinned = (0, 0)
            elif self._pinned[0] > n_tokens or n_tokens not in self._turn_ends:
                self._pinned = (n_tokens, n_messages)

    def fork(self) -> "Session":
        """An independent copy that shares the KV state so far; cheap."""
        with self._exclusive():
            fork = object.__new__(Session)
            fork._model = self._model
            fork._core = self._core.fork()
            fork._tokens = self._tokens.copy()
            fork._messages = [message.copy() for message in self._messages]
            fork._n_system = self._n_system
            fork._turn_ends = self._turn_ends.copy()
            fork._pinned = self._pinned
            fork._lock = threading.Lock()
            fork._turn = fork._stream = None
            return fork

    def __repr__(self) -> str:
        return f"Session({len(self._messages)} messages, {len(self._tokens)} of {self._model.context} positions)"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise BusyError(
                "the session is running in another thread; it takes one call at a time, fork() makes a second session"
            )
        try:
            self._model._open_core()
            stream = self._stream() if self._stream is not None else None
            if stream is not None and not stream._closed:
                raise BusyError("the session has an open stream: read it to its end or close() it first")
            self._settle()
            yield
        finally:
            self._lock.release()

    def _begin(self, text: str, options: GenerateOptions) -> None:
        """Render the conversation with one more message and start its answer, keeping what the state already holds of it."""
        if not isinstance(text, str):
            refuse_type("text", "a str", text)
        tokenizer = self._model._chat_tokenizer()
        message = {"role": "user", "content": text}
        ids = self._rendered([*self._messages, message], tokenizer)
        kept = 0
        for a, b in zip(ids[:-1], self._tokens, strict=False):  # at least the last token has to run, for its logits
            if a != b:
                break
            kept += 1
        model = self._model
        if len(ids) + min(options.max_tokens, 1) <= model.context:  # else Run refuses, and the state stays
            self._core.rewind(kept)
            del self._tokens[kept:]
            self._turn_ends = [min(end, kept) for end in self._turn_ends]
        self._turn = Run(self._core, tokenizer, ids[kept:], options, n_ctx=model.context, threads=model.threads, n_cached=kept)
        self._tokens += ids[kept:]
        self._messages.append(message)

    def _rendered(self, messages: list[dict[str, Any]], tokenizer: Tokenizer) -> list[int]:
        """Token ids of the conversation, with the pinned tokens in place of the messages they stand for."""
        ids = tokenizer.apply_chat_template(messages)
        n_tokens, n_messages = self._pinned
        if n_tokens == 0:
            return ids
        pinned = []
        if n_messages:
            pinned = tokenizer.apply_chat_template(messages[:n_messages], add_generation_prompt=False)
        if ids[: len(pinned)] != pinned:
            raise TemplateError("the chat template rewrites earlier messages, so it cannot go on behind append() or rewind()")
        return self._tokens[:n_tokens] + ids[len(pinned) :]

    def _settle(self) -> None:
        """Enter a turn that has ended, was closed, or whose stream was dropped, into tokens and messages."""
        if self._turn is None:
            return
        turn, self._turn, self._stream = self._turn, None, None
        turn.close()
        if turn.finish_reason is None and not turn.tokens:  # interrupted before anything was said: as if never asked
            self._core.rewind(turn.n_cached)
            del self._tokens[turn.n_cached :]
            self._messages.pop()
            return
        # The last token may not have run, and the core may hold tokens whose text was never shown.
        self._tokens = (self._tokens + turn.tokens)[: self._core.length]
        self._core.rewind(len(self._tokens))
        self._messages.append({"role": "assistant", "content": turn.text})
        self._turn_ends.append(len(self._tokens))
