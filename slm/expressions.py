# SPDX-License-Identifier: Apache-2.0
"""Regular expressions over the UTF-8 bytes of text, as the core compiles them."""

from array import array
from collections.abc import Iterable, Sequence

from slm import _core

EMPTY, BYTES, CONCATENATION, ALTERNATION, INTERSECTION, DIFFERENCE, REPETITION = range(7)  # slm_expression_kind
LAST = 0x10FFFF  # code point
SURROGATES = (0xD800, 0xDFFF)

Ranges = list[tuple[int, int]]  # of code points, both ends included


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same characters as ascending ranges that do not touch."""
    merged: Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All other characters of Unicode."""
    others, start = [], 0
    for low, high in union([*ranges, SURROGATES]):
        if start < low:
            others.append((start, low - 1))
        start = high + 1
    return [*others, (start, LAST)] if start <= LAST else others


def without(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    return complement([*complement(ranges), *others])


def between(low: Sequence[int], high: Sequence[int], least: int, most: int) -> list[Ranges]:
    """All sequences of digits from low to high, which have one length, as products of ranges; digits go from least to most."""
    if not low:
        return [[]]
    first, last, length = low[0], high[0], len(low) - 1
    if first == last:
        return [[(first, last), *rest] for rest in between(low[1:], high[1:], least, most)]
    head, tail = [], []
    if any(digit != least for digit in low[1:]):
        head = [[(first, first), *rest] for rest in between(low[1:], [most] * length, least, most)]
        first += 1
    if any(digit != most for digit in high[1:]):
        tail = [[(last, last), *rest] for rest in between([least] * length, high[1:], least, most)]
        last -= 1
    middle = [[(first, last), *[(least, most)] * length]] if first <= last else []
    return head + middle + tail


class Expressions:
    """Expressions in the order in which they are made. Each method gives the number of one; equal ones have one number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int, int, int], int] = {}
        self.empty = self._number(EMPTY)
        self.nothing = self._number(DIFFERENCE, self.empty, self.empty)

    def compile(self, number: int) -> _core.Automaton:
        """Raises LimitError when the automaton has too many states, ValueError when nothing matches."""
        last = (REPETITION, number, 1, 1)
        flat = array("i", [field for step in [*self._numbers, last] for field in step])
        return _core.Automaton(flat.tobytes())

    def byte(self, low: int, high: int) -> int:
        return self._number(BYTES, low, high)

    def concatenation(self, parts: Iterable[int]) -> int:
        numbers = [part for part in parts if part != self.empty]
        if not numbers:
            return self.empty
        number = numbers.pop()
        while numbers:
            number = self._number(CONCATENATION, numbers.pop(), number)
        return number

    def alternation(self, branches: Iterable[int]) -> int:
        numbers = list(dict.fromkeys(branches))
        while len(numbers) > 1:  # in pairs, pairs of pairs ...: the core flattens them, and each is flattened a few times only
            pairs = zip(numbers[::2], numbers[1::2], strict=False)
            numbers = [self._number(ALTERNATION, a, b) for a, b in pairs] + numbers[len(numbers) & ~1 :]
        return numbers[0] if numbers else self.nothing

    def intersection(self, a: int, b: int) -> int:
        return self._number(INTERSECTION, a, b)

    def difference(self, a: int, b: int) -> int:
        return self._number(DIFFERENCE, a, b)

    def repetition(self, part: int, least: int, most: int | None) -> int:
        """At least `least` and at most `most` times; None: without end."""
        return part if least == most == 1 else self._number(REPETITION, part, least, -1 if most is None else most)

    def optional(self, part: int) -> int:
        return self.repetition(part, 0, 1)

    def text(self, text: str | bytes) -> int:
        data = text.encode() if isinstance(text, str) else text
        return self.concatenation([self.byte(byte, byte) for byte in data])

    def products(self, products: Iterable[Ranges]) -> int:
        """One of these sequences of ranges of bytes."""
        return self.alternation(self.concatenation(self.byte(low, high) for low, high in product) for product in products)

    def character(self, ranges: Iterable[tuple[int, int]]) -> int:
        """The UTF-8 of one character."""
        branches = []
        for low, high in without(ranges, [SURROGATES]):
            for end in (0x7F, 0x7FF, 0xFFFF, LAST):
                if low <= min(high, end):
                    encoded = (chr(low).encode(), chr(min(high, end)).encode())
                    branches.append(self.products(between(*encoded, 0x80, 0xBF)))
                low = max(low, end + 1)
        return self.alternation(branches)

    def _number(self, kind: int, a: int = 0, b: int = 0, most: int = 0) -> int:
        return self._numbers.setdefault((kind, a, b, most), len(self._numbers))
