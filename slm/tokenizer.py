# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back, as the model's vocabulary says."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np

from slm import _core
from slm.chat import ChatTemplate
from slm.errors import LimitError, TemplateError, quoted
from slm.messages import Documents, Messages, Tools
from slm.options import check_bool, check_ids, check_int, check_text, refuse_type, shown
from slm.vocabulary import CONTROL, Vocabulary

MAX_TEXT_BYTES = 64 << 20
MAX_THREADS = 256
MOST_COMPILED = 16  # templates


class Tokenizer:
    """A vocabulary. Immutable; safe to use from several threads. Made by slm.load_tokenizer(), or found on a model.

    bos_id, eos_id: None when the vocabulary names none. end_ids: all ids that end a generation.
    control_ids: of the tokens that steer the model, which no text from outside may become.
    chat_templates: name -> Jinja source; the one for every conversation is "default".
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._core = _core.Tokenizer(**vocabulary.core_arguments())
        self._special_ids = dict(vocabulary.special_ids)
        self.chat_templates = dict(vocabulary.chat_templates)
        self._compiled: dict[str, ChatTemplate] = {}  # by source
        self.bos_id = self._special_ids.get("bos_token")
        self.eos_id = self._special_ids.get("eos_token")
        self.end_ids = tuple(vocabulary.end_tokens)
        self._prefix = list(vocabulary.prefix)  # what add_special_tokens puts in front of a text
        self.control_ids = tuple(np.flatnonzero(np.frombuffer(vocabulary.kinds, np.uint8) == CONTROL).tolist())

    @property
    def vocab_size(self) -> int:
        return self._core.vocab_size

    def __len__(self) -> int:
        return self._core.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} tokens, bos_id={self.bos_id}, eos_id={self.eos_id})"

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        add_special_tokens: put bos and eos where the vocabulary asks for them.
        parse_special: control tokens that are written in the text become those tokens; never pass a stranger's text so.
        Raises TypeError, ValueError (a lone surrogate), LimitError (more than 64 MiB).
        """
        flags = check_bool("add_special_tokens", add_special_tokens), check_bool("parse_special", parse_special)
        return self._encode(check_text("text", text), *flags, ())

    def encode_batch(
        self, texts: Iterable[str], *, add_special_tokens: bool = True, parse_special: bool = False, threads: int | None = None
    ) -> list[list[int]]:
        """What encode() gives for each of the texts, by all threads. threads: at most so many; None: the default."""
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            refuse_type("texts", "a list of str", texts)
        texts = list(texts)
        for index, text in enumerate(texts):
            check_length(check_text(f"texts[{index}]", text))
        flags = check_bool("add_special_tokens", add_special_tokens), check_bool("parse_special", parse_special)
        return self._core.encode_batch(texts, *flags, 0 if threads is None else check_int("threads", threads, 1, MAX_THREADS))

    def encode_with_offsets(
        self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and for each the span (start, end) of text it is made of: text[start:end], in characters.

        A token that holds only some bytes of a character spans it whole; what add_special_tokens adds has the span (0, 0).
        Spans are those of Hugging Face's `tokenizers`: where a character map removes what a text begins with, such as a byte
        order mark, all spans behind it lag by as many characters.
        """
        check_length(check_text("text", text))
        flags = check_bool("add_special_tokens", add_special_tokens), check_bool("parse_special", parse_special)
        return self._core.encode(text, *flags, (), True)

    def _encode(self, text: str, add_special_tokens: bool, parse_special: bool, guards: Sequence[int]) -> list[int]:
        check_length(text)
        return self._core.encode(text, add_special_tokens, parse_special, guards)

    def decode(self, ids: int | Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD. Raises ValueError naming an id outside the vocabulary."""
        if not isinstance(ids, Iterable):
            ids = [ids]
        elif isinstance(ids, str | bytes):
            refuse_type("ids", "a token id or a sequence of token ids", ids)
        return self._core.decode(check_ids("ids", ids, self.vocab_size), check_bool("skip_special_tokens", skip_special_tokens))

    def token_bytes(self, id: int) -> bytes:
        """The exact bytes of one token, which need not be whole characters."""
        return self._core.token_bytes(check_int("id", id, 0, self.vocab_size - 1))

    def token_id(self, piece: str) -> int | None:
        """The id whose piece is exactly this: the text of an added token, or a piece as published; None if there is none."""
        return self._core.find(check_text("piece", piece))

    @property
    def special_tokens(self) -> dict[str, int]:
        """The ids of the tokens that have a task, by Hugging Face's names: "bos_token", "eos_token", "pad_token" ..."""
        return dict(self._special_ids)

    @cached_property
    def _template_variables(self) -> tuple[dict[str, str], list[str]]:
        """Special tokens by the names that templates use, and the texts of all control tokens."""
        variables = {name: self.token_bytes(id).decode("utf-8", "replace") for name, id in self._special_ids.items()}
        try:
            return variables, [self.token_bytes(id).decode() for id in self.control_ids]
        except UnicodeDecodeError as error:
            raise TemplateError("a control token of the vocabulary is not UTF-8, so text cannot be kept apart from it") from error

    def _template(
        self, /, *, chat_template: str | None, tools: Any = None, documents: Any = None, **variables: Any
    ) -> ChatTemplate:
        """The compiled template: by name, by its source, or the one that suits. TemplateError: it does not read the others."""
        templates, chosen = self.chat_templates, chat_template
        if chosen is None:
            chosen = "tool_use" if tools is not None and "tool_use" in templates else "default"
            if chosen not in templates:
                others = f"; its templates are {', '.join(map(repr, templates))}, name one as chat_template" if templates else ""
                problem = "default chat template" if templates else "chat template: it completes text, use generate() or stream()"
                raise TemplateError(f"the model has no {problem}{others}")
        named = check_text("chat_template", chosen) in templates
        if not named and "{" not in chosen:
            known = f"a name from {', '.join(map(repr, templates))}" if templates else "the model has none by name"
            raise ValueError(f"chat_template must be a Jinja template or a name ({known}), not {shown(chosen)}")
        source = templates[chosen] if named else chosen
        for name, value in (("tools", tools), ("documents", documents)):
            if value and name not in source:
                raise TemplateError(f"{name}: the chat template has no place for them")
        unread = next((name for name in variables if name not in source), None)
        if unread is not None:
            raise TemplateError(f"the chat template reads no variable {quoted(unread)}")
        template = self._compiled.get(source)
        if template is None:
            if len(self._compiled) == MOST_COMPILED:
                self._compiled.clear()
            template = self._compiled[source] = ChatTemplate(source, *self._template_variables)
        return template

    @overload
    def apply_chat_template(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        documents: Documents | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        tokenize: Literal[True] = True,
        **variables: Any,
    ) -> list[int]: ...
    @overload
    def apply_chat_template(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        documents: Documents | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        tokenize: Literal[False],
        **variables: Any,
    ) -> str: ...
    def apply_chat_template(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        documents: Documents | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        **variables: Any,
    ) -> list[int] | str:
        """A conversation as the model was trained to see it: token ids, or text with tokenize=False.

        messages: mappings with "role" and what else the template reads, usually "content": a str, or a list of parts
            {"type": "text", "text": ...}, joined by newlines for a template that reads no parts.
        tools: JSON schemas, or functions with type hints and a docstring that describes each parameter.
        documents: mappings, usually with "title" and "text".
        chat_template: a name from chat_templates, or a Jinja template; None: "tool_use" if there are tools and it exists, else
            "default".
        add_generation_prompt: end with what begins an answer; None: unless continue_final_message.
        continue_final_message: end inside the last message, which the model then goes on with; or the name of the field of that
            message to go on with, such as "reasoning_content".
        variables: what else the template reads, such as enable_thinking.
        Text in any of these never becomes a control token; without such text the ids are those of Transformers, but where a
        template knows no "tool_calls": slm gives it tools, calls and results in the words that the model was trained with.
        Raises TemplateError when there is no template, or it has no place for tools, calls or documents, reads no such variable,
        refuses the conversation, fails or goes over its budget; UnsupportedError for images and other parts that are not text;
        TypeError and ValueError for arguments that are not plain data, and for functions that lack hints or descriptions.
        """
        continued = continue_final_message is not False
        if continued and not isinstance(continue_final_message, bool | str):
            refuse_type("continue_final_message", "True, False or the name of a field", continue_final_message)
        if add_generation_prompt is None:
            add_generation_prompt = not continued
        elif check_bool("add_generation_prompt", add_generation_prompt) and continued:
            raise ValueError("add_generation_prompt begins a new message, continue_final_message goes on with the last: give one")
        template = self._template(chat_template=chat_template, tools=tools, documents=documents, **variables)
        text, guards = template.render(
            messages,
            add_generation_prompt,
            tools=tools,
            documents=documents,
            continue_final_message=continue_final_message,
            variables=variables,
        )
        if not check_bool("tokenize", tokenize):
            return text
        return self._encode(text, False, True, guards)


def check_length(text: str) -> None:
    if len(text) > MAX_TEXT_BYTES:
        raise LimitError("the text is too long", limit="text", value=len(text), maximum=MAX_TEXT_BYTES)


def prompt_ids(tokenizer: Tokenizer | None, prompt: Any, vocab_size: int, name: str = "prompt") -> list[int]:
    """Token ids of a prompt: a str or a flat sequence of ids. An empty one becomes the bos token, or ValueError without one."""
    if not isinstance(prompt, str):
        ids = check_ids(name, flat_ids(name, prompt), vocab_size)
    elif tokenizer is None:
        raise ValueError(f"{name} is text, and the model has no tokenizer: pass token ids")
    else:
        ids = tokenizer._encode(check_text(name, prompt), True, False, ())
    if ids:
        return ids
    if tokenizer is None or tokenizer.bos_id is None:
        raise ValueError(f"{name} is empty, and the model has no bos token to begin with")
    return [tokenizer.bos_id]


def flat_ids(name: str, prompt: Any) -> Sequence[Any]:
    """A flat sequence of what may be token ids."""
    if isinstance(prompt, np.ndarray):
        if prompt.ndim != 1 or not (np.issubdtype(prompt.dtype, np.integer) or prompt.size == 0):
            raise TypeError(f"{name} must be a flat sequence of token ids, not {prompt.dtype} of shape {prompt.shape}")
        return prompt.tolist()
    if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes | bytearray | memoryview):
        return prompt
    refuse_type(name, "a sequence of token ids", prompt)


def batch_of(prompt: Any, name: str = "prompt") -> list[Any] | None:
    """The prompts of a list, or None when `prompt` is a single one: a str or a flat sequence of ids. [] is an empty batch."""
    if isinstance(prompt, str):
        return None
    if isinstance(prompt, np.ndarray):
        return list(prompt) if prompt.ndim == 2 else None
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray | memoryview):
        refuse_type(name, "a str, a sequence of token ids, or a list of prompts", prompt)
    nested = [isinstance(item, Sequence | np.ndarray) for item in prompt]
    if prompt and not any(nested):
        if any(isinstance(item, Mapping) for item in prompt):
            raise TypeError(f"{name} is a list of mappings; messages with roles go to chat(), and to session().stream()")
        return None
    if not all(nested):
        position = nested.index(False)
        refuse_type(f"{name}[{position}]", "a prompt, as the others are", prompt[position])
    return list(prompt)
