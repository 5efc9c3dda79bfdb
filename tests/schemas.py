# SPDX-License-Identifier: Apache-2.0
"""Twenty JSON Schemas of growing difficulty, each with a question that it suits. Strings and arrays have bounds."""

from typing import Any

WORD = {"type": "string", "minLength": 1, "maxLength": 20}
PERSON = {
    "type": "object",
    "properties": {"name": WORD, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
}


def with_properties(required: bool = True, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | {"required": list(properties)} if required else schema


SCHEMAS: list[tuple[str, dict[str, Any]]] = [
    ("Is the sky blue?", {"type": "boolean"}),
    ("Which colour has grass?", {"enum": ["red", "green", "blue"]}),
    ("How many days has a week?", {"type": "integer", "minimum": 1, "maximum": 366}),
    ("What is half of three?", {"type": "number", "minimum": 0, "exclusiveMaximum": 10}),
    ("Name a fruit.", WORD),
    ("Write a date in 1969.", {"type": "string", "pattern": "^1969-(0[1-9]|1[0-2])-[0-3][0-9]$"}),
    ("List three colours.", {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3}),
    (
        "List some numbers below 100.",
        {"type": "array", "items": {"type": "integer", "minimum": -99, "maximum": 99}, "maxItems": 5},
    ),
    ("Turn the light on.", with_properties(device={"enum": ["light", "heater"]}, on={"type": "boolean"})),
    (
        "Set the heater to 21 degrees.",
        with_properties(
            device={"enum": ["light", "heater", "fan"]},
            action={"enum": ["on", "off", "set"]},
            value={"type": ["integer", "null"], "minimum": 5, "maximum": 30},
        ),
    ),
    ("Describe a person.", PERSON),
    (
        "Describe a book.",
        with_properties(required=False, title=WORD, year={"type": "integer", "minimum": 1450, "maximum": 2030}, pages=PERSON),
    ),
    ("Give a colour or a number.", {"anyOf": [{"enum": ["red", "green"]}, {"type": "integer", "minimum": 0, "maximum": 9}]}),
    ("List two people.", {"type": "array", "items": {"$ref": "#/$defs/person"}, "maxItems": 2, "$defs": {"person": PERSON}}),
    (
        "Where is Paris?",
        with_properties(
            place=WORD,
            position={"type": "array", "prefixItems": [{"type": "number", "minimum": -90, "maximum": 90}] * 2, "maxItems": 2},
        ),
    ),
    (
        "Rate the film, 1 to 5.",
        with_properties(**{name: {"type": "integer", "minimum": 1, "maximum": 5} for name in ("story", "cast", "music")})
        | {"additionalProperties": False},
    ),
    (
        "Describe an order.",
        with_properties(
            id={"type": "string", "pattern": "^[A-Z]{2}[0-9]{4}$"},
            items={
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": with_properties(product=WORD, count={"type": "integer", "minimum": 1, "maximum": 99}),
            },
            paid={"type": "boolean"},
        ),
    ),
    (
        "Describe a lesson.",
        with_properties(
            topic={"type": "string", "maxLength": 60},
            level={"enum": ["easy", "medium", "hard"]},
            questions={
                "type": "array",
                "minItems": 1,
                "maxItems": 2,
                "items": with_properties(
                    question={"type": "string", "minLength": 5, "maxLength": 80},
                    answers={"type": "array", "items": WORD, "minItems": 2, "maxItems": 4},
                    right={"type": "integer", "minimum": 0, "maximum": 3},
                ),
            },
        ),
    ),
    (
        "What is in this room?",
        with_properties(
            required=False,
            **{
                name: {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 12}, {"type": "integer", "maximum": 9}]}
                for name in ("table", "chair", "lamp", "window", "door", "shelf", "plant", "rug")
            },
        ),
    ),
    (
        "Write a report.",
        with_properties(
            author={"$ref": "#/$defs/person"},
            title={"type": "string", "minLength": 3, "maxLength": 50},
            sections={
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": with_properties(
                    heading={"type": "string", "maxLength": 30},
                    text={"type": "string", "maxLength": 150},
                    score={"type": "number", "minimum": 0, "maximum": 1},
                    tags={"type": "array", "items": {"enum": ["new", "old", "open", "done"]}, "maxItems": 4},
                ),
            },
            reviewers={"type": "array", "items": {"$ref": "#/$defs/person"}, "maxItems": 2},
        )
        | {"$defs": {"person": PERSON}},
    ),
]
