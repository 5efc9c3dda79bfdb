# SPDX-License-Identifier: Apache-2.0
"""When a prompt does not fit the context: an error, or a shorter prompt where the caller has asked for that. Never in silence.

"oldest" and "middle" shorten a prompt until max_tokens fit behind it, of which at most half of the context is kept free. What
is left out is counted in Usage.cut_tokens. The tokens are chosen before anything runs; keys and values are never shifted.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from slm.errors import ContextLengthError, TemplateError
from slm.options import GenerateOptions

SYSTEM_ROLES = ("system", "developer")


class Fitted(NamedTuple):
    """Token ids to run, and how many were left out."""

    ids: list[int]
    n_cut: int


def check_fit(name: str, n_prompt: int, n_ctx: int, max_new: int) -> None:
    """Raise ContextLengthError unless the context has room for the prompt and, where any are asked for, one more token."""
    if n_prompt + min(max_new, 1) > n_ctx:
        room = ", which leaves no room for an answer" if n_prompt <= n_ctx else ""
        message = f"{name} has {n_prompt} tokens and the context {n_ctx} positions{room}"
        raise ContextLengthError(message, n_prompt=n_prompt, n_ctx=n_ctx, max_new=max_new)


def prompt_room(n_ctx: int, max_new: int) -> int:
    """How many tokens of a prompt "oldest" and "middle" keep, at most."""
    return n_ctx - min(max_new, max(1, n_ctx // 2))


def fit_prompt(name: str, ids: list[int], n_ctx: int, options: GenerateOptions, bos: int | None) -> Fitted:
    """Raises ContextLengthError as overflow="error" asks, and where no prompt at all would fit."""
    room = prompt_room(n_ctx, options.max_tokens)
    if options.overflow == "error" or room < 1:
        check_fit(name, len(ids), n_ctx, options.max_tokens)
        return Fitted(ids, 0)
    kept = cut(ids, room, options.overflow, bos)
    return Fitted(kept, len(ids) - len(kept))


def fit_chat(
    render: Callable[[Sequence[Mapping[str, Any]]], list[int]],
    messages: Sequence[Mapping[str, Any]],
    n_ctx: int,
    options: GenerateOptions,
    bos: int | None,
) -> Fitted:
    """Token ids of a conversation. Whole turns are left out first, each from a user's message to the next one.

    "oldest" leaves out the oldest behind the system message, "middle" the oldest behind the first turn; both keep the last. Where
    that is not enough, tokens are cut as from any prompt.
    """
    ids = render(messages)
    if not ids:
        raise TemplateError("the chat template writes nothing for this conversation")
    room = prompt_room(n_ctx, options.max_tokens)
    if options.overflow == "error" or len(ids) <= room:
        return fit_prompt("the conversation", ids, n_ctx, options, bos)
    system = next((i for i, message in enumerate(messages) if message["role"] not in SYSTEM_ROLES), len(messages))
    starts = [i for i, message in enumerate(messages) if i > system and message["role"] == "user"]
    head = system
    if options.overflow == "middle":
        head, starts = (starts[0], starts[1:]) if starts else (len(messages), [])

    def without(start: int) -> list[int]:
        return render([*messages[:head], *messages[start:]])

    fits = bisect_left(starts, True, key=lambda start: len(without(start)) <= room)
    shorter = without(starts[min(fits, len(starts) - 1)]) if starts else ids
    fitted = fit_prompt("the conversation", shorter, n_ctx, options, bos)
    return Fitted(fitted.ids, len(ids) - len(fitted.ids))


def cut(ids: list[int], room: int, overflow: str, bos: int | None) -> list[int]:
    """At most `room` ids: the newest behind the bos token, or the first and last halves."""
    if len(ids) <= room:
        return ids
    if overflow == "middle":
        head = room // 2
    else:
        head = int(ids[0] == bos and room > 1)
    return ids[:head] + ids[len(ids) - (room - head) :]
