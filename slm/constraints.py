# SPDX-License-Identifier: Apache-2.0
"""What the text of a generation must match: values for constrain=."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from slm.options import check_text, refuse_type, shown

if TYPE_CHECKING:
    from slm import _core
    from slm.expressions import Expressions
    from slm.tokenizer import Tokenizer


class Constraint:
    """What the text of a generation must match, whole. Made by slm.choice(), slm.regex() and slm.json(), for any model.

    With constrain= only tokens are drawn that keep to it, and an end token only where the text matches. Where the text can go on
    in one way only, its tokens are not computed: they are the longest that the vocabulary has. A text that ends by max_tokens or
    at the end of the context ("length") may be unfinished.
    """

    def __init__(self, name: str, automaton: "_core.Automaton") -> None:
        self._name = name
        self._automaton = automaton
        self._of_tokenizers: WeakKeyDictionary[Tokenizer, _core.Constraint] = WeakKeyDictionary()

    def matches(self, text: str) -> bool:
        """Does all of a text match? In linear time."""
        return self._automaton.matches(check_text("text", text).encode())

    def __repr__(self) -> str:
        return f"{self._name}, {self._automaton.n_states} states"

    def _over(self, tokenizer: "Tokenizer") -> "_core.Constraint":
        """The constraint over a vocabulary, which remembers what may follow where."""
        found = self._of_tokenizers.get(tokenizer)
        if found is None:
            from slm import _core

            found = self._of_tokenizers.setdefault(tokenizer, _core.Constraint(self._automaton, tokenizer._core))
        return found


def choice(texts: Iterable[str]) -> Constraint:
    """One of these texts."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        refuse_type("texts", "a sequence of str", texts)
    checked = [check_text(f"texts[{i}]", text) for i, text in enumerate(texts)]
    if not checked:
        raise ValueError("texts is empty; a choice has at least one text")
    expressions = new_expressions()
    number = expressions.alternation([expressions.text(text) for text in checked])
    return Constraint(f"choice({shown(checked)})", expressions.compile(number))


def regex(pattern: str) -> Constraint:
    r"""A regular expression that the whole text matches, in the syntax of Python's re module.

    Literals, ., classes, alternatives, groups (...) and (?:...), the quantifiers * + ? {m} {m,} {,n} {m,n}. A character is one of
    Unicode; \d, \w and \s are those of re.ASCII, and \D, \W and \S all others. ^ may begin a pattern and $ end it. All else,
    such as back references, lookaround, flags and lazy quantifiers, raises UnsupportedError with its position. LimitError: more
    than 131,072 states.
    """
    from slm.regex_syntax import read_regex

    expressions = new_expressions()
    number = read_regex(check_text("pattern", pattern), expressions, expressions.character)
    return Constraint(f"regex({shown(pattern)})", expressions.compile(number))


def json(schema: Any) -> Constraint:
    """JSON that a schema describes.

    schema: a JSON Schema as a mapping; a dataclass, a TypedDict or another type hint such as list[int]; a pydantic model or any
        object with a method model_json_schema() or __json_schema__().
    Of JSON Schema: type, enum, const, anyOf, $ref within the schema without recursion; properties, required,
    additionalProperties; items, prefixItems, minItems, maxItems; minLength, maxLength, pattern; minimum, maximum,
    exclusiveMinimum, exclusiveMaximum; nullable. Annotations such as title, description and default change nothing. Any other
    keyword raises UnsupportedError that names it and where it is.

    What is written is a part of what the schema allows, so that a small model keeps to it: properties in the schema's order, and
    others only if additionalProperties is a schema; one space or none behind ":" and ",", and no other white space; integers
    of up to 18 digits; numbers of up to 16 digits, 16 decimals and an exponent below 100, or with bounds 6 decimals.
    """
    from slm.json_schema import read_schema

    expressions = new_expressions()
    return Constraint(f"json({shown(schema)})", expressions.compile(read_schema(schema, expressions)))


def new_expressions() -> "Expressions":
    from slm.expressions import Expressions  # what compiles constraints is imported with the first one

    return Expressions()


def check_constraint(value: Any) -> Constraint | None:
    if value is None or isinstance(value, Constraint):
        return value
    refuse_type("constrain", "slm.choice(...), slm.regex(...), slm.json(...) or None", value)
