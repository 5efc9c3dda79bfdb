# SPDX-License-Identifier: Apache-2.0
"""What the text of a generation must match: values for constrain=."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from slm.errors import LimitError, UnsupportedError
from slm.options import check_text, refuse_type, shown

if TYPE_CHECKING:
    from slm import _core
    from slm.expressions import Expressions
    from slm.tokenizer import Tokenizer


class Constraint(ABC):
    """What the text of a generation must match, whole. Made by slm.choice(), slm.regex(), slm.json() and slm.grammar(), for any
    model.

    With constrain= only tokens are drawn that keep to it, and an end token only where the text matches. Where the text can go on
    in one way only, its tokens are not computed: they are the longest that the vocabulary has. A text that ends by max_tokens or
    at the end of the context ("length"), or by stop=, may be unfinished.
    """

    @abstractmethod
    def matches(self, text: str) -> bool:
        """Does all of a text match? In linear time, but under a grammar that is ambiguous."""

    @abstractmethod
    def _limits(self, tokenizer: "Tokenizer") -> "_core.Limits":
        """What limits the texts of a call of the core to this."""


class Pattern(Constraint):
    """A regular language, compiled."""

    def __init__(self, name: str, automaton: "_core.Automaton") -> None:
        self._name = name
        self._automaton = automaton
        self._of_tokenizers: WeakKeyDictionary[Tokenizer, _core.Constraint] = WeakKeyDictionary()

    def matches(self, text: str) -> bool:
        return self._automaton.matches(check_text("text", text).encode())

    def __repr__(self) -> str:
        return f"{self._name}, {self._automaton.n_states} states"

    def _limits(self, tokenizer: "Tokenizer") -> "_core.Limits":
        return {"constraint": self._over(tokenizer)}

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
    return Pattern(f"choice({shown(checked)})", expressions.compile(number))


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
    return Pattern(f"regex({shown(pattern)})", expressions.compile(number))


def json(schema: Any) -> Constraint:
    """JSON that a schema describes.

    schema: a JSON Schema as a mapping; a dataclass, a TypedDict or another type hint such as list[int]; a pydantic model or any
        object with a method model_json_schema() or __json_schema__().
    Of JSON Schema: type, enum, const, anyOf, $ref within the schema without recursion; properties, required,
    additionalProperties; items, prefixItems, minItems, maxItems; minLength, maxLength, pattern; minimum, maximum,
    exclusiveMinimum, exclusiveMaximum; nullable. Annotations such as title, description and default change nothing.
    With the extra slm-cpu[json] also allOf, oneOf whose branches exclude each other, format, multipleOf, patternProperties,
    minProperties and maxProperties, recursion, and what says nothing of a type: such a schema is left to llguidance, whole. Any
    other keyword raises UnsupportedError that names it and where it is.

    What is written is a part of what the schema allows, so that a small model keeps to it: properties in the schema's order, and
    others only if additionalProperties is a schema; one space or none behind ":" and ",", and no other white space; integers
    of up to 18 digits; numbers of up to 16 digits, 16 decimals and an exponent below 100, or with bounds 6 decimals. llguidance
    keeps the order and the white space, and writes other properties unless additionalProperties is False, perhaps one twice;
    numbers without bounds of any length. There one of the properties can also come under a name written with escapes, such as
    "\\u0061" for "a", as another property and with a value that the schema does not allow for "a".
    """
    try:
        return constraint_of(schema)
    except RecursionError:
        raise LimitError("JSON schema: nested too deep, or in itself") from None


def constraint_of(schema: Any) -> Constraint:
    from slm.json_schema import read_schema, schema_of, unknown_to_grammars, without_nullable

    name, expressions, schema = f"json({shown(schema)})", new_expressions(), schema_of(schema)
    try:
        return Pattern(name, expressions.compile(read_schema(schema, expressions)))
    except (UnsupportedError, LimitError) as error:
        refused = error
    unknown = next(unknown_to_grammars(schema, "#"), None)
    if unknown is not None:
        where, keyword = unknown
        raise UnsupportedError(f"JSON schema, {where}: the keyword {keyword!r} is not supported; see slm.json for those that are")
    try:
        from slm import grammars
    except ImportError:
        raise type(refused)(f'{refused}; the extra slm-cpu[json] has llguidance for it: pip install "slm-cpu[json]"') from None
    try:
        return grammars.Grammar(name, grammars.read_schema(without_nullable(schema, "#")))
    except ValueError as error:
        reason = str(error).partition(" Enable 'coerce_one_of'")[0]  # an option that is not ours
        raise type(refused)(f"{refused}; nor by llguidance: {reason}") from None


def grammar(text: str) -> Constraint:
    """A context-free grammar, in the Lark-like syntax of llguidance or in llama.cpp's GBNF. Needs the extra slm-cpu[json].

    slm.grammar('start: sum\nsum: NUMBER (("+" | "-") NUMBER)*\nNUMBER: /[0-9]+/')
    slm.grammar('root ::= number ([+-] number)*\nnumber ::= [0-9]+')

    The whole text matches the rule start, or root. A grammar never makes tokens that steer the model: it names texts. ValueError:
    what llguidance finds wrong, and where; LimitError, also while a text is written: the grammar is too large, or its parser;
    UnsupportedError without the extra.
    Where many alternatives of a rule begin alike and with the rule itself, each byte takes llguidance time that grows with the
    cube of their number, a second at 800: write once what they begin with, s: "(" s (")" | "]").
    """
    checked = check_text("text", text)
    try:
        from slm import grammars
    except ImportError as error:
        raise UnsupportedError(str(error)) from None
    return grammars.Grammar(f"grammar({shown(checked)})", grammars.read_grammar(checked))


def new_expressions() -> "Expressions":
    from slm.expressions import Expressions  # what compiles constraints is imported with the first one

    return Expressions()


def check_constraint(value: Any) -> Constraint | None:
    if value is None or isinstance(value, Constraint):
        return value
    refuse_type("constrain", "slm.choice(...), slm.regex(...), slm.json(...), slm.grammar(...) or None", value)
