# SPDX-License-Identifier: Apache-2.0
"""Conversations that keep their KV state between turns."""

import json
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from slm.errors import BusyError, FormatError, TemplateError, quoted
from slm.families.tool_calls import Style
from slm.generation import Run, Stream
from slm.messages import Messages, plain, template_keywords
from slm.options import GenerateOptions, check_ids, check_int, check_path, check_text, refuse_type
from slm.output import Output
from slm.overflow import check_fit, fit_chat, fit_prompt
from slm.tokenizer import Tokenizer, flat_ids

if TYPE_CHECKING:
    from slm.asynchronous import AsyncStream
    from slm.model import Model

Said = str | Mapping[str, Any] | Messages
SAVED_DEPTH = 3  # of a message in the JSON of a saved session


class Session:
    """A conversation over one KV state: each turn computes only its new tokens.

    One thread at a time: a call while another runs, or while a stream is open, raises BusyError.
    """

    def __init__(self, model: "Model", system: str | None, template_keywords: Mapping[str, Any]) -> None:
        if system is not None:
            check_text("system", system)
        self._model = model
        self._template_keywords = template_keywords
        self._core = model._open_core().session()
        self._call_style: Style | None = None
        if any(value is not None for value in template_keywords.values()):  # without a template there is still append()
            style = model._call_style(template_keywords)
            self._call_style = None if template_keywords["tools"] is None else style
        self._tokens: list[int] = []  # of the state: the core holds the first of them, all but for what _return_to() says
        self._messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self._n_system = len(self._messages)
        self._turn_ends: list[tuple[int, int]] = []  # per finished turn: how many tokens and messages there are behind it
        # Tokens that stand for the first n messages, however the template would write those
        self._pinned: tuple[list[int], int] = ([], 0)
        self._lock = threading.Lock()
        self._turn: Run | None = None
        self._turn_start = (0, 0)  # how many tokens and messages it found in place
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
            return deepcopy(self._messages)

    def send(self, message: Said, **options: Any) -> Output:
        """Say something and get the whole answer. options: the fields of GenerateOptions.

        message: what the user says, as a str; or a message, or several, as chat() takes them: the results of the tools that the
        last answer called (its tool_calls; its own message is in the conversation), each {"role": "tool", "tool_call_id": the
        call's id, "content": a str}.
        Raises TemplateError, ContextLengthError, BusyError, ClosedError. After any exception, a KeyboardInterrupt too, the
        conversation is as it was; what came of the answer is the exception's `output`.
        """
        with self._exclusive():
            turn = self._begin(message, GenerateOptions.of("send", options))
            try:
                return turn.finish()
            finally:
                self._settle()

    def stream(self, message: Said, **options: Any) -> Stream:
        """send() as an iterator of Chunk. Closing it early keeps what was said so far. Calls of tools are part of the text as it
        comes; at the end they are the stream's output.tool_calls."""
        with self._exclusive():
            stream = Stream(self._begin(message, GenerateOptions.of("stream", options)))
            self._stream = weakref.ref(stream)
            return stream

    async def asend(self, message: Said, **options: Any) -> Output:
        """send() for asyncio, as Model.agenerate()."""
        from slm.asynchronous import in_thread

        answer: Output = await in_thread(self.send, message, **options)
        return answer

    def astream(self, message: Said, **options: Any) -> "AsyncStream":
        """stream() for `async for`, as Model.astream(). Ending it early keeps what was said so far."""
        from slm.asynchronous import AsyncStream

        return AsyncStream(lambda: self.stream(message, **options))

    def append(self, ids: Iterable[int]) -> None:
        """Put token ids behind the state, exactly as given; the conversation goes on behind them."""
        with self._exclusive():
            new = check_ids("ids", flat_ids("ids", ids), self._model.vocab_size)
            check_fit("the state", len(self._tokens) + len(new), self._model.context, 0)
            if new:
                self._core.forward(self._tokens[self._core.length :] + new, "none", self._model.threads)
            self._tokens += new
            self._pinned = (self._tokens.copy(), len(self._messages))

    def rewind(self, n_tokens: int) -> None:
        """Keep the first n_tokens positions and the turns within them. A turn that is cut leaves its tokens, not its messages.

        Raises ValueError, and changes nothing, where the model's window layers have dropped what they saw at that position; 0
        and the last 64 positions are always there.
        """
        with self._exclusive():
            n_tokens = check_int("n_tokens", n_tokens, 0, len(self._tokens))
            if n_tokens < self._core.length:
                self._core.rewind(n_tokens)
            del self._tokens[n_tokens:]
            self._turn_ends = [end for end in self._turn_ends if end[0] <= n_tokens]
            n_kept, n_messages = self._turn_ends[-1] if self._turn_ends else (0, self._n_system)
            del self._messages[n_messages:]
            if n_tokens == 0:
                self._pinned = ([], 0)
            elif len(self._pinned[0]) > n_tokens or n_tokens != n_kept:
                self._pinned = (self._tokens.copy(), n_messages)

    def fork(self) -> "Session":
        """An independent copy that shares the KV state so far; cheap."""
        with self._exclusive():
            fork = Session.__new__(Session)
            vars(fork).update(vars(self))
            fork._core = self._core.fork()
            fork._tokens = self._tokens.copy()
            fork._messages = self._messages.copy()  # what is in them never changes
            fork._turn_ends = self._turn_ends.copy()
            fork._lock = threading.Lock()
            return fork

    __copy__ = fork

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a file, from which open() goes on, in another process too: there whole or not at all.

        Tools that are functions are kept as their schemas. Raises OSError, BusyError, ClosedError, and ValueError where tools,
        documents or the template's own variables hold a number that is not finite.
        """
        check_path("path", path)
        with self._exclusive():
            state, length, settled = self._core.save()
            pinned, n_pinned_messages = self._pinned
            fields = {
                "model": self._model._fingerprint,
                "name": self._model.info.name,
                "length": length,
                "settled": settled,
                "n_tokens": len(self._tokens),
                "n_system": self._n_system,
                "messages": self._messages,
                "turn_ends": self._turn_ends,
                "n_pinned_messages": n_pinned_messages,
                "template": dict(self._template_keywords),
            }
            from slm.formats import session_file  # imported with the first saved session, not with slm

            session_file.write_session(path, fields, self._tokens + pinned, state)

    @classmethod
    def open(cls, model: "Model", path: str | os.PathLike[str]) -> "Session":
        """The session that save() wrote, with the same model, loaded with the same types: it goes on with the same bits.
        (F32 weights on BLIS: only where BLIS has the same kernels.)

        Raises ValueError for another model, FormatError for a file that is damaged or no session, UnsupportedError, LimitError,
        OSError, ClosedError.
        """
        from slm.formats import session_file
        from slm.model import Model  # which imports this module

        if not isinstance(model, Model):
            refuse_type("model", "a Model", model)
        check_path("path", path)
        core = model._open_core()
        saved = session_file.read_session(path, model.vocab_size)
        fields, report = saved.fields, saved.report
        name = quoted(fields.get_string("name"))
        if fields.get_string("model") != model._fingerprint:
            others = "or of the same one loaded with other types or by another version of slm"
            raise ValueError(f"{os.fspath(path)}: a session of another model, {name}, {others}")
        template = fields.get_object("template").values
        more = {name: value for name, value in template.items() if name not in ("tools", "documents", "chat_template")}
        lists = [template[name] for name in ("tools", "documents") if template.get(name) is not None]
        plain_lists = all(isinstance(value, list) and all(isinstance(item, dict) for item in value) for value in lists)
        if not plain_lists or not isinstance(template.get("chat_template"), str | None):
            raise report.bad(
                "STATE", None, "template", "tools and documents as lists of objects, a template as a string", "others"
            )
        keywords = template_keywords(template.get("tools"), template.get("documents"), template.get("chat_template"), more)
        session = cls(model, None, keywords)
        n_tokens = fields.get_int("n_tokens", 0, min(len(saved.ids), model.context))
        messages, ends = fields.get_list("messages"), fields.get_list("turn_ends")
        session._tokens, pinned = saved.ids[:n_tokens], saved.ids[n_tokens:]
        session._n_system = fields.get_int("n_system", 0, 1)
        session._messages, session._turn_ends = messages, [tuple(end) for end in ends if isinstance(end, list)]
        session._pinned = (pinned, fields.get_int("n_pinned_messages", 0, len(messages)))
        most = (n_tokens, len(messages))
        whole = [
            len(end) == 2 and all(type(n) is int and 0 <= n <= m for n, m in zip(end, most, strict=True))
            for end in session._turn_ends
        ]
        length, settled = fields.get_int("length", 0, n_tokens), fields.get_int("settled", 0, model.context)
        if not (
            all(whole)
            and len(whole) == len(ends)
            and len(messages) >= session._n_system
            and all(isinstance(m, dict) for m in messages)
        ):
            raise report.bad("STATE", None, "messages, turn_ends", "those of a conversation", "others")
        try:
            session._core = core.restore(saved.state, length, settled)
        except FormatError as error:
            raise report.bad("STATE", None, "KV state", None, error) from None
        return session

    def __repr__(self) -> str:
        return f"Session({len(self._messages)} messages, {len(self._tokens)} of {self._model.context} positions)"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise BusyError("the session is already running; it takes one call at a time, fork() makes a second session")
        try:
            self._model._open_core()
            stream = self._stream() if self._stream is not None else None
            if stream is not None and not stream._closed:
                raise BusyError("the session has an open stream: read it to its end or close() it first")
            self._settle()
            yield
        finally:
            self._lock.release()

    def _begin(self, message: Said, options: GenerateOptions) -> Run:
        """Render the conversation with what is said now and start its answer, keeping what the state already holds of it."""
        said = said_messages(message)
        if options.echo:
            raise ValueError("echo is not for a session, whose messages have what was said")
        model = self._model
        tokenizer = model._chat_tokenizer()
        messages = [*self._messages, *said]

        def render(messages: Sequence[Mapping[str, Any]]) -> list[int]:
            return tokenizer.apply_chat_template(messages, **self._template_keywords)

        if self._pinned[0]:
            ids = self._behind_pinned(messages, tokenizer)
            ids, n_cut = fit_prompt("the conversation", ids, model.context, options, tokenizer.bos_id)
        else:
            ids, n_cut = fit_chat(render, messages, model.context, options, tokenizer.bos_id)
        kept = 0
        for a, b in zip(ids[:-1], self._tokens, strict=False):  # at least the last token has to run, for its logits
            if a != b:
                break
            kept += 1
        held = self._return_to(kept)
        del self._tokens[kept:]
        self._turn_ends = [(min(n_tokens, kept), n_messages) for n_tokens, n_messages in self._turn_ends]
        self._turn = turn = Run(
            self._core,
            tokenizer,
            model.end_ids,
            ids,
            options,
            threads=model.threads,
            kind="chat.completion",
            n_cached=held,
            n_cut=n_cut,
            style=self._call_style,
        )
        self._turn_start = (kept, len(self._messages))
        self._tokens += ids[kept:]
        self._messages += said
        return turn

    def _behind_pinned(self, messages: list[dict[str, Any]], tokenizer: Tokenizer) -> list[int]:
        """Token ids of the conversation, with the pinned tokens in place of the messages they stand for."""
        ids = tokenizer.apply_chat_template(messages, **self._template_keywords)
        tokens, n_messages = self._pinned
        replaced: list[int] = []
        if n_messages:
            keywords = {**self._template_keywords, "add_generation_prompt": False}
            replaced = tokenizer.apply_chat_template(messages[:n_messages], **keywords)
        if ids[: len(replaced)] != replaced:
            raise TemplateError("the chat template rewrites earlier messages, so it cannot go on behind append() or rewind()")
        return tokens + ids[len(replaced) :]

    def _settle(self) -> None:
        """Enter a turn that has ended, was closed, or whose stream was dropped, into tokens and messages."""
        if self._turn is None:
            return
        turn, streamed, self._turn, self._stream = self._turn, self._stream is not None, None, None
        turn.close()
        # Interrupted before anybody was told anything: as if never asked
        if turn.finish_reason is None and not (streamed and turn.tokens):
            n_tokens, n_messages = self._turn_start
            self._return_to(n_tokens)
            del self._tokens[n_tokens:]
            del self._messages[n_messages:]
            return
        # The last token may not have run, and the core may hold tokens whose text was never shown.
        self._tokens = (self._tokens + turn.tokens)[: self._core.length]
        self._return_to(len(self._tokens))
        self._messages.append(turn.output.message)
        self._turn_ends.append((len(self._tokens), len(self._messages)))

    def _return_to(self, n_tokens: int) -> int:
        """Take the core back to the first n_tokens, and say how many it holds.

        Where its windows have dropped what they saw there it holds none, and all of the tokens run again before the next ones.
        """
        core = self._core
        if n_tokens < core.length:
            core.rewind(n_tokens if n_tokens >= core.rewind_limit else 0)
        return core.length


def said_messages(message: Any) -> list[dict[str, Any]]:
    """What is said in a turn as messages of our own, which nobody changes."""
    if isinstance(message, str):
        return [{"role": "user", "content": message}]
    several = isinstance(message, Sequence) and not isinstance(message, bytes)
    messages = list(message) if several else [message]
    if not messages:
        raise ValueError("message is an empty sequence; a turn has at least one message")
    for i, each in enumerate(messages):
        name = f"message[{i}]" if several else "message"
        if not isinstance(each, Mapping):
            refuse_type(name, "a str, a mapping with a role and content, or a sequence of such mappings", each)
        messages[i] = plain(each, name, SAVED_DEPTH)
        try:
            json.dumps(messages[i], allow_nan=False)
        except ValueError:
            raise ValueError(f"{name} holds a number that is not finite, which JSON cannot write") from None
    return messages
