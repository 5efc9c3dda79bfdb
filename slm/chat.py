# SPDX-License-Identifier: Apache-2.0
"""Chat templates: a conversation to text, and which parts of that text may hold no control token.

A template writes control tokens such as an end-of-turn mark into its text; a user can type the same characters, and so can
whoever wrote a tool or a document. To tell them apart, a nonce, a character that occurs nowhere else, is put into the strings
from outside wherever a control token could begin or end in them. The template is rendered, the nonces are taken out again, and
each place where one stood becomes a guard: an offset that no control token may cover when the text is encoded. The characters of
the prompt are never changed, so conversations without such text give the very ids that Transformers gives.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

from slm.errors import TemplateError, quoted
from slm.families.tool_calls import in_own_words
from slm.messages import REASONING, Messages, are_text_parts, plain, plain_documents, plain_messages, strings
from slm.options import check_text, shown
from slm.tools import tool_schemas

MAX_SOURCE = 1 << 18  # characters of a template; published ones have up to 15,000
PRIVATE_USE = (0x100000, 0x10FFFD)


class ControlTokens:
    """The texts of a vocabulary's control tokens, and the two rules by which strings from outside are kept from forming one."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = sorted((text for text in texts if text), key=len, reverse=True)
        self._single = [text for text in self.texts if len(text) == 1]
        self._pattern = re.compile("|".join(map(re.escape, self.texts)) or "(?!)")  # longest first, and never for no texts
        starts = "".join(sorted({re.escape(text[0]) for text in self.texts}))
        self._starts = re.compile(f"[{starts}]" if starts else "(?!)")
        self._tails = {text[i:] for text in self.texts for i in range(1, len(text))}

    def found_in(self, text: str) -> list[str]:
        return self._pattern.findall(text)

    def mark(self, value: Any, rule: Callable[[str, str, bool], str], nonce: str, is_name: bool = False) -> Any:
        """A copy of plain data with a rule applied to each string in it. is_name: keys, and the values of "role"."""
        if isinstance(value, str):
            for text in self._single:
                if text in value:
                    raise TemplateError(f"a message holds the one-character control token {quoted(text)}, which no text may hold")
            return rule(value, nonce, is_name)
        if isinstance(value, dict):
            return {self.mark(k, rule, nonce, True): self.mark(v, rule, nonce, k == "role") for k, v in value.items()}
        if isinstance(value, list):
            return [self.mark(item, rule, nonce) for item in value]
        return value

    def every_start(self, text: str, nonce: str, is_name: bool) -> str:
        """A nonce behind each character that begins some control token, and before a string that could end one."""
        marked = self._starts.sub(lambda match: match[0] + nonce, text)
        # Templates write "<|" + role + "|>": names they choose tokens by, and no other string, may stand inside of one.
        ends_one = not is_name and any(text.startswith(tail) for tail in self._tails)
        return nonce + marked if ends_one else marked

    def whole_tokens(self, text: str, nonce: str, is_name: bool) -> str:
        """A nonce behind the first character of each whole control token, and of each start of one that ends the string."""
        places = set()
        for control in self.texts:
            place = text.find(control)
            while place >= 0:
                places.add(place + 1)
                place = text.find(control, place + 1)
            places.update(len(text) - n + 1 for n in range(1, len(control)) if text.endswith(control[:n]))
        ends = [0, *sorted(places), len(text)]
        return nonce.join(text[a:b] for a, b in pairwise(ends))


class ChatTemplate:
    """A compiled chat template. Safe to use from several threads.

    variables: special tokens by the names that templates use ("bos_token"); control: the texts of all control tokens.
    """

    def __init__(self, source: str, variables: Mapping[str, str], control: Sequence[str]) -> None:
        from slm.sandbox import TemplateEnvironment  # Jinja is imported with the first template, not with slm

        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; at most {MAX_SOURCE} are accepted")
        self.source = source
        self._variables = dict(variables)
        self._control = ControlTokens(control)
        self._environment = TemplateEnvironment()
        with failures_named(), self._environment.limited(len(source)):
            self._template = self._environment.from_string(source)

    def render(
        self,
        messages: Messages,
        add_generation_prompt: bool,
        *,
        tools: Any = None,
        documents: Any = None,
        continue_final_message: bool | str = False,
        variables: Mapping[str, Any] | None = None,
    ) -> tuple[str, list[int]]:
        """The text, and the byte offsets in its UTF-8 form that no control token may cover, ascending.

        tools: JSON schemas and functions. continue_final_message: end the text inside the last message, behind its content or
        the field of this name. variables: what else the template reads; also text from outside.
        Raises TypeError or ValueError for what is not plain data; TemplateError when the template refuses it, fails, or goes over
        its budget.
        """
        schemas = None if tools is None else plain(tool_schemas(tools), "tools", 1)
        conversation = plain_messages(messages)
        given = plain(variables or {}, "variables", 1) | {
            "messages": conversation,
            "tools": schemas,
            "documents": None if documents is None else plain_documents(documents),
            "add_generation_prompt": add_generation_prompt,
        }
        now = datetime.now()
        for message in self._unread_parts(given, now):
            message["content"] = "\n".join(part["text"] for part in message["content"])
        given["messages"] = conversation = in_own_words(self.source, conversation, schemas or [])
        known = list(strings(given))
        end = ""
        if continue_final_message is not False:
            end = nonce_for(self.source, *known)
            field = "content" if continue_final_message is True else check_text("continue_final_message", continue_final_message)
            final = open_end(conversation[-1], field, end)

        def rendered(given: dict[str, Any]) -> str:
            text = self._rendered(given, now)
            return cut_at(text, end) if end else text

        try:
            text = rendered(given)
        except TemplateError as error:
            for i, message in enumerate(conversation):
                if not isinstance(content := message.get("content", ""), str) and not are_text_parts(message, i):
                    hint = f"messages[{i}]['content'] is {shown(content)}, and most templates expect a str or a list of parts"
                    raise TemplateError(f"{error}; {hint}") from error
            raise
        if end and final.strip() not in text:
            raise TemplateError("the chat template rewrites the final message, so it cannot be continued")
        nonce = nonce_for(self.source, text, end, *known)
        control = self._control

        def marked_by(rule: Callable[[str, str, bool], str]) -> dict[str, Any]:
            return {name: control.mark(value, rule, nonce) for name, value in given.items()}

        marked = marked_by(control.every_start)
        if marked == given:
            return text, []
        guarded = rendered(marked)
        if guarded.replace(nonce, "") != text:
            # The template reads what was marked, say to split at "</think>". Mark whole control tokens only, and make sure that
            # the control tokens of the text are still those, and only those, that the template itself wrote.
            scaffold = control.found_in(guarded)
            guarded = rendered(marked_by(control.whole_tokens))
            if guarded.replace(nonce, "") != text or control.found_in(guarded) != scaffold:
                raise TemplateError("the chat template rewrites control tokens in what it is given, so they cannot be kept text")
        return text, guard_offsets(guarded, nonce)

    def _rendered(self, given: dict[str, Any], now: datetime) -> str:
        with failures_named():
            size = sum(map(len, strings(given)))
            text = self._environment.render(self._template, self._variables | given, size, now)
            text.encode()  # a template can write a lone surrogate
        return text

    def _unread_parts(self, given: dict[str, Any], now: datetime) -> list[dict[str, Any]]:
        """The messages whose text is in parts, and in whose place the template does not write the text of every part: templates
        that know a str alone fail over a list, leave it out, or write it as Python or JSON would."""
        messages = given["messages"]
        in_parts = [i for i, message in enumerate(messages) if are_text_parts(message, i)]
        if not in_parts:
            return []
        sign, trial, signs = nonce_for(self.source, *strings(given)), list(messages), dict[int, list[str]]()
        for i in in_parts:
            signs[i] = [f"{sign}{i}.{j};" for j, _ in enumerate(messages[i]["content"])]
            parts = [part | {"text": text} for part, text in zip(messages[i]["content"], signs[i], strict=True)]
            trial[i] = messages[i] | {"content": parts}
        try:
            read = set(re.findall(rf'(?<!"){sign}[\d.]+;', self._rendered(given | {"messages": trial}, now)))
        except TemplateError:
            read = set()
        return [messages[i] for i in in_parts if not signs[i] or not read.issuperset(signs[i])]


@contextmanager
def failures_named() -> Iterator[None]:
    """What a template raises, by itself or by running into a limit of Python, as a TemplateError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # a template is a stranger's program: it can cause any exception
        message = str(error) or type(error).__name__
        raise TemplateError(f"the chat template failed: {message[:240]!r}") from error


def open_end(message: dict[str, Any], field: str, end: str) -> str:
    """Mark the end of the text to continue, in each copy that the template may read; returns the text without the mark.

    Behind the mark stands a space: a template that trims the message takes it away, and cut_at() then trims as well.
    """
    text = message.get(field)
    copies = [name for name in REASONING if message.get(name) == text] if field in REASONING else [field]
    if isinstance(text, str):
        message.update((name, f"{text}{end} ") for name in copies)
        return text
    parts = [part for part in text if isinstance(part, dict) and "text" in part] if isinstance(text, list) else []
    if not parts:
        raise ValueError(f"continue_final_message: the final message has no text under {field!r}")
    last = parts[-1]["text"]
    parts[-1]["text"] = f"{last}{end} "
    return last


def cut_at(text: str, end: str) -> str:
    """What stands before the end mark, without trailing space if the template has trimmed the message."""
    head, found, rest = text.rpartition(end)
    if not found:
        raise TemplateError("the chat template leaves the end of the final message out, so it cannot be continued")
    return head if rest.startswith(" ") else head.rstrip()


def guard_offsets(text: str, nonce: str) -> list[int]:
    """Where the nonces stood, as byte offsets in the UTF-8 text without them."""
    pieces = text.split(nonce)
    total = sum(len(piece.encode()) for piece in pieces)
    offsets: list[int] = []
    offset = 0
    for piece in pieces[:-1]:
        offset += len(piece.encode())
        if 0 < offset < total and (not offsets or offsets[-1] < offset):
            offsets.append(offset)
    return offsets


def nonce_for(*texts: str) -> str:
    """A character of private use that occurs in none of the texts, and that no template can foresee."""
    used = set().union(*texts)
    low, high = PRIVATE_USE
    while (nonce := chr(low + secrets.randbelow(high - low + 1))) in used:
        pass
    return nonce
