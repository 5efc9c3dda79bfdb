# SPDX-License-Identifier: Apache-2.0
"""JSON by schema: what is written parses and is valid by `jsonschema`; what is not supported is refused by name."""

import json
import random
import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import jsonschema
import pytest
from schemas import SCHEMAS
from test_constraints import byte_level, sentencepiece, write_model

import slm

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module", params=[byte_level, sentencepiece], ids=["byte_level", "sentencepiece"])
def model(request, tmp_path_factory):
    with slm.load(write_model(tmp_path_factory.mktemp("model") / "model.gguf", request.param())) as loaded:
        yield loaded


def assert_valid(text: str, schema: dict) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator, format_checker=checker)
    text.encode()  # no lone surrogates
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    assert re.fullmatch(r"(?:[^\s]|(?<=[:,]) )*", outside), text


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_random_models_write_valid_json(model, number) -> None:
    _, schema = SCHEMAS[number]
    constraint = slm.json(schema)
    outputs = model.generate(["a"] * 6, constrain=constraint, temperature=1.5, max_tokens=1500, seed=number)
    outputs += model.generate("a", constrain=constraint, temperature=3.0, max_tokens=1500, seed=number, n=4)
    finished = [output for output in outputs if output.finish_reason == "stop"]
    for output in finished:
        assert_valid(output.text, schema)
    assert len(finished) == len(outputs)


@pytest.mark.parametrize("number", [1, 3, 6, 9, 13, 17])
def test_a_real_model_writes_valid_json(smollm2, number) -> None:
    question, schema = SCHEMAS[number]
    output = smollm2.chat(question, constrain=slm.json(schema), max_tokens=400)
    assert output.finish_reason == "stop"
    assert_valid(output.text, schema)


def test_the_thermostat_of_the_readme(smollm2, capsys) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    code = next(block for block in blocks if "heating" in block)
    assert len([line for line in code.splitlines() if line]) < 15
    exec(code, {"slm": slm, "m": smollm2, "__name__": "__main__"})
    printed = capsys.readouterr().out.strip()
    assert printed == '{"device": "heating", "action": "set", "value": 22}'
    assert printed in code


MATCHES = [
    (
        {"type": "string"},
        ['""', '"a"', '"é€😀"', r'"\"\\\/\b\n"', r'"\u00e9"', r'"\u00E9"', '"\x7f"'],
        ['"', '"\n"', r'"\x"', '"\\ud800"', '"a'],
    ),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', r'"\n\u00e9€"'], ['"a"', '"abcd"', r'"\u00e9"']),
    ({"type": "string", "pattern": "b+"}, ['"abc"', '"b"', r'"\u0062"', r'"\nb\n"'], ['"ac"', '"a"']),
    ({"type": "string", "pattern": "^a.c$", "maxLength": 3}, ['"abc"', r'"a\"c"'], ['"abbc"', r'"a\nc"', '"xabc"']),
    ({"type": "integer"}, ["0", "-1", "123456789012345678"], ["-0", "01", "1.0", "1e3", "1234567890123456789", "+1", ""]),
    ({"type": "number"}, ["0", "-0.5", "1e10", "3.14", "12E-3"], [".5", "1.", "01", "1e", "NaN", "1e400"]),
    (
        {"type": "number", "minimum": 0.25, "maximum": 2},
        ["0.25", "2", "2.0", "0.250000", "1.999999", "1"],
        ["0.2", "0.249999", "2.1", "0", "-1"],
    ),
    (
        {"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 0},
        ["-0.5", "-0.000001"],
        ["-1", "0", "-1.0", "0.0", "-0.0"],
    ),
    (
        {"enum": ["a", 1, None, True, [1, {"b": 2}]]},
        ['"a"', "1", "null", "true", '[1,{"b":2}]', '[1, {"b": 2}]'],
        ['"b"', "2", '[1 ,{"b":2}]'],
    ),
    ({"const": 'x\n"é'}, ['"x\\n\\"é"'], ['"x"']),
    ({"type": ["string", "null"], "maxLength": 1}, ['"a"', "null"], ['"ab"', "0"]),
    ({"type": "string", "enum": ["a", "abc"], "minLength": 2}, ['"abc"'], ['"a"']),
    ({"type": "integer", "nullable": True}, ["5", "null"], ["true"]),
    ({"type": "string", "nullable": True, "enum": ["a", None]}, ['"a"', "null"], ['"b"']),
    ({"type": "integer", "enum": [1.0, 2]}, ["1.0", "2"], ["1"]),
    ({"$ref": "#/$defs/a%20b~1", "$defs": {"a b/": {"const": 1}}}, ["1"], ["2"]),
    ({"minimum": 3, "maximum": 4}, ["3", "4"], ["5"]),
    (
        {"type": "array", "items": {"type": "boolean"}},
        ["[]", "[true]", "[true,false, true]"],
        ["[ true]", "[true,]", "[true ,false]", "[1]"],
    ),
    ({"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 3}, ["[1,1]", "[1, 1, 1]"], ["[]", "[1]", "[1,1,1,1]"]),
    ({"type": "array", "items": {"const": 1}, "maxItems": 0}, ["[]"], ["[1]"]),
    (
        {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}},
        ["[1,2]", "[1,2,3,3]"],
        ["[1]", "[1,3]"],
    ),
    (
        {"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]},
        ['{"b":2}', '{"a": 1, "b": 2, "c": 3}', '{"b":2,"c":3}'],
        ["{}", '{"a":1}', '{"b":2,"a":1}', '{"b":2,}', '{ "b":2}', '{"b":2,"d":1}'],
    ),
    ({"properties": {"a": {"const": 1}, "b": {"const": 2}}}, ["{}", '{"a":1}', '{"b":2}', '{"a":1,"b":2}'], ['{"b":2,"b":2}']),
    (
        {"properties": {"a": {"const": 1}}, "additionalProperties": {"const": 2}},
        ["{}", '{"a":1}', '{"a":1,"ab":2, "":2}', '{"b":2}'],
        ['{"a":2}', r'{"\u0061":2}', '{"b":1}', '{"b":2,"a":1}'],
    ),
    ({"properties": {"a/b~c": {"$ref": "#/properties/x"}, "x": {"const": 0}}}, ['{"a/b~c":0,"x":0}'], ['{"a/b~c":1}']),
    ({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 7, "maximum": 7}]}, ["null", "7"], ["8"]),
    ({"type": "object", "properties": {}, "additionalProperties": False}, ["{}"], ['{"a":1}']),
]


@pytest.mark.parametrize(("schema", "good", "bad"), MATCHES, ids=lambda x: str(x)[:30] if isinstance(x, dict) else "")
def test_what_a_schema_lets_pass(schema, good, bad) -> None:
    constraint = slm.json(schema)
    for text in good:
        assert constraint.matches(text), text
        if not schema.get("nullable"):
            assert_valid(text, schema)
    for text in bad:
        assert not constraint.matches(text), text


def test_integer_ranges() -> None:
    rng = random.Random(3)
    for _ in range(60):
        low, high = sorted(rng.randint(-(10 ** rng.randint(0, 4)), 10 ** rng.randint(0, 4)) for _ in range(2))
        constraint = slm.json({"type": "integer", "minimum": low, "exclusiveMaximum": high + 0.5})
        for number in {
            *range(low - 12, low + 12),
            *range(high - 12, high + 12),
            *(rng.randint(-20_000, 20_000) for _ in range(50)),
        }:
            assert constraint.matches(str(number)) == (low <= number <= high), (low, high, number)
    assert slm.json({"type": "integer", "minimum": 10**20}).matches(str(10**20))
    assert not slm.json({"type": "integer", "maximum": -(10**20)}).matches(str(-(10**20) + 1))


def test_number_ranges() -> None:
    rng = random.Random(4)
    for _ in range(40):
        low, high = sorted(round(rng.uniform(-30, 30), rng.randint(0, 3)) for _ in range(2))
        constraint = slm.json({"type": "number", "minimum": low, "maximum": high})
        for _ in range(100):
            number = rng.choice([low, high, rng.uniform(-40, 40)]) + rng.choice([0, 0.001, -0.001])
            text = f"{number:.{rng.randint(0, 6)}f}"
            if not re.fullmatch(r"-0(\.0+)?", text):
                assert constraint.matches(text) == (low <= float(text) <= high), (low, high, text)


REFUSED = [
    ({"type": "string", "format": "date"}, "#: the keyword 'format'"),
    ({"properties": {"a": {"oneOf": []}}}, "#/properties/a: the keyword 'oneOf'"),
    ({"type": "integer", "multipleOf": 2}, "#: the keyword 'multipleOf'"),
    ({"not": {}}, "'not'"),
    ({"type": "array"}, "#/items: any value"),
    ({"type": "object"}, "#/properties: any value"),
    ({"properties": {"x": {}}}, "#/properties/x: any value"),
    ({"properties": {}, "additionalProperties": True}, "#/additionalProperties: any value"),
    ({"properties": {"a": {"$ref": "#/properties/a"}}}, "#/properties/a is part of itself"),
    ({"properties": {"a": {"$ref": "#"}}}, "# is part of itself"),
    ({"$ref": "https://example.com/schema"}, "does not lie in this schema"),
    ({"properties": {"a": {"const": 1}}, "required": ["b"]}, "#/required: 'b'"),
    ({"properties": {"a": {"const": 1}}, "required": [["a"]]}, "#/required: ['a']"),
    ({"type": "string", "pattern": "(?=a)"}, "position 0"),
]
WRONG = [
    ({"type": "text"}, "#/type: expected one of string"),
    ({"type": "string", "maxLength": -1}, "#/maxLength: expected an integer"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength is 3"),
    ({"type": "integer", "minimum": "1"}, "#/minimum: expected a finite number"),
    ({"type": "integer", "minimum": float("nan")}, "#/minimum: expected a finite number"),
    ({"type": "number", "maximum": float("inf")}, "#/maximum: expected a finite number"),
    ({"type": "integer", "minimum": -(10**30)}, "#/minimum: expected a number between -1e30 and 1e30, and 0 or no nearer to 0"),
    ({"type": "integer", "maximum": 10**400}, "#/maximum: expected a number between -1e30 and 1e30"),
    ({"type": "number", "exclusiveMinimum": 1e-31}, "#/exclusiveMinimum: expected a number between -1e30 and 1e30"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "no text matches"),
    ({"type": "integer", "enum": ["a"]}, "'a' is listed, and not of the type integer"),
    ({"type": "integer", "enum": [1.5]}, "1.5 is listed, and not of the type integer"),
    ({"type": "integer", "enum": [True]}, "True is listed, and not of the type integer"),
    ({"type": "string", "enum": ["a", None]}, "None is listed, and not of the type string"),
    ({"type": "string", "nullable": 1}, "#/nullable: expected True or False"),
    ({"properties": {1: {"type": "null"}}}, "#/properties: expected a mapping of names"),
    ({"enum": "abc"}, "#/enum: expected an array"),
    ({"enum": [float("nan")]}, "#/enum/0: nan is no JSON value"),
    ({"const": {1: 2}}, "names that are str"),
    ({"$ref": "#/$defs/x"}, "there is no #/$defs/x"),
    ({"properties": []}, "#/properties: expected a mapping of names"),
    ({"type": "array", "items": 3}, "#/items: expected a mapping"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_what_is_not_supported_is_named(without_llguidance, schema, message) -> None:
    with pytest.raises(slm.UnsupportedError, match=re.escape(message)):
        slm.json(schema)


@pytest.mark.parametrize(("schema", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_schemas(schema, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        slm.json(schema)


def test_bounds_of_many_digits_are_exact() -> None:
    bound = 10**30 - 2
    for low, high in ((bound - 1, bound), (-bound, 1 - bound)):
        constraint = slm.json({"type": "integer", "minimum": low, "maximum": high})
        assert [constraint.matches(str(n)) for n in (low - 1, low, high, high + 1)] == [False, True, True, False]
    assert slm.json({"type": "number", "exclusiveMinimum": 1e-30, "maximum": 2e-30}).matches(f"0.{'0' * 29}2")


def test_annotations_change_nothing() -> None:
    schema = {"title": "T", "description": "d", "$schema": "x", "default": 3, "examples": [1], "type": "integer", "maximum": 0}
    assert slm.json(schema).matches("-5")


# ---- schemas from classes ----------------------------------------------------------------------------------------------------


class Mode(Enum):
    HEAT = "heat"
    OFF = "off"


class Place(TypedDict):
    room: str
    floor: NotRequired[int]


@dataclass
class Command:
    device: Literal["light", "heater"]
    place: Place
    mode: Mode = Mode.OFF
    levels: list[int] = field(default_factory=list)
    note: str | None = None


def test_classes_and_type_hints() -> None:
    constraint = slm.json(Command)
    assert constraint.matches('{"device": "light", "place": {"room": "hall"}}')
    assert constraint.matches('{"device":"heater","place":{"room":"","floor":2},"mode":"heat","levels":[1, 2],"note":null}')
    assert not constraint.matches('{"device":"light"}')
    assert not constraint.matches('{"device":"light","place":{"floor":1}}')
    assert slm.json(list[bool]).matches("[true, false]")
    assert slm.json(Literal["a", 1]).matches("1")
    assert slm.json(dict[str, int]).matches('{"a": 1,"b":2}')
    assert slm.json(tuple[int, bool]).matches("[1,true]")

    class Model:
        @classmethod
        def model_json_schema(cls) -> dict:
            return {"$defs": {"X": {"const": 5}}, "properties": {"x": {"$ref": "#/$defs/X"}}, "required": ["x"], "type": "object"}

    assert slm.json(Model).matches('{"x":5}')

    class Other:
        def __json_schema__(self) -> dict:
            return {"const": 1}

    assert slm.json(Other()).matches("1")
    for wrong in ("{}", 3, ["a"], None):
        with pytest.raises((TypeError, ValueError), match="schema"):
            slm.json(wrong)
    with pytest.raises(ValueError, match="complex"):
        slm.json(complex)


@dataclass
class Tree:
    children: "list[Tree]"


def test_a_class_that_is_part_of_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="Tree must not be part of itself"):
        slm.json(Tree)


def test_what_is_too_deep_is_refused() -> None:
    deep: dict = {"type": "string"}
    for _ in range(2000):
        deep = {"type": "array", "items": deep}
    inside: dict = {"type": "array"}
    inside["items"] = inside
    chain = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(1000)} | {"1000": {"type": "string"}}
    for schema in (deep, inside, {"$ref": "#/$defs/0", "$defs": chain}):
        with pytest.raises(slm.LimitError, match="too deep"):
            slm.json(schema)
