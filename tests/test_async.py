# SPDX-License-Identifier: Apache-2.0
"""Generation under asyncio, and what is left of one that an exception ends."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import slm
from slm.asynchronous import in_thread

ENDLESS = {"max_tokens": 8000, "ignore_eos": True}
PROMPTS = ["The capital of France is", "Once upon a time", "def f(x):", "1, 2, 3,"]


@pytest.fixture(scope="module")
def story(smollm2):
    """What an interrupted text begins like."""
    return smollm2.generate("Once", max_tokens=30, ignore_eos=True)


def is_beginning(partial, whole):
    """Of a text that went on: some of it came, and its last tokens may stand for text that is not there yet."""
    n = min(len(partial.tokens), len(whole.tokens))
    return (
        partial.finish_reason is None
        and n > 0
        and partial.tokens[:n] == whole.tokens[:n]
        and partial.text
        and (whole.text.startswith(partial.text) or partial.text.startswith(whole.text))
    )


def at_call(n, then):
    """A processor of logits that changes nothing, and calls `then` when it is called the n-th time."""
    left = iter(range(n - 1, -1, -1))

    def processor(tokens, logits):
        if next(left, None) == 0:
            then()

    return processor


async def cancelled(call, n_calls):
    """The CancelledError of a task that is cancelled when the processor it gets is called the n-th time; None: after 0.5 s."""
    loop, started = asyncio.get_running_loop(), []

    def cancel():
        started.append(time.perf_counter())
        loop.call_soon_threadsafe(task.cancel)

    task = asyncio.ensure_future(call() if n_calls is None else call(processors=at_call(n_calls, cancel)))
    if n_calls is None:
        loop.call_later(0.5, cancel)
    try:
        await task
    except asyncio.CancelledError as error:
        assert time.perf_counter() - started[0] < 3  # the call itself would take many times longer
        return error
    raise AssertionError("not cancelled")


def test_several_at_once_give_the_serial_answers_and_leave_the_loop_free(smollm2):
    expected = [smollm2.generate(prompt, max_tokens=6).tokens for prompt in PROMPTS]
    chat = smollm2.chat("Hi", max_tokens=5)

    async def streamed(prompt):
        stream = smollm2.astream(prompt, max_tokens=6)
        assert (stream.output, stream.usage.total_tokens, stream.timings.decode_tokens) == (None, 0, 0)
        chunks = [chunk async for chunk in stream]
        assert stream.output.text == "".join(map(str, chunks))
        assert stream.output.finish_reason == "length"
        assert (stream.usage, stream.timings) == (stream.output.usage, stream.output.timings)
        return stream.output.tokens

    async def main():
        ticks, done = 0, asyncio.Event()

        async def tick():
            nonlocal ticks
            while not done.is_set():
                ticks += 1
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        *outputs, batch, answer = await asyncio.gather(
            *(smollm2.agenerate(prompt, max_tokens=6) for prompt in PROMPTS),
            smollm2.agenerate(PROMPTS, max_tokens=6),
            smollm2.achat("Hi", max_tokens=5),
        )
        done.set()
        await ticking
        streams = await asyncio.gather(*map(streamed, PROMPTS))
        assert [output.tokens for output in outputs] == [output.tokens for output in batch] == streams == expected
        assert (answer.tokens, answer.kind) == (chat.tokens, "chat.completion")
        return ticks

    assert asyncio.run(main()) > 5  # a loop that waited for the calls would tick once


@pytest.mark.parametrize("kind", ["decode", "prefill", "chat", "batch", "samples", "score", "send"])
def test_cancelling_the_task_cancels_the_call(smollm2, story, kind):
    session = smollm2.session()
    some = {"max_tokens": 500, "ignore_eos": True}  # of as many texts as run at once
    calls = {
        "decode": (8, lambda **o: smollm2.agenerate("Once", **ENDLESS, **o)),
        "prefill": (None, lambda: smollm2.agenerate(range(100, 8000), max_tokens=1)),
        "chat": (8, lambda **o: smollm2.achat("Tell me a story.", **ENDLESS, **o)),
        "batch": (32, lambda **o: smollm2.agenerate(["Once"] * 3 + ["The sea"], **some, **o)),
        "samples": (24, lambda **o: smollm2.agenerate("Once", n=3, temperature=1, **some, **o)),
        "score": (None, lambda: in_thread(smollm2.score, [(list(range(i, 4000 + i)), [5]) for i in range(8)])),
        "send": (8, lambda **o: session.asend("Tell me a story.", **ENDLESS, **o)),
    }
    n_calls, call = calls[kind]
    error = asyncio.run(cancelled(call, n_calls))
    if kind == "decode":
        assert is_beginning(error.output, story)
    elif kind == "prefill":
        assert (error.output.text, error.output.tokens, error.output.finish_reason) == ("", [], None)
        assert error.output.timings.decode_seconds == 0
    elif kind in ("batch", "samples"):
        assert len(error.output) == (4 if kind == "batch" else 3)
        assert kind == "samples" or all(is_beginning(output, story) for output in error.output[:3])
        assert all(output.finish_reason is None and output.tokens for output in error.output)
    elif kind != "score":
        assert error.output.text
        assert (error.output.kind, error.output.finish_reason) == ("chat.completion", None)
        assert error.output.to_openai()["choices"][0]["finish_reason"] is None
    assert (session.length, session.messages) == (0, [])
    assert smollm2.generate("Once", max_tokens=3).tokens == story.tokens[:3]


def test_a_call_that_waits_for_a_thread_is_cancelled_at_once(smollm2, story):
    async def main():
        loop, seen = asyncio.get_running_loop(), asyncio.Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        processor = at_call(8, lambda: loop.call_soon_threadsafe(seen.set))
        running = asyncio.create_task(smollm2.agenerate("Once", processors=processor, **ENDLESS))
        error = await cancelled(lambda: smollm2.agenerate("Once", **ENDLESS), None)
        assert not hasattr(error, "output")
        assert not running.done()
        await seen.wait()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0):
                await running
        assert is_beginning(caught.value.__cause__.output, story)

    asyncio.run(main())


def test_streams_that_are_closed_cancelled_or_dropped(smollm2, story):
    session = smollm2.session()

    async def main():
        async with session.astream("Tell me a story.", **ENDLESS) as stream:
            first = await anext(stream)
            with pytest.raises(slm.BusyError):
                await session.asend("And?")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert session.messages[-1] == {"role": "assistant", "content": str(first)}

        async for _ in session.astream("Go on.", **ENDLESS):
            break
        assert len(session.messages) == 4

        async def read(**options):
            async for _ in smollm2.astream("Once", **ENDLESS, **options):
                pass

        assert is_beginning((await cancelled(read, 8)).output, story)

        unread = smollm2.astream("Once")
        await unread.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(unread)
        with pytest.raises(TypeError, match="'max_length'"):
            await anext(smollm2.astream("Once", max_length=3))

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["generate", "batch", "chat", "stream"])
def test_an_interrupt_keeps_the_output(smollm2, story, kind):
    def interrupt():  # soon, for the processor not to raise it
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()

    processed = {"ignore_eos": True, "processors": at_call(80 if kind == "batch" else 8, interrupt)}
    stream = smollm2.stream("Once", max_tokens=8000, **processed)
    calls = {
        "generate": lambda: smollm2.generate("Once", max_tokens=8000, **processed),
        "batch": lambda: smollm2.generate(["Once"] * 40, max_tokens=200, **processed),
        "chat": lambda: smollm2.chat("Tell me a story.", max_tokens=8000, **processed),
        "stream": lambda: list(stream),
    }
    with pytest.raises(KeyboardInterrupt) as caught:
        calls[kind]()
    if kind == "generate":
        assert is_beginning(caught.value.output, story)
    elif kind == "batch":
        assert len(caught.value.output) == 40
        assert is_beginning(caught.value.output[0], story)
        assert caught.value.output[39].text == ""  # only so many run at once
    elif kind == "chat":
        assert (caught.value.output.kind, bool(caught.value.output.text)) == ("chat.completion", True)
    else:
        assert is_beginning(stream.output, story)
        before = stream.output.text
        assert (before, before + next(stream).text) == (caught.value.output.text, stream.output.text)  # it goes on


def test_a_processor_that_raises_keeps_the_output(smollm2):
    def limit(tokens, logits):
        if len(tokens) >= 9:
            raise LookupError

    expected = smollm2.generate("Once", max_tokens=20).tokens
    with pytest.raises(LookupError) as caught:
        smollm2.generate("Once", processors=limit)
    assert 0 < len(caught.value.output.tokens) <= 8
    assert caught.value.output.tokens == expected[: len(caught.value.output.tokens)]
    with pytest.raises(LookupError) as caught:
        smollm2.generate(["Once", "Once upon"], processors=limit)
    assert all(output.tokens for output in caught.value.output)


def test_the_end_of_an_iterator_in_a_function_is_no_end_of_the_call(smollm2):
    """asyncio would wait for ever for a thread that ends with StopIteration, and a stream would take it for its own end."""

    def spent(tokens, logits):
        next(iter(()))

    async def streamed():
        return [chunk async for chunk in smollm2.astream("Once", processors=spent)]

    async def answered():
        return await smollm2.agenerate("Once", processors=spent)

    calls = [lambda: smollm2.generate("Once", processors=spent), lambda: smollm2.generate(["Once", "One"], processors=spent)]
    calls += [lambda: list(smollm2.stream("Once", processors=spent))]
    calls += [lambda run=run: asyncio.run(asyncio.wait_for(run(), 30)) for run in (answered, streamed)]
    for call in calls:
        with pytest.raises(RuntimeError, match="raised StopIteration") as raised:
            call()
        assert isinstance(raised.value.__cause__, StopIteration)


def test_what_a_stream_gave_stays_as_it_was(smollm2, story):
    with smollm2.stream("Once", max_tokens=30, ignore_eos=True, logprobs=1) as stream:
        next(stream)
        first = stream.output
        n = len(first.tokens)
        list(stream)
        assert (len(first.tokens), len(first.logprobs)) == (n, n)
        assert stream.output.tokens == story.tokens
        assert [item.token for item in stream.output.logprobs] == story.tokens
