# SPDX-License-Identifier: Apache-2.0
"""A loaded model: weights, vocabulary, and the verbs that run them."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from slm import _core
from slm.activations import Edit, capture_taps, check_capture, check_edit, edit_taps, new_activations
from slm.errors import ClosedError, TemplateError, UnsupportedError
from slm.families.tool_calls import Style, style_of
from slm.generation import Run, Stream, echo_of, run_batch
from slm.html import table
from slm.messages import Documents, Messages, Tools, template_keywords
from slm.options import MAX_SCALE, GenerateOptions, check_bool, check_ids, check_number, check_path, refuse_keywords, shown
from slm.output import Forward, Kind, Output, Perplexity, Score
from slm.overflow import Fitted, check_fit, fit_chat, fit_prompt
from slm.progress import Progress
from slm.scoring import measure_perplexity, score_pairs
from slm.session import Session
from slm.tokenizer import Tokenizer, batch_of, flat_ids, prompt_ids

if TYPE_CHECKING:
    from slm.asynchronous import AsyncStream
    from slm.families.architecture import Architecture
    from slm.formats.adapter_files import AdapterFiles
    from slm.info import Adapter, Info

Prompt = str | Sequence[int]


class Model:
    """A model: immutable, and safe to use from several threads. Made by slm.load().

    info: what the files say; tokenizer: None when they hold no vocabulary, then prompts are token ids; end_ids: tokens that end
    a text;
    context: most positions that a prompt and its answer may take; threads: how many threads one call uses; vocab_size,
    hidden_size, num_hidden_layers: of the model; adapters: those that it runs with, see adapt().
    """

    def __init__(
        self,
        core: _core.Model,
        info: "Info",
        tokenizer: Tokenizer | None,
        end_ids: tuple[int, ...],
        threads: int,
        architecture: "Architecture",
        adapters: tuple["Adapter", ...] = (),
    ) -> None:
        stats = core.stats()
        self._core: _core.Model | None = core
        self.info = info
        self.tokenizer = tokenizer
        self.end_ids = end_ids
        self.threads = threads
        self.adapters = adapters
        self._architecture = architecture
        self.context: int = stats["context"]
        self.vocab_size: int = stats["vocab_size"]
        self.hidden_size: int = stats["hidden_size"]
        self.num_hidden_layers: int = stats["num_hidden_layers"]
        self._embeds_only: bool = stats["bidirectional"]

    @overload
    def generate(self, prompt: Prompt, *, progress: Progress = None, **options: Any) -> Output: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], *, progress: Progress = None, **options: Any) -> list[Output]: ...
    def generate(self, prompt: Any, *, progress: Progress = None, **options: Any) -> Any:
        """Continue a prompt. options: the fields of slm.GenerateOptions.

        prompt: a str (its text never becomes control tokens) or a flat sequence of token ids. An empty one is the bos token.
            A list of prompts runs as one batch and gives a list of outputs, each the same as when run alone (F32 weights on
            BLIS: where rounding does not tip the choice of a token). With n above 1 there is a list of n outputs for each prompt.
        progress: of a list: True draws a bar; None: on a terminal or in a notebook, if it takes longer than 2 s; False: never. Or
            a function that is called with (texts finished, texts in all), in the thread of the call; its exception ends the call.
        Raises ContextLengthError (a prompt is cut only if overflow= says how), ClosedError, TypeError and ValueError naming the
        parameter. An exception that ends the generation, such as a KeyboardInterrupt, has what came so far as its attribute
        `output`: an Output, or a list of them, whose finish_reason is None where there was more to come.
        """
        self._refuse_embedder("generate")
        record = GenerateOptions.of("generate", options)
        batch = batch_of(prompt)
        if batch is None:
            if progress:
                raise ValueError("progress is for a list of prompts, and prompt is one")
            return self._answer(self._ids(prompt, record), record, "text_completion")
        prompts = [self._ids(item, record, f"prompt[{i}]") for i, item in enumerate(batch)]
        core = self._open_core()
        return run_batch(core, self.tokenizer, self.end_ids, prompts, record, self.threads, progress=progress)

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """generate() as an iterator of Chunk: pieces of text as they are made. Closing it cancels what is left."""
        self._refuse_embedder("stream")
        record = GenerateOptions.of("stream", options)
        if batch_of(prompt):
            raise TypeError("prompt must be one prompt; a list of prompts goes to generate()")
        return Stream(self._run(self._ids(prompt, record), record, "text_completion"))

    def chat(
        self,
        messages: Messages | str,
        *,
        tools: Tools | None = None,
        documents: Documents | None = None,
        chat_template: str | None = None,
        continue_final_message: bool | str = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Output:
        """Answer a conversation: mappings with role and content, or one question as a str. options: those of GenerateOptions.

        tools, documents, chat_template, continue_final_message: as in Tokenizer.apply_chat_template; chat_template_kwargs: what
            else the template reads, such as {"enable_thinking": False}. With tools, calls in the answer are Output.tool_calls,
            if the template shows them in a style that slm knows; Output.message and messages with the role "tool" go on.
            There the arguments of a call are a mapping; most templates write a str, as OpenAI's client has it, as a JSON string.
        Text in messages, tools and documents never becomes control tokens. Raises TemplateError when the model has no chat
        template or it refuses the conversation, and what generate() raises.
        """
        self._refuse_embedder("chat")
        record = GenerateOptions.of("chat", options)
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        template = template_keywords(tools, documents, chat_template, chat_template_kwargs)
        keywords = template | {"continue_final_message": continue_final_message}
        tokenizer = self._chat_tokenizer()

        def render(messages: Messages) -> list[int]:
            return tokenizer.apply_chat_template(messages, **keywords)

        fitted = fit_chat(render, messages, self.context, record, tokenizer.bos_id)
        style = self._call_style(template) if template["tools"] is not None and not record.echo else None
        answer: Output = self._answer(fitted, record, "chat.completion", style)
        return answer

    # asyncio is imported with the first of these calls, not with slm.
    @overload
    async def agenerate(self, prompt: Prompt, **options: Any) -> Output: ...
    @overload
    async def agenerate(self, prompt: Sequence[Prompt], **options: Any) -> list[Output]: ...
    async def agenerate(self, prompt: Any, **options: Any) -> Any:
        """generate() for asyncio: it runs in a thread, and the event loop goes on. Cancelling the task cancels it; what came so
        far is then the CancelledError's `output`."""
        from slm.asynchronous import in_thread

        return await in_thread(self.generate, prompt, **options)

    def astream(self, prompt: Prompt, **options: Any) -> "AsyncStream":
        """stream() for `async for`. The first step raises what stream() does. Closing it, or cancelling the task that waits for
        a step, cancels what is left."""
        from slm.asynchronous import AsyncStream

        return AsyncStream(lambda: self.stream(prompt, **options))

    async def achat(self, messages: Messages | str, **options: Any) -> Output:
        """chat() for asyncio, with its keywords; as agenerate()."""
        from slm.asynchronous import in_thread

        answer: Output = await in_thread(self.chat, messages, **options)
        return answer

    def session(
        self,
        system: str | None = None,
        *,
        tools: Tools | None = None,
        documents: Documents | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> Session:
        """A conversation that keeps its KV state between turns. system: its system message; the others: as in chat().

        Raises TemplateError when the model has no chat template, or none that reads all of these, ClosedError, TypeError and
        ValueError.
        """
        self._refuse_embedder("session")
        for name in unknown:
            if name in GenerateOptions.__dataclass_fields__:
                raise TypeError(f"session() has no option {name!r}: send() and stream() of the session take it")
        refuse_keywords("session", unknown, ("system", "tools", "documents", "chat_template", "chat_template_kwargs"))
        return Session(self, system, template_keywords(tools, documents, chat_template, chat_template_kwargs))

    def forward(
        self,
        tokens: Prompt,
        *,
        logits: Literal["all", "last"] = "all",
        capture: str | Iterable[str] = (),
        edit: Mapping[str, Edit] | None = None,
    ) -> Forward:
        """One pass over a text from position 0: a flat sequence of token ids, or a str, encoded as generate() does.

        logits: "all" gives [n_tokens, vocab_size] f32, "last" only the last position's, [1, vocab_size].
        capture: names of sites; the result's `activations` has an array of each, of all tokens. It changes no bit of the logits
            (F32 weights on BLIS: of "all" logits).
        edit: a mapping of sites to functions f(array): each gets the rows of its site, [n_tokens, hidden_size] f32, and changes
            them in place and returns None, or returns an array of that shape; the model goes on with those. One with a parameter
            named `positions` gets that too, int64 [n_tokens]. What is captured at the same site is what f made of it.
            f runs in the middle of the pass, in the thread of the call. It may use slm, but must not wait for another thread
            that does; an exception ends the call. So that f sees all rows the pass is one step, whose memory grows with n_tokens.

        Sites; all but weights are [n_tokens, hidden_size]:
        embed                   what the first layer reads: embeddings, scaled and with positions added where the model does so
        layer.<i>.attn_in       what attention reads: the residual stream behind the norm in front of it, if there is one
        layer.<i>.attn_weights  probabilities [num_attention_heads, n_tokens, n_tokens] of each query (second axis) over keys,
                                before they are rounded to the cache's type: as Transformers' `attentions`. Not to be edited
        layer.<i>.attn_out      what its output projection gives, before a norm or factor on the way into the stream
        layer.<i>.mlp_in, layer.<i>.mlp_out   the same of the MLP. (In Transformers: inputs and outputs of self_attn and mlp)
        layer.<i>.out           the residual stream behind the layer: `hidden_states[i + 1]`, but behind the last layer without
                                the final norm. unembed() makes logits of it
        final_norm              what the output layer reads

        Raises ContextLengthError, NumericsError (NaN or infinity), UnsupportedError, MemoryError where there is no room for what
        is to be captured, ValueError for no tokens or an id out of range, and TypeError and ValueError that name a site, also
        where what f gives has another shape, no floats, NaN or infinity.
        """
        self._refuse_embedder("forward")
        if logits not in ("all", "last"):
            raise ValueError(f"logits must be 'all' or 'last', not {shown(logits)}")
        core = self._open_core()
        if not isinstance(tokens, str) and not flat_ids("tokens", tokens):
            raise ValueError("tokens is empty; a forward pass takes at least one token")
        ids = prompt_ids(self.tokenizer, tokens, self.vocab_size, "tokens")
        check_fit("tokens", len(ids), self.context, 0)
        edits = edit_taps(check_edit(edit))
        activations = new_activations(check_capture(capture), len(ids), core.stats())
        step = len(ids) if edits else 0  # so that functions see all rows
        taps = edits + capture_taps(activations)
        return Forward(core.session().forward(ids, logits, self.threads, step, taps), activations)

    def unembed(self, hidden: NDArray[np.floating]) -> NDArray[np.float32]:
        """The logits [n, vocab_size] f32 of rows [n, hidden_size] of the residual stream, such as layer.<i>.out: by the final
        norm and the output layer. Of layer.<last>.out they are those of the pass, bit for bit
        (F32 weights on BLIS: where all its rows are given).

        Raises NumericsError (NaN or infinity), UnsupportedError, ValueError for another shape, TypeError for what is no floats.
        """
        self._refuse_embedder("unembed")
        rows = np.asarray(hidden)
        if rows.dtype.kind != "f":
            raise TypeError(f"hidden must be an array of floats, not of {rows.dtype}")
        return self._open_core().unembed(rows.astype(np.float32, copy=False), self.threads)

    def score(self, pairs: Iterable[tuple[Prompt, Prompt]], *, progress: Progress = None) -> list[Score]:
        """How likely continuations are: the Score of each (context, continuation), in their order.

        Both are str: they are encoded as one text, as in lm-evaluation-harness: white space that ends the context counts to the
            continuation, which begins at the first token that is not one of the context alone. (Where a token reaches across,
            it is scored whole; the harness would then put tokens together that are not those of the text.)
        Else each is a str, encoded by itself, or a flat sequence of token ids. Only a context that is a str gets the special
        tokens that the vocabulary puts in front of a text; one without any tokens is the bos token.
        All pairs run together, and what they begin with in common runs once: a score is the same for any order, threads, or
        other pairs beside it, bit for bit (F32 weights on BLIS: for any number of threads).
        progress: as in generate(), of pairs.
        Raises ContextLengthError (nothing is ever cut), NumericsError, ClosedError, and TypeError and ValueError that name the
        pair.
        """
        self._refuse_embedder("score")
        core = self._open_core()
        return score_pairs(core, self.tokenizer, self.vocab_size, self.context, pairs, self.threads, progress)

    def logprobs(self, tokens: Iterable[int]) -> NDArray[np.float64]:
        """ln of the probability of each of a flat sequence of token ids but the first, given those before it: [n_tokens - 1]."""
        self._refuse_embedder("logprobs")
        core = self._open_core()
        ids = check_ids("tokens", flat_ids("tokens", tokens), self.vocab_size)
        if not ids:
            raise ValueError("tokens is empty; the first token is what the others stand behind")
        check_fit("tokens without the last", len(ids) - 1, self.context, 0)
        return np.array(core.score([ids], [len(ids) - 1], self.threads)[0][0] if len(ids) > 1 else ())

    def perplexity(self, text: Prompt, *, stride: int | None = None, progress: Progress = None) -> Perplexity:
        """How well the model predicts a text: a str or a flat sequence of token ids, of any length.

        A text longer than the context is read in windows that fill it, each beginning `stride` tokens behind the one before,
        as in Transformers' guide: every token is scored once, behind at least the tokens that two windows share. None: half a
        window. A small stride is exact and slow.
        The first token is scored only where the vocabulary puts a special token in front of a text (and then of every window);
        else, and of token ids, it is only what the others stand behind.
        progress: as in generate(), of windows.
        Raises NumericsError, ClosedError, TypeError and ValueError.
        """
        self._refuse_embedder("perplexity")
        core = self._open_core()
        return measure_perplexity(core, self.tokenizer, self.vocab_size, self.context, text, stride, self.threads, progress)

    def embed(
        self,
        texts: Prompt | Sequence[Prompt],
        *,
        pool: Literal["mean", "cls", "last"] = "mean",
        normalize: bool = True,
    ) -> NDArray[np.float32]:
        """Vectors that stand for texts: [n_texts, hidden_size] f32.

        texts: a str or a flat sequence of token ids, or a list of such; each gives the same vector as when alone. A str is
            encoded with the special tokens that the vocabulary puts around a text.
        pool: what is taken of the hidden states behind the last norm: the "mean" over all tokens, the first one ("cls") or the
            "last". Models are trained for one of them.
        normalize: scale to length 1, so that a dot product of two vectors is their cosine.
        Raises ContextLengthError (a text is never cut), NumericsError, ClosedError, and TypeError and ValueError that name the
        parameter.
        """
        core = self._open_core()
        if pool not in ("mean", "cls", "last"):
            raise ValueError(f"pool must be 'mean', 'cls' or 'last', not {shown(pool)}")
        normalize = check_bool("normalize", normalize)
        batch = batch_of(texts, "texts")
        named = [("texts", texts)] if batch is None else [(f"texts[{i}]", text) for i, text in enumerate(batch)]
        prompts = []
        for name, text in named:
            prompts.append(prompt_ids(self.tokenizer, text, self.vocab_size, name))
            check_fit(name, len(prompts[-1]), self.context, 0)
        vectors = np.empty((len(prompts), self.hidden_size), np.float32)
        for i, ids in enumerate(prompts):
            hidden = core.session().forward(ids, "hidden_last" if pool == "last" else "hidden_all", self.threads)
            vector = hidden.mean(axis=0, dtype=np.float64) if pool == "mean" else hidden[0].astype(np.float64)
            vectors[i] = vector / max(np.sqrt(np.square(vector).sum()), 1e-12) if normalize else vector
        return vectors

    def adapt(self, path: str | os.PathLike[str], *, scale: float = 1.0) -> "Model":
        """A model with a LoRA adapter, which shares all weights of this one: beside them it holds the adapter's matrices, A
        of a module that several linears are fused into once for each.

        path: a folder that PEFT's save_pretrained() wrote, or a GGUF file with an adapter; for either kind of model files.
        scale: multiplies what the adapter adds. It may be negative; with 0 the result is that of this model, bit for bit.
        Both models can be used side by side, and closed in any order: weights go with the last model that shares them. Each has
        sessions of its own. A model that has adapters already keeps them, and what all of them add is summed; another one
        instead is what the model without any gives. What an adapter adds is computed in f32, of f32 inputs and in the types of
        its files, whatever the types of the model, and on all tiers, threads, batches and chunks gives the same bits.
        Of PEFT: LoRA on linear layers, embeddings and the output layer, with rank_pattern, alpha_pattern and use_rslora; what
        else its configuration asks for raises UnsupportedError, and so do whole matrices in its file: PEFT adds the
        model's where it adapts embeddings, unless save_pretrained(folder, save_embedding_layers=False) says not to.
        Raises FormatError for damaged files and for the adapter of another model, UnsupportedError, LimitError, OSError,
        ClosedError, MemoryError, TypeError and ValueError.
        """
        self._open_core()
        check_path("path", path)
        scale = check_number("scale", scale, -MAX_SCALE, MAX_SCALE)
        with open_adapter(path) as files:
            return self._adapted(files, path, scale)

    def _adapted(self, files: "AdapterFiles", path: str | os.PathLike[str], scale: float = 1.0) -> "Model":
        from slm import adapters

        adapted, adapter = adapters.adapt(self._open_core(), self._architecture, files, path, scale, self.threads)
        made_of = self.info, self.tokenizer, self.end_ids, self.threads, self._architecture
        return Model(adapted, *made_of, (*self.adapters, adapter))

    @cached_property
    def _fingerprint(self) -> str:
        """SHA-256 of what a few tokens leave in the cache, as it lies there, and of the logits behind them.

        It depends on all weights but the embeddings of other tokens, on the types that they run with, and on the layout of
        pages; not on the machine, for there is one arithmetic (F32 weights on BLIS: on which kernels BLIS has for it).
        """
        session = self._open_core().session()
        ids = [i * self.vocab_size // 8 for i in range(8)]
        logits = session.forward(ids[: self.context], "last")
        return hashlib.sha256(session.save()[0] + logits.tobytes()).hexdigest()

    def close(self) -> None:
        """Give the weights back, where no model shares them that adapt() made. Running streams finish; every later call raises
        ClosedError. Closing twice is fine."""
        self._core = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        adapters = "".join(f", {adapter!r}" for adapter in self.adapters)
        return f"Model({self.info!r}{adapters}{', closed' if self._core is None else ''})"

    def _repr_html_(self) -> str:
        adapters = {"adapters": ", ".join(map(repr, self.adapters))} if self.adapters else {}
        state = "closed" if self._core is None else f"loaded, {self.threads} threads"
        return table(self.info.rows() | adapters | {"state": state})

    def _open_core(self) -> _core.Model:
        core = self._core
        if core is None:
            raise ClosedError("the model is closed")
        return core

    def _refuse_embedder(self, verb: str) -> None:
        if self._embeds_only:
            raise UnsupportedError(f"{verb}() is not for this model: it embeds, it does not generate; use embed()")

    def _ids(self, prompt: Any, options: GenerateOptions, name: str = "prompt") -> Fitted:
        ids = prompt_ids(self.tokenizer, prompt, self.vocab_size, name)
        bos = None if self.tokenizer is None else self.tokenizer.bos_id
        return fit_prompt(name, ids, self.context, options, bos)

    def _chat_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise TemplateError("the model has no tokenizer, and so no chat template")
        return self.tokenizer

    def _call_style(self, keywords: Mapping[str, Any]) -> Style | None:
        """How the model calls tools; None where its template shows no style that is known. keywords: see template_keywords()."""
        return style_of(self._chat_tokenizer()._template(**keywords).source)

    def _answer(self, prompt: Fitted, options: GenerateOptions, kind: Kind, style: Style | None = None) -> Any:
        """An Output, or a list of n."""
        if options.n == 1:
            return self._run(prompt, options, kind, style).finish()
        try:
            start = (self._open_core(), self.tokenizer, self.end_ids, [prompt], options, self.threads)
            return run_batch(*start, kind=kind, style=style)[0]
        except BaseException as error:
            if hasattr(error, "output"):
                error.output = error.output[0]
            raise

    def _run(self, prompt: Fitted, options: GenerateOptions, kind: Kind, style: Style | None = None) -> Run:
        core = self._open_core()
        echo = echo_of(core, self.tokenizer, prompt.ids, options, self.threads)
        start = (core.session(), self.tokenizer, self.end_ids, prompt.ids, options)
        return Run(*start, threads=self.threads, kind=kind, n_cut=prompt.n_cut, echo=echo, style=style)


def open_adapter(path: str | os.PathLike[str]) -> "AdapterFiles":
    from slm import adapters  # with the first one

    return adapters.open_adapter(path)
