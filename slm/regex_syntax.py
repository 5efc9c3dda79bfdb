# SPDX-License-Identifier: Apache-2.0
"""Reads regular expressions in the syntax of Python's `re`, as far as they are regular."""

import re
from collections.abc import Callable
from typing import NoReturn

from slm.errors import UnsupportedError
from slm.expressions import LAST, Expressions, Ranges, complement, union

MOST_REPEATS = 100_000
MOST_NESTED = 100
CLASSES = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": [(9, 13), (32, 32)],
}  # as with re.ASCII
CONTROLS = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
REPEAT = re.compile(r"\{(\d*)(,?)(\d*)\}", re.ASCII)
ANY_BUT_NEWLINE = complement([(10, 10)])


def read_regex(pattern: str, expressions: Expressions, character: Callable[[Ranges], int], *, search: bool = False) -> int:
    """The number of what the whole of a text must match; with search, what must be in it somewhere, as re.search looks for it.

    character: the expression of one character out of ranges of code points.
    """
    return Reader(pattern, expressions, character).read(search)


class Reader:
    def __init__(self, pattern: str, expressions: Expressions, character: Callable[[Ranges], int]) -> None:
        self.pattern, self.at, self.nested = pattern, 0, 0
        self.expressions, self.character = expressions, character

    def read(self, search: bool) -> int:
        anchored = self.take("^")
        start = self.at
        number, n_branches = self.alternation()
        ended = self.take("$")
        if self.at < len(self.pattern):
            self.refuse("a ')' that closes nothing" if self.peek() == ")" else "'$' inside the pattern")
        if n_branches > 1 and (anchored or ended):
            self.at = start - 1 if anchored else self.at - 1
            self.refuse("an anchor of one alternative only; put the alternatives into a group")
        if search:
            anything = self.expressions.repetition(self.character([(0, LAST)]), 0, None)
            around = [number if anchored else self.expressions.concatenation([anything, number])]
            number = self.expressions.concatenation(around if ended else [*around, anything])
        return number

    def refuse(self, what: str, at: int | None = None) -> NoReturn:
        place = self.at if at is None else at
        raise UnsupportedError(f"regular expression {self.pattern!r}, position {place}: {what}")

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self, text: str) -> bool:
        found = self.pattern.startswith(text, self.at)
        self.at += len(text) if found else 0
        return found

    def next(self) -> str:
        if self.at == len(self.pattern):
            self.refuse("the pattern ends too early")
        self.at += 1
        return self.pattern[self.at - 1]

    def alternation(self) -> tuple[int, int]:
        """And of how many branches."""
        branches = [self.sequence()]
        while self.take("|"):
            branches.append(self.sequence())
        return self.expressions.alternation(branches), len(branches)

    def sequence(self) -> int:
        parts = []
        while self.at < len(self.pattern) and self.peek() not in "|)":
            if self.peek() == "$":
                if self.at == len(self.pattern) - 1 and not self.nested:
                    break
                self.refuse("'$' inside the pattern")
            parts.append(self.repeated())
        return self.expressions.concatenation(parts)

    def repeated(self) -> int:
        start = self.at
        if self.repeat():
            self.refuse("nothing that could be repeated", start)
        part = self.atom()
        if bounds := self.repeat():
            part = self.expressions.repetition(part, *bounds)
            start = self.at
            if self.repeat():
                self.refuse("a repetition of a repetition, or one that is lazy or possessive", start)
        return part

    def repeat(self) -> tuple[int, int | None] | None:
        """The bounds of a quantifier, if one comes next. Other braces stand for themselves, as in Python."""
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.take(sign):
                return bounds
        match = REPEAT.match(self.pattern, self.at)
        if match is None or match[0] == "{}":
            return None
        least = bound(match[1] or "0")
        most = bound(match[3]) if match[3] else None if match[2] else least
        if max(least, most or 0) > MOST_REPEATS or (most is not None and most < least):
            self.refuse(f"a repetition must be from m to n, 0 <= m <= n <= {MOST_REPEATS}")
        self.at = match.end()
        return least, most

    def atom(self) -> int:
        start, sign = self.at, self.next()
        if sign == "(":
            return self.group(start)
        if sign == "[":
            return self.character(self.set(start))
        if sign == ".":
            return self.character(ANY_BUT_NEWLINE)
        if sign == "^":
            self.refuse("'^' inside the pattern", start)
        return self.character(self.escape(start) if sign == "\\" else [(ord(sign), ord(sign))])

    def group(self, start: int) -> int:
        if self.peek() == "?" and not self.take("?:"):
            self.refuse("of groups only (...) and (?:...) are supported", start)
        self.nested += 1
        if self.nested > MOST_NESTED:
            self.refuse(f"groups in more than {MOST_NESTED} groups", start)
        number, _ = self.alternation()
        self.nested -= 1
        if not self.take(")"):
            self.refuse("a '(' that is not closed", start)
        return number

    def escape(self, start: int, in_set: bool = False) -> Ranges:
        sign = self.next()
        if sign in CLASSES:
            return CLASSES[sign]
        if sign.lower() in CLASSES:
            return complement(CLASSES[sign.lower()])
        if sign in CONTROLS and (sign != "b" or in_set):
            code = CONTROLS[sign]
        elif sign in HEX_DIGITS:
            digits = self.pattern[self.at : self.at + HEX_DIGITS[sign]]
            if not re.fullmatch(rf"[0-9a-fA-F]{{{HEX_DIGITS[sign]}}}", digits) or int(digits, 16) > LAST:
                self.refuse(f"\\{sign} needs {HEX_DIGITS[sign]} hexadecimal digits of a character", start)
            self.at += len(digits)
            code = int(digits, 16)
        elif sign.isascii() and sign.isalnum():
            self.refuse(f"'\\{sign}' is not supported", start)
        else:
            code = ord(sign)
        return [(code, code)]

    def set(self, start: int) -> Ranges:
        inverted = self.take("^")
        ranges: Ranges = []
        first = True
        while first or self.peek() != "]":
            if self.at == len(self.pattern):
                self.refuse("a '[' that is not closed", start)
            first = False
            at = self.at
            item = self.member()
            if self.peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                end = self.member()
                if len(item) > 1 or len(end) > 1 or item[0][0] != item[0][1] or end[0][0] != end[0][1]:
                    self.refuse("a range must be from one character to another", at)
                item = [(item[0][0], end[0][1])]
                if item[0][0] > item[0][1]:
                    self.refuse("a range must ascend", at)
            ranges += item
        self.at += 1
        return complement(ranges) if inverted else union(ranges)

    def member(self) -> Ranges:
        start, sign = self.at, self.next()
        return self.escape(start, in_set=True) if sign == "\\" else [(ord(sign), ord(sign))]


def bound(digits: str) -> int:
    """Of a repetition: nine digits tell one that is too large as well as thousands, which int() does not take."""
    return int(digits.lstrip("0")[:9] or 0)
