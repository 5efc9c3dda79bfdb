# SPDX-License-Identifier: Apache-2.0
"""Context-free grammars, and JSON Schemas beyond slm.json_schema: by llguidance, which the extra slm-cpu[json] installs."""

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

try:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
    from llguidance.gbnf_to_lark import gbnf_to_lark
except ModuleNotFoundError as error:
    if error.name != "llguidance":
        raise
    raise ImportError('slm.grammar needs llguidance: pip install "slm-cpu[json]"') from None

from slm.constraints import Constraint
from slm.errors import LimitError, UnsupportedError
from slm.options import check_text
from slm.vocabulary import CONTROL, UNKNOWN, UNUSED

if TYPE_CHECKING:
    from slm import _core
    from slm.tokenizer import Tokenizer

MOST_MATCHERS = 32  # SLM_BATCH_MOST: so many texts run at once
MOST_RULES = 500  # and references of a schema: llguidance follows each by a call within a call
MOST_CHARACTERS = 1 << 16
FED = 64  # bytes of a text between two looks for a signal
MOST_ALIKE = 4  # tokens with the same bytes; where there are more, what must come is drawn


def read_grammar(text: str) -> str:
    """Lark's rules are `name: ...`, those of GBNF `name ::= ...`."""
    if len(text) > MOST_CHARACTERS:
        raise LimitError(f"grammar: {len(text)} characters; at most {MOST_CHARACTERS} are accepted")
    attribute = re.search(r"(?m)^[ \t]*[?!]?[\w.-]+[ \t]*\[[^]\n]*\b(temperature|max_tokens)\s*=", text)
    if attribute:  # neither says which texts match
        raise UnsupportedError(f"grammar: a rule's {attribute[1]} is not supported; {attribute[1]}= is an option of the call")
    if re.search(r"(?m)^\s*[\w-]+\s*::=", text):
        try:
            text = gbnf_to_lark(text)
        except Exception as error:  # of several classes, a bare Exception among them
            raise ValueError(f"grammar: {error}") from None
    n_rules = len(re.findall(r"(?m)^[ \t]*[?!]?[\w-].*?:", text))
    if n_rules > MOST_RULES:
        raise LimitError(f"grammar: {n_rules} rules; at most {MOST_RULES} are accepted")
    return grammar_of(lark_grammar=text)


def read_schema(schema: Mapping[str, Any]) -> str:
    """The same white space as that of slm.json_schema; what llguidance knows and does not do is an error."""
    options = {"whitespace_flexible": False, "item_separator": ",[ ]?", "key_separator": ":[ ]?", "lenient": False}
    return grammar_of(json_schema={**schema, "x-guidance": options})


def grammar_of(**text: Any) -> str:
    """As llguidance takes it. Forcing would allow the tokens of its own choice alone, where a text can go on in one way only."""
    start = '%llguidance {"no_forcing": true}\nstart: @text'
    whole = json.dumps({"grammars": [{"lark_grammar": start}, {"name": "text", **text}]}, allow_nan=False)
    n_references = whole.count("$ref")
    if n_references > MOST_RULES:
        raise LimitError(f"grammar: {n_references} references; at most {MOST_RULES} are accepted")
    return whole


def matcher_over(tokens: LLTokenizer, grammar: str) -> LLMatcher:
    return LLMatcher(tokens, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))


@cache
def all_bytes() -> LLTokenizer:
    """A vocabulary that has a token for each byte of UTF-8."""
    return LLTokenizer(TokenizerWrapper(AsWrapped([bytes([byte]) for byte in range(0xFF)])))


class Grammar(Constraint):
    """A grammar in the form of llguidance, which parses a text while it is written."""

    def __init__(self, name: str, grammar: str) -> None:
        self._name, self._grammar = name, grammar
        self._start = matcher_over(all_bytes(), grammar)
        check(self._start)
        self._over: WeakKeyDictionary[Tokenizer, LLMatcher] = WeakKeyDictionary()

    def matches(self, text: str) -> bool:
        data = list(check_text("text", text).encode())
        matcher = self._start.deep_copy()
        pieces = (data[at : at + FED] for at in range(0, len(data), FED))
        matches = all(matcher.try_consume_tokens(piece) == len(piece) for piece in pieces) and matcher.is_accepting()
        if matcher.is_error() and too_complex(matcher):
            check(matcher)
        return matches

    def __repr__(self) -> str:
        return self._name

    def _limits(self, tokenizer: "Tokenizer") -> "_core.Limits":
        vocabulary = vocabulary_of(tokenizer)
        start = self._over.get(tokenizer)
        if start is None:
            start = self._over.setdefault(tokenizer, matcher_over(vocabulary.tokens, self._grammar))
            check(start)
        return {"guide": Guide(start, vocabulary)}


def too_complex(matcher: LLMatcher) -> bool:
    """llguidance calls the limit on the rows of its parser an internal error."""
    return matcher.stop_reason() in ("ParserTooComplex", "LexerTooComplex") or "max is" in matcher.get_error()


def check(matcher: LLMatcher) -> None:
    if not matcher.is_error():
        return
    message = matcher.get_error().partition("\n<backtrace>")[0].removesuffix("<non-verbose/>").rstrip()
    if message == "NoExtensionBias":
        message = "no text that begins as this one matches"
    raise (LimitError if too_complex(matcher) else ValueError)(f"grammar: {message}")


class Guide:
    """What may come next in the texts of one call: a slm._core.Guide."""

    def __init__(self, start: LLMatcher, vocabulary: "Vocabulary") -> None:
        self._start, self._vocabulary = start, vocabulary
        # Of each text how many tokens it had and where it stands, the last one asked for behind the others: those in front have
        # ended.
        self._texts: OrderedDict[int, tuple[int, LLMatcher]] = OrderedDict()

    def __call__(self, text: int, tokens: NDArray[np.int32]) -> bytes:
        n_taken, matcher = self._texts.pop(text) if text in self._texts else (0, self._start.deep_copy())
        matcher.consume_tokens(tokens[n_taken:].tolist())
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8) & self._vocabulary.text
        forced = matcher.compute_ff_bytes()
        check(matcher)
        self._texts[text] = len(tokens), matcher
        if len(self._texts) > MOST_MATCHERS:
            self._texts.popitem(last=False)
        return self._vocabulary.without_detours(bits, forced).tobytes()


class Vocabulary:
    """The tokens that are text as llguidance knows them, and behind all tokens one for the end."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._core, self._end = tokenizer._core, tokenizer.vocab_size
        ids = [id for id in range(self._end) if self._core.kind(id) not in (CONTROL, UNKNOWN, UNUSED)]
        pieces = [b""] * self._end
        for id in ids:
            pieces[id] = self._core.token_bytes(id)
        self.tokens = LLTokenizer(TokenizerWrapper(AsWrapped(pieces)))
        self.text = self._bits([*ids, self._end])  # a grammar may name other tokens by number

    def _bits(self, ids: list[int]) -> NDArray[np.uint8]:
        flags = np.zeros(-(-(self._end + 1) // 32) * 32, bool)
        flags[ids] = True
        return np.packbits(flags, bitorder="little")

    def without_detours(self, bits: NDArray[np.uint8], forced: bytes) -> NDArray[np.uint8]:
        """The longest token alone, where all that may come only write what must come."""
        if not forced or np.bitwise_count(bits).sum() > MOST_ALIKE * len(forced):
            return bits
        ids = np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist()
        pieces = {} if self._end in ids else {id: self._core.token_bytes(id) for id in ids}
        if not pieces or not all(forced.startswith(piece) for piece in pieces.values()):
            return bits
        return self._bits([max(pieces, key=lambda id: len(pieces[id]))])


class AsWrapped:
    """Tokens, and one behind them for the end, as llguidance wants to see them. One that begins with 0xFF, which is in no text,
    is special."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.tokens = [*pieces, b"\xff<end>"]
        self.eos_token_id = len(pieces)
        self.bos_token_id = None
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: bytes) -> list[int]:
        raise RuntimeError("llguidance asks for the tokens of forced text, in spite of no_forcing")


vocabularies: "WeakKeyDictionary[Tokenizer, Vocabulary]" = WeakKeyDictionary()


def vocabulary_of(tokenizer: "Tokenizer") -> Vocabulary:
    found = vocabularies.get(tokenizer)
    return vocabularies.setdefault(tokenizer, Vocabulary(tokenizer)) if found is None else found
