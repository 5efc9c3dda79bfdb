# SPDX-License-Identifier: Apache-2.0
"""Calls that asyncio awaits: each runs in a thread of the event loop's default executor, and ends when its task is cancelled."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Self

from slm import _core
from slm.generation import Stream
from slm.output import Chunk, Output, Timings, Usage


class Cancelled(BaseException):
    """Ends the call of a task that was cancelled. It stays in the call's thread and future."""


async def in_thread(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """What the function returns. A cancelled task waits for the call to end, which takes some 20 ms: then nothing runs any more,
    and what the call's own exception, or its result, says of the output is the CancelledError's `output`."""
    begun = cancelled = False
    calls = [partial(function, *args, **keywords)]

    def check() -> None:
        if cancelled:
            raise Cancelled

    def work() -> Any:
        nonlocal begun
        begun = True
        check()  # before, the task was told that nothing has begun
        return calls.pop()()  # the thread may keep `work` for a moment longer, but no stream that was dropped meanwhile

    context = copy_context()
    context.run(_core.interrupt.set, check)
    call = asyncio.get_running_loop().run_in_executor(None, context.run, work)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError as error:
        cancelled = True
        if not begun:
            call.cancel()
            raise
        while not call.done():
            with suppress(asyncio.CancelledError):  # cancelled once more
                await asyncio.wait([call])
        failure = call.exception()
        if failure is None:
            error.output = call.result()  # type: ignore[attr-defined]
        elif hasattr(failure, "output"):
            error.output = failure.output  # type: ignore[attr-defined]
        raise


class AsyncStream(AsyncIterator[Chunk]):
    """Asynchronous iterator over a generation, which begins with the first step. aclose(), the end of an `async with` block,
    dropping it, or cancelling a task that waits for a step cancels what is left."""

    def __init__(self, begin: Callable[[], Stream]) -> None:
        self._begin = begin
        self._stream: Stream | None = None
        self._closed = False

    async def __anext__(self) -> Chunk:
        if self._closed:
            raise StopAsyncIteration
        try:
            chunk = await in_thread(self._step)
        except asyncio.CancelledError as error:
            await self.aclose()
            if self._stream is not None:
                error.output = self._stream.output  # type: ignore[attr-defined]
            raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def _step(self) -> Chunk | None:
        if self._stream is None:
            self._stream = self._begin()
        return next(self._stream, None)

    async def aclose(self) -> None:
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def output(self) -> Output | None:
        """What came so far; None before the first step."""
        return None if self._stream is None else self._stream.output

    @property
    def timings(self) -> Timings:
        """Of what has run so far."""
        return Timings(0.0, 0.0, 0, 0) if self._stream is None else self._stream.timings

    @property
    def usage(self) -> Usage:
        """Of what has run so far."""
        return Usage(0, 0) if self._stream is None else self._stream.usage
