# SPDX-License-Identifier: Apache-2.0
"""Options of generation: flat keywords for people, one frozen record behind them, and the checks of every argument.

A check takes the parameter's name first, so that each message says which parameter, what it was, and what it may be.
"""

import math
import operator
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

if TYPE_CHECKING:
    from slm._core import Processor
    from slm.activations import Edit
    from slm.constraints import Constraint

MAX_INT32 = 2**31 - 1
MAX_SEED = 2**64 - 1
MAX_TEMPERATURE = 100.0
MAX_PENALTY = 100.0
MAX_BIAS = 1e9
MAX_SCALE = 1e9
MAX_SAMPLES = 1024
MAX_LOGPROBS = 1024
OVERFLOW = ("error", "oldest", "middle")
DRAFTS = ("lookup",)

ONE_TEXT = ("stream", "send")  # functions that give no more than one

# What people type who come from other libraries.
ELSEWHERE = {
    "do_sample": "temperature",
    "eos_token_id": "stop",
    "max_length": "max_tokens",
    "max_new_tokens": "max_tokens",
    "last_n_tokens": "penalty_window",
    "n_ctx": "context",
    "logits_processor": "processors",
    "n_predict": "max_tokens",
    "n_threads": "threads",
    "num_ctx": "context",
    "num_predict": "max_tokens",
    "num_return_sequences": "n",
    "num_thread": "threads",
    "penalty_last_n": "penalty_window",
    "repeat_last_n": "penalty_window",
    "repeat_penalty": "repetition_penalty",
    "repetition_context_size": "penalty_window",
    "response_format": "constrain",
    "sequence_bias": "logit_bias",
    "stop_strings": "stop",
    "suppress_tokens": "logit_bias",
    "temp": "temperature",
    "top_logprobs": "logprobs",
}
# What is no option, and what there is for it.
INSTEAD = {
    "chat_template": "chat() and session() take it",
    "documents": "chat() and session() take them",
    "progress": "generate() takes it, of a list of prompts",
    "stream": "stream() of a model or a session gives pieces of the text as they are made",
    "streamer": "stream() of a model or a session gives pieces of the text as they are made",
    "system": "session() takes it, and messages of chat() may have the role 'system'",
    "tool_choice": "a model without tools calls none, and constrain= says what an answer must be",
    "tools": "chat() and session() take them",
}
# What cuts the distribution, and up to where it cuts nothing or, for top_k=1, all but what greedy takes.
FILTERS = {"top_k": lambda k: k > 1, "top_p": lambda p: p < 1, "min_p": bool, "typical_p": lambda p: p < 1}


def refuse_keywords(function: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for the first unknown keyword, with the nearest known name."""
    known = list(known)
    for name in unknown:
        if name in INSTEAD:
            raise TypeError(f"{function}() has no option {name!r}: {INSTEAD[name]}")
        nearest = ELSEWHERE.get(name)
        if nearest not in known:
            from difflib import get_close_matches

            nearest = next(iter(get_close_matches(name, known, n=1)), None)
        hint = f"; did you mean {nearest!r}?" if nearest else f"; it has {', '.join(known)}"
        raise TypeError(f"{function}() has no option {name!r}{hint}")


def shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out an integer of more than 4300 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 64 else text[:61] + "..."


def check_int(name: str, value: Any, low: int, high: int) -> int:
    """value as an int; anything with __index__ but bool is accepted, NumPy's integers among it."""
    expected = f"an integer from {low} to {high}"
    if isinstance(value, bool):
        raise TypeError(f"{name} must be {expected}, not bool {value}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__} {shown(value)}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be {expected}, not {shown(number)}")
    return number


def check_number(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """value as a float in [low, high], or in (low, high] with open_low."""
    expected = f"a number {'above' if open_low else 'from'} {low:g} {'and at most' if open_low else 'to'} {high:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__} {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high or (open_low and number == low):  # NaN fails the first comparison
        raise ValueError(f"{name} must be {expected}, not {shown(value)}")
    return number


def check_bool(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {type(value).__name__} {shown(value)}")


def check_text(name: str, value: Any) -> str:
    """value as a str that UTF-8 can write."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__} {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds a lone surrogate at index {error.start}, which no text encoding can write") from None
    return value


def check_path(name: str, path: Any) -> None:
    if not isinstance(path, str | os.PathLike):
        refuse_type(name, "a path", path)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    expected = ", ".join(map(repr, choices))
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {expected}, not {type(value).__name__} {shown(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {expected}, not {shown(value)}")
    return str(value)


def check_stop(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        stops: tuple[str, ...] = (check_text("stop", value),)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        stops = tuple(check_text(f"stop[{i}]", s) for i, s in enumerate(value))
    else:
        raise TypeError(f"stop must be a str or a sequence of str, not {type(value).__name__} {shown(value)}")
    for i, stop in enumerate(stops):
        if not stop:
            raise ValueError(f"stop[{i}] is empty; a stop string has at least one character")
    return stops


def check_bias(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise TypeError(f"logit_bias must be a mapping of token ids to numbers, not {type(value).__name__} {shown(value)}")
    biases = {}
    for key, bias in value.items():
        id = check_int("a key of logit_bias", key, 0, MAX_INT32)
        banned = isinstance(bias, Real) and bias == -math.inf
        biases[id] = -math.inf if banned else check_number(f"logit_bias[{id}]", bias, -MAX_BIAS, MAX_BIAS)
    return biases


def check_processors(value: Any) -> tuple[Any, ...]:
    if callable(value):
        return (value,)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"processors must be functions of (tokens, logits), not {type(value).__name__} {shown(value)}")
    for i, processor in enumerate(value):
        if not callable(processor):
            raise TypeError(
                f"processors[{i}] must be a function of (tokens, logits), not {type(processor).__name__} {shown(processor)}"
            )
    return tuple(value)


def check_ids(name: str, ids: Iterable[Any], vocab_size: int) -> list[int]:
    """Token ids as a list of int, each of them in the vocabulary."""
    checked = []
    for position, id in enumerate(ids):
        try:
            number = operator.index(id)
        except TypeError:
            number = None
        if number is None or isinstance(id, bool):
            raise TypeError(f"{name}[{position}] must be a token id, not {type(id).__name__} {shown(id)}")
        if not 0 <= number < vocab_size:
            raise ValueError(f"{name}[{position}] must be a token id from 0 to {vocab_size - 1}, not {shown(number)}")
        checked.append(number)
    return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """How tokens are chosen and when to stop; the keywords of generate, stream, chat and Session.send.

    max_tokens:  most tokens to generate, 0 to 2147483647
    ignore_eos:  go on behind the model's end tokens
    temperature: 0 is greedy, ties to the lowest id; else logits are divided by it, up to 100. top_k, top_p, min_p and typical_p
                 are for sampling: a call that gives one of them gives a temperature too, which may be 0, else it is a ValueError
    top_k:       sample among the k most likely tokens; 0 is off
    top_p:       sample among the most likely tokens that together have this probability, in (0, 1]; 1 is off
    min_p:       sample among tokens that are at least this times as likely as the likeliest, in [0, 1]; 0 is off
    typical_p:   sample among tokens whose information is nearest to what is expected, the entropy, and which together have this
                 probability, in (0, 1]; 1 is off
    repetition_penalty: divides the logits of tokens that are among the last penalty_window of prompt and answer, and multiplies
                 them where they are negative; above 0, up to 100; 1 is off
    presence_penalty, frequency_penalty: taken from the logits of those tokens, once, and once more for each time that they are
                 there; -100 to 100; 0 is off
    penalty_window: how many of the last tokens these three look at, 1 to 2147483647
    no_repeat_ngram: no so many tokens stand together twice in prompt and answer; 0 is off
    logit_bias:  a mapping of token ids to what is added to their logits, -1e9 to 1e9; -inf bans a token
    seed:        0 to 2**64 - 1; None draws one. The Output records it: the same seed gives the same text again
    n:           how many answers to sample, 1 to 1024; above 1 generate() and chat() give a list of them for each prompt, and a
                 temperature is needed. The i-th is the same for any n. The prompt runs once
    logprobs:    above 0, up to 1024: Output.logprobs has the log-probability of each token and those of so many likeliest ones in
                 its place, by the model's own distribution, before all that this record does to it, but for
                 constrain=: then over the tokens that may come there, 0 where only one may; 0 is off
    echo:        text, tokens and logprobs of the Output begin with those of the prompt, the text without its control tokens. The
                 prompt's log-probabilities take a pass of their own. Not in a session
    processors:  a function or several of (tokens, logits), called for each token that is drawn: an int32 array of prompt and
                 answer so far, and a float32 array [vocab_size] to be changed in place; -inf bans a token
    stop:        a string or several, none empty; the text ends before the first one that appears
    constrain:   slm.choice(...), slm.regex(...), slm.json(...) or slm.grammar(...): what the text must match, whole. Tokens that
                 can only come so are not drawn: no ban, penalty or processor keeps them out
    draft:       "lookup" guesses several tokens at a time, from what followed the same tokens earlier in the text, and checks
                 them in one step: faster where text repeats itself, and the very same tokens everywhere. The Output's usage
                 says how many were guessed and how many were right. Not with constrain=
    edit:        a mapping of sites to functions f(array): what they make of activations is what the model goes on with. Sites and
                 functions: Model.forward. Here f gets the rows of one text that run in one step: the prompt in pieces, then a
                 token at a time, or with draft= several of which some may be dropped; of prompts that begin alike the common part
                 once. So a row should change by what it is and its position, not by what stands beside it or ran before: the
                 outputs are then those of each prompt alone. In a session it is of this turn: the cache keeps what was made of
                 its tokens, and turns before it stay as they were
    overflow:    when the prompt does not fit the context: "error" raises ContextLengthError; "oldest" leaves the oldest turns or
                 tokens out, but the system message or bos token, "middle" those in the middle; both until max_tokens, but at
                 most half of the context, fit behind it. The Output's usage.cut_tokens says how many tokens were left out

    They work in the order of Transformers: logit_bias, repetition_penalty, presence_penalty and frequency_penalty,
    no_repeat_ngram, processors; then, unless greedy, temperature, top_k, top_p, min_p, typical_p, each on what the one before has
    left.
    Transformers' repetition_penalty looks at all tokens: penalty_window=2**31 - 1. ValueError where all tokens are banned.

    Raises TypeError or ValueError that name the parameter, its value and its range.
    """

    max_tokens: int = 256
    ignore_eos: bool = False
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 64
    no_repeat_ngram: int = 0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    n: int = 1
    logprobs: int = 0
    echo: bool = False
    processors: "Processor | Sequence[Processor]" = ()
    stop: str | Sequence[str] = ()
    constrain: "Constraint | None" = None
    draft: Literal["lookup"] | None = None
    edit: "Mapping[str, Edit] | None" = None
    overflow: Literal["error", "oldest", "middle"] = "error"

    def __post_init__(self) -> None:
        from slm.activations import check_edit  # which need the checks above
        from slm.constraints import check_constraint

        seed = secrets.randbits(32) if self.seed is None else check_int("seed", self.seed, 0, MAX_SEED)
        checked = {
            "max_tokens": check_int("max_tokens", self.max_tokens, 0, MAX_INT32),
            "ignore_eos": check_bool("ignore_eos", self.ignore_eos),
            "temperature": check_number("temperature", self.temperature, 0.0, MAX_TEMPERATURE),
            "top_k": check_int("top_k", self.top_k, 0, MAX_INT32),
            "top_p": check_number("top_p", self.top_p, 0.0, 1.0, open_low=True),
            "min_p": check_number("min_p", self.min_p, 0.0, 1.0),
            "typical_p": check_number("typical_p", self.typical_p, 0.0, 1.0, open_low=True),
            "repetition_penalty": check_number("repetition_penalty", self.repetition_penalty, 0.0, MAX_PENALTY, open_low=True),
            "presence_penalty": check_number("presence_penalty", self.presence_penalty, -MAX_PENALTY, MAX_PENALTY),
            "frequency_penalty": check_number("frequency_penalty", self.frequency_penalty, -MAX_PENALTY, MAX_PENALTY),
            "penalty_window": check_int("penalty_window", self.penalty_window, 1, MAX_INT32),
            "no_repeat_ngram": check_int("no_repeat_ngram", self.no_repeat_ngram, 0, MAX_INT32),
            "logit_bias": None if self.logit_bias is None else check_bias(self.logit_bias),
            "seed": seed,
            "n": check_int("n", self.n, 1, MAX_SAMPLES),
            "logprobs": check_int("logprobs", self.logprobs, 0, MAX_LOGPROBS),
            "echo": check_bool("echo", self.echo),
            "processors": check_processors(self.processors),
            "stop": check_stop(self.stop),
            "constrain": check_constraint(self.constrain),
            "draft": None if self.draft is None else check_choice("draft", self.draft, DRAFTS),
            "edit": check_edit(self.edit),
            "overflow": check_choice("overflow", self.overflow, OVERFLOW),
        }
        if checked["constrain"] is not None and checked["draft"] is not None:
            raise ValueError("draft guesses tokens of any text; it does not go with constrain")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"n is {self.n}, and with temperature 0 all answers would be the same: give a temperature")

    @classmethod
    def of(cls, function: str, keywords: Mapping[str, Any]) -> Self:
        """The options of a call of `function`; unknown keywords raise TypeError."""
        known = [field.name for field in fields(cls)]
        refuse_keywords(function, [name for name in keywords if name not in known], known)
        options = cls(**keywords)
        if "temperature" not in keywords:
            cuts = next((name for name, cuts in FILTERS.items() if cuts(getattr(options, name))), None)
            if cuts is not None:
                raise ValueError(f"{cuts} is {getattr(options, cuts):g}, and without a temperature nothing is sampled: give one")
        if options.n > 1 and function in ONE_TEXT:
            raise ValueError(f"n must be 1 for {function}(), which gives one answer, not {options.n}")
        return options


def refuse_type(name: str, expected: str, value: object) -> NoReturn:
    raise TypeError(f"{name} must be {expected}, not {type(value).__name__} {shown(value)}")
