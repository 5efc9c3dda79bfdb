# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas as regular expressions over the UTF-8 of JSON: without recursion, what they describe is a regular language."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cached_property
from math import inf
from typing import Any, NoReturn
from urllib.parse import unquote

from slm.errors import UnsupportedError
from slm.expressions import LAST, SURROGATES, Expressions, Ranges, between, union, without
from slm.options import refuse_type, shown
from slm.regex_syntax import read_regex
from slm.tools import type_schema

MOST_DIGITS = 18  # of an integer without bounds: it fits into 64 bits
LARGE = 10**30  # bounds are smaller, and no nearer to 0 than its inverse
EXACT = Context(prec=30)  # Python's own keeps 28 digits
MOST_DECIMALS = 6  # of a number between bounds, unless those have more
# A number without bounds is read as a finite float.
NUMBER = r"-?(0|[1-9]\d{0,15})(\.\d{1,16})?([eE][+-]?\d{1,2})?"
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
UNESCAPED = without([(0x20, LAST)], [(ord('"'), ord('"')), (ord("\\"), ord("\\"))])

ANNOTATIONS = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$id", "$defs",
    "definitions", "discriminator",  # of OpenAPI: it names the property that tells the branches of oneOf apart
}  # fmt: skip
KEYWORDS = {  # of each type, but those that any has
    "string": ("minLength", "maxLength", "pattern"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
    "boolean": (),
    "null": (),
}
GENERAL = {"type", "enum", "const", "anyOf", "$ref", "nullable"}
KNOWN = GENERAL.union(ANNOTATIONS, *KEYWORDS.values())

# What slm.grammars does, beside or instead of it. llguidance says nothing of a keyword that it has never heard of.
OF_GRAMMARS = KNOWN | {
    "allOf", "oneOf", "format", "multipleOf", "patternProperties", "minProperties", "maxProperties"
}  # fmt: skip
SUBSCHEMAS = ("items", "additionalProperties", "prefixItems", "anyOf", "allOf", "oneOf")
NAMED_SUBSCHEMAS = ("properties", "patternProperties", "$defs", "definitions")


def schema_of(source: Any) -> Mapping[str, Any]:
    """The JSON Schema of what people have: one already, a class that makes it, or a type hint."""
    if isinstance(source, Mapping):
        return source
    for name in ("model_json_schema", "__json_schema__"):
        method = getattr(source, name, None)
        if callable(method):
            schema = method()
            if not isinstance(schema, Mapping):
                refuse_type(f"{name}()", "a mapping", schema)
            return schema
    if isinstance(source, str | bytes | bool | int | float | Sequence):
        refuse_type("schema", "a JSON Schema as a mapping, a class or a type hint", source)
    return type_schema(source, "schema")


def read_schema(schema: Mapping[str, Any], expressions: Expressions) -> int:
    """The number of the expression of the JSON that a schema describes."""
    return Reader(schema, expressions).value_of_root()


def unknown_to_grammars(schema: Any, where: str) -> Iterator[tuple[str, str]]:
    """Keywords that slm.grammars does not do, each behind the JSON pointer of where it stands."""
    if isinstance(schema, list | tuple):
        for i, each in enumerate(schema):
            yield from unknown_to_grammars(each, f"{where}/{i}")
    elif isinstance(schema, Mapping):
        for name, value in schema.items():
            if name not in OF_GRAMMARS:
                yield where, name
            elif name in SUBSCHEMAS:
                yield from unknown_to_grammars(value, f"{where}/{name}")
            elif name in NAMED_SUBSCHEMAS and isinstance(value, Mapping):
                for key, each in value.items():
                    yield from unknown_to_grammars(each, f"{where}/{name}/{key}")


def without_nullable(schema: Any, where: str) -> Any:
    """The same for slm.grammars, which takes JSON Schema alone: null as a branch of its own."""
    if isinstance(schema, list | tuple):
        return [without_nullable(each, f"{where}/{i}") for i, each in enumerate(schema)]
    if not isinstance(schema, Mapping):
        return schema
    plain = {}
    for name, value in schema.items():
        if name in SUBSCHEMAS:
            plain[name] = without_nullable(value, f"{where}/{name}")
        elif name in NAMED_SUBSCHEMAS and isinstance(value, Mapping):
            plain[name] = {key: without_nullable(each, f"{where}/{name}/{key}") for key, each in value.items()}
        elif name != "nullable":
            plain[name] = value
    if not nullable(schema, where):
        return plain
    named = {name: plain.pop(name) for name in ("$defs", "definitions") if name in plain}  # references know where they are
    return named | {"anyOf": [plain, {"type": "null"}]}


class Reader:
    def __init__(self, root: Mapping[str, Any], expressions: Expressions) -> None:
        self.root, self.e = root, expressions
        self.open: list[str] = []  # references that are being read
        self.references: dict[str, int] = {}

    def value_of_root(self) -> int:
        return self.value(self.root, "#")

    # ---- any value ------------------------------------------------------------------------------------------------------

    def value(self, schema: Any, where: str) -> int:
        """where: the JSON pointer of the schema, for messages."""
        if schema is False:
            return self.e.nothing
        if schema is True:
            unbounded(where)
        if not isinstance(schema, Mapping):
            wrong(where, "a mapping, True or False", schema)
        for name in schema:
            if name not in KNOWN:
                raise UnsupportedError(
                    f"JSON schema, {where}: the keyword {name!r} is not supported; see slm.json for those that are"
                )
        parts = []
        if "$ref" in schema:
            parts.append(self.reference(schema["$ref"], f"{where}/$ref"))
        if "const" in schema:
            parts.append(self.literal(schema["const"], f"{where}/const"))
        if "enum" in schema:
            values = array_of(schema["enum"], f"{where}/enum")
            parts.append(self.e.alternation(self.literal(v, f"{where}/enum/{i}") for i, v in enumerate(values)))
        if "anyOf" in schema:
            branches = array_of(schema["anyOf"], f"{where}/anyOf")
            parts.append(self.e.alternation(self.value(s, f"{where}/anyOf/{i}") for i, s in enumerate(branches)))
        if types := self.types(schema, where):
            parts.append(self.e.alternation(getattr(self, name)(schema, where) for name in types))
        if not parts:
            unbounded(where)
        number = parts.pop()
        for part in parts:
            number = self.e.intersection(part, number)
        return self.e.alternation([number, self.e.text("null")]) if nullable(schema, where) else number

    def types(self, schema: Mapping[str, Any], where: str) -> list[str]:
        """The types of its values; where it does not say, those that its keywords are about. None: it says nothing of types."""
        if "type" not in schema:
            about = [name for name, keywords in KEYWORDS.items() if not schema.keys().isdisjoint(keywords)]
            return ["number"] if "number" in about else about
        given = schema["type"]
        names = [given] if isinstance(given, str) else list(array_of(given, f"{where}/type"))
        for name in names:
            if not isinstance(name, str) or name not in KEYWORDS:
                wrong(f"{where}/type", f"one of {', '.join(KEYWORDS)}", name)
        if not schema.keys().isdisjoint(("enum", "const")) and all(schema.keys().isdisjoint(KEYWORDS[name]) for name in names):
            self.check_types(schema, names, where)
            return []  # the values that are listed say it all
        return names

    def check_types(self, schema: Mapping[str, Any], names: Sequence[str], where: str) -> None:
        allowed = {*names, *(["null"] if nullable(schema, where) else [])}
        listed = [schema["const"]] if "const" in schema else schema["enum"]
        for value in listed:
            if allowed.isdisjoint(types_of(value)):
                raise ValueError(f"JSON schema, {where}: {shown(value)} is listed, and not of the type {' or '.join(names)}")

    def reference(self, pointer: Any, where: str) -> int:
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise UnsupportedError(f"JSON schema, {where}: {shown(pointer)} does not lie in this schema")
        if pointer in self.open or pointer == "#":
            raise UnsupportedError(f"JSON schema, {where}: {pointer} is part of itself; what is so deep has no bounds")
        if pointer not in self.references:
            schema: Any = self.root
            for name in unquote(pointer).split("/")[1:]:  # RFC 6901, section 6
                name = name.replace("~1", "/").replace("~0", "~")
                if isinstance(schema, Sequence) and not isinstance(schema, str) and name.isdecimal() and int(name) < len(schema):
                    schema = schema[int(name)]
                elif isinstance(schema, Mapping) and name in schema:
                    schema = schema[name]
                else:
                    raise ValueError(f"JSON schema, {where}: there is no {pointer}")
            self.open.append(pointer)
            self.references[pointer] = self.value(schema, pointer)
            self.open.pop()
        return self.references[pointer]

    # ---- texts as they are ------------------------------------------------------------------------------------------------

    @cached_property
    def comma(self) -> int:
        return self.e.concatenation([self.e.text(","), self.e.optional(self.e.text(" "))])

    @cached_property
    def colon(self) -> int:
        return self.e.concatenation([self.e.text(":"), self.e.optional(self.e.text(" "))])

    def between_brackets(self, brackets: str, inner: int) -> int:
        return self.e.concatenation([self.e.text(brackets[0]), inner, self.e.text(brackets[1])])

    def separated(self, parts: Sequence[int]) -> int:
        return self.e.concatenation([number for i, part in enumerate(parts) for number in ([self.comma, part] if i else [part])])

    def literal(self, value: Any, where: str) -> int:
        if isinstance(value, Mapping):
            pairs = [self.e.concatenation([self.name(k, where), self.colon, self.literal(v, where)]) for k, v in value.items()]
            return self.between_brackets("{}", self.separated(pairs))
        if isinstance(value, list | tuple):
            return self.between_brackets("[]", self.separated([self.literal(item, where) for item in value]))
        try:
            return self.e.text(json.dumps(value, ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"JSON schema, {where}: {shown(value)} is no JSON value") from error

    def name(self, name: Any, where: str) -> int:
        if not isinstance(name, str):
            wrong(where, "names that are str", name)
        return self.literal(name, where)

    # ---- by type: each method is named so ----------------------------------------------------------------------------------

    def null(self, schema: Mapping[str, Any], where: str) -> int:
        return self.e.text("null")

    def boolean(self, schema: Mapping[str, Any], where: str) -> int:
        return self.e.alternation([self.e.text("true"), self.e.text("false")])

    def integer(self, schema: Mapping[str, Any], where: str) -> int:
        low, high = bounds(schema, where)
        return self.decimal(low, high, 0)

    def number(self, schema: Mapping[str, Any], where: str) -> int:
        low, high = bounds(schema, where)
        if low is None and high is None:
            return read_regex(NUMBER, self.e, self.e.character)
        given = [bound for bound, _ in (low or (Decimal(0), True), high or (Decimal(0), True))]
        most = max(MOST_DECIMALS, *(-int(bound.as_tuple().exponent) for bound in given))
        return self.e.alternation(self.decimal(low, high, decimals) for decimals in range(most + 1))

    def decimal(self, low: "Bound | None", high: "Bound | None", decimals: int) -> int:
        """Numbers with so many decimals between two bounds. Without one it is where integers have MOST_DIGITS digits."""
        least, most = (None if b is None else steps(b, decimals, up) for b, up in ((low, True), (high, False)))
        widest = 10 ** (MOST_DIGITS + decimals) - 1
        if least is None:
            least = min(-widest, most or 0) if most is None or most >= -widest else 10 * most
        if most is None:
            most = max(widest, 10 * least)
        products = [self.digits(first, last, decimals, "") for first, last in [(max(least, 0), most)] if first <= last]
        products += [self.digits(first, last, decimals, "-") for first, last in [(max(-most, 1), -least)] if first <= last]
        return self.e.alternation(products)

    def digits(self, first: int, last: int, decimals: int, sign: str) -> int:
        """The numbers first to last, 0 <= first <= last, with a point before so many digits at the end."""
        zero, products = ord("0"), []
        for length in range(decimals + 1, len(str(last)) + 1 if last >= 10**decimals else decimals + 2):
            low = max(first, 10 ** (length - 1) if length > decimals + 1 else 0)
            high = min(last, 10**length - 1)
            if low > high:
                continue
            lowest, highest = ([zero + int(digit) for digit in f"{value:0{length}}"] for value in (low, high))
            for product in between(lowest, highest, zero, zero + 9):
                point = [(ord("."), ord("."))] if decimals else []
                products.append(product[: length - decimals] + point + product[length - decimals :])
        return self.e.concatenation([self.e.text(sign), self.e.products(products)])

    def string(self, schema: Mapping[str, Any], where: str) -> int:
        least, most = counts(schema, "minLength", "maxLength", where)
        text = self.e.repetition(self.any_character, least, most)
        if "pattern" in schema:
            pattern = schema["pattern"]
            if not isinstance(pattern, str):
                wrong(f"{where}/pattern", "a str", pattern)
            matching = read_regex(pattern, self.e, self.character, search=True)
            text = matching if (least, most) == (0, None) else self.e.intersection(matching, text)
        return self.between_brackets('""', text)

    @cached_property
    def any_character(self) -> int:
        return self.character([(0, LAST)])

    def character(self, ranges: Iterable[tuple[int, int]]) -> int:
        """One character of a string: as it is, with an escape of one letter, or with \\u and four digits."""
        ranges = without(ranges, [SURROGATES])
        branches = [self.e.character(common(ranges, UNESCAPED))]
        for sign, letter in ESCAPES.items():
            if common(ranges, [(ord(sign), ord(sign))]):
                branches.append(self.e.text(f"\\{letter}"))
        hexadecimal = []
        for low, high in common(ranges, [(0, 0xFFFF)]):
            first, last = ([code >> shift & 15 for shift in (12, 8, 4, 0)] for code in (low, high))
            for product in between(first, last, 0, 15):
                hexadecimal.append(self.e.concatenation(self.hexadecimal(*digits) for digits in product))
        if hexadecimal:
            branches.append(self.e.concatenation([self.e.text("\\u"), self.e.alternation(hexadecimal)]))
        return self.e.alternation(branches)

    def hexadecimal(self, first: int, last: int) -> int:
        letters = sorted({ord(f(f"{digit:x}")) for digit in range(first, last + 1) for f in (str.lower, str.upper)})
        return self.e.alternation(self.e.byte(low, high) for low, high in union((code, code) for code in letters))

    def array(self, schema: Mapping[str, Any], where: str) -> int:
        least, most = counts(schema, "minItems", "maxItems", where)
        first = array_of(schema.get("prefixItems", []), f"{where}/prefixItems")
        head = [self.value(item, f"{where}/prefixItems/{i}") for i, item in enumerate(first)]
        if "items" not in schema and not head:
            unbounded(f"{where}/items")
        item = self.value(schema.get("items", False), f"{where}/items")
        least, most = max(least - len(head), 0), None if most is None else most - len(head)
        if most is not None and most < 0:
            raise UnsupportedError(f"JSON schema, {where}: maxItems is less than there are prefixItems, all of which are written")
        if head:
            rest = self.e.repetition(self.e.concatenation([self.comma, item]), least, most)
            return self.between_brackets("[]", self.e.concatenation([self.separated(head), rest]))
        items = self.list_of(item, max(least, 1), most) if most != 0 else self.e.empty
        return self.between_brackets("[]", items if least else self.e.optional(items))

    def list_of(self, item: int, least: int, most: int | None) -> int:
        """From `least` >= 1 to `most` of them."""
        more = self.e.repetition(self.e.concatenation([self.comma, item]), least - 1, None if most is None else most - 1)
        return self.e.concatenation([item, more])

    def object(self, schema: Mapping[str, Any], where: str) -> int:
        if "properties" not in schema and "additionalProperties" not in schema:
            unbounded(f"{where}/properties")
        properties = schema.get("properties", {})
        if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
            wrong(f"{where}/properties", "a mapping of names", properties)
        required = array_of(schema.get("required", []), f"{where}/required")
        for name in required:
            if not isinstance(name, str) or name not in properties:
                raise UnsupportedError(f"JSON schema, {where}/required: {shown(name)} is not one of the properties")
        others = self.others(schema, properties, where)
        # What may still come, by whether something is there: properties in their order, others behind them.
        behind = self.e.repetition(self.e.concatenation([self.comma, others]), 0, None)
        alone = self.e.optional(self.e.concatenation([others, behind]))
        for name in reversed(properties):
            value = self.value(properties[name], f"{where}/properties/{name.replace('~', '~0').replace('/', '~1')}")
            pair = self.e.concatenation([self.name(name, where), self.colon, value])
            follows = self.e.concatenation([self.comma, pair])
            here = self.e.concatenation([pair, behind])
            alone = here if name in required else self.e.alternation([here, alone])
            behind = self.e.concatenation([follows if name in required else self.e.optional(follows), behind])
        return self.between_brackets("{}", alone)

    def others(self, schema: Mapping[str, Any], properties: Mapping[str, Any], where: str) -> int:
        """A pair that is none of the properties, however its name is spelled."""
        value = self.value(schema.get("additionalProperties", False), f"{where}/additionalProperties")
        if value == self.e.nothing:
            return value
        spelled = [self.e.concatenation(self.character([(ord(c), ord(c))]) for c in name) for name in properties]
        names = self.e.difference(self.e.repetition(self.any_character, 0, None), self.e.alternation(spelled))
        return self.e.concatenation([self.between_brackets('""', names), self.colon, value])


# ---- what keywords hold ---------------------------------------------------------------------------------------------------

Bound = tuple[Decimal, bool]  # and whether it may be reached


def wrong(where: str, expected: str, found: Any) -> NoReturn:
    raise ValueError(f"JSON schema, {where}: expected {expected}, found {shown(found)}")


def unbounded(where: str) -> NoReturn:
    raise UnsupportedError(f"JSON schema, {where}: any value may stand here, which has no bounds; say its type")


def array_of(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        wrong(where, "an array", value)
    return value


def common(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    return without(ranges, without([(0, LAST)], others))


def types_of(value: Any) -> set[str]:
    """1 and 1.0 are integers and numbers."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"number", "integer"} if value == value // 1 else {"number"}
    kinds = {bool: "boolean", str: "string", type(None): "null"}
    return {kinds.get(type(value), "object" if isinstance(value, Mapping) else "array")}


def nullable(schema: Mapping[str, Any], where: str) -> bool:
    value = schema.get("nullable", False)
    if not isinstance(value, bool):
        wrong(f"{where}/nullable", "True or False", value)
    return value


def counts(schema: Mapping[str, Any], least: str, most: str, where: str) -> tuple[int, int | None]:
    for name in (least, most):
        value = schema.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            wrong(f"{where}/{name}", "an integer from 0 to 2147483647", value)
    low, high = schema.get(least, 0), schema.get(most)
    if high is not None and low > high:
        raise ValueError(f"JSON schema, {where}: {least} is {low}, and {most} {high}")
    return low, high


def bounds(schema: Mapping[str, Any], where: str) -> tuple[Bound | None, Bound | None]:
    """The lower and the upper one."""
    found: dict[str, Bound] = {}
    for name in KEYWORDS["number"]:
        if name not in schema:
            continue
        value = schema[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == inf:
            wrong(f"{where}/{name}", "a finite number", value)
        if value and not 1 / LARGE <= abs(value) < LARGE:
            wrong(f"{where}/{name}", "a number between -1e30 and 1e30, and 0 or no nearer to 0 than 1e-30", value)
        exact = Decimal(str(value))
        found[name] = (exact, not name.startswith("exclusive"))
    lows = [found[name] for name in ("minimum", "exclusiveMinimum") if name in found]
    highs = [found[name] for name in ("maximum", "exclusiveMaximum") if name in found]
    low = max(lows, key=lambda bound: (bound[0], not bound[1]), default=None)
    high = min(highs, key=lambda bound: (bound[0], bound[1]), default=None)
    return low, high


def steps(bound: Bound, decimals: int, up: bool) -> int:
    """The first number with so many decimals that is within a bound, in steps of the last decimal."""
    exact = bound[0].scaleb(decimals, EXACT)
    number = int(exact.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))
    reached = number == exact and not bound[1]
    return number + (1 if up else -1) * reached
