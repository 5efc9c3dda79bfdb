# SPDX-License-Identifier: Apache-2.0
"""Tools that a model may call, as the JSON schemas that chat templates write; also made from plain Python functions.

The schema of a function is what Transformers makes of it, whose templates models were trained with: names and types from its
signature, descriptions from a docstring in Google's style. A description that ends in `(choices: ["a", "b"])` becomes an enum.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from slm.options import refuse_type, shown

JSON_TYPES = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}
MOST_NESTED = 16
SCALARS = (int, float, str, bool, NoneType)
HEADING = re.compile(r"\s*(Args|Returns|Raises):\s*")
ARGUMENT = re.compile(r"(?P<indent>\s*)(?P<name>\w+)(?:[ \t]*\([^()]*\))?:(?P<text>.*)")  # "x (int): the first number"
CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def tool_schemas(tools: Any) -> list[Mapping[str, Any]]:
    """The schemas of tools: mappings as they are, functions and methods as function_schema() describes them."""
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        refuse_type("tools", "a sequence of JSON schemas and functions", tools)
    schemas = []
    for i, tool in enumerate(tools):
        if isinstance(tool, Mapping):
            schemas.append(tool)
        elif inspect.isfunction(tool) or inspect.ismethod(tool):
            schemas.append(function_schema(tool))
        else:
            refuse_type(f"tools[{i}]", "a mapping (a JSON schema) or a function", tool)
    return schemas


def function_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """{"type": "function", "function": {"name", "description", "parameters"[, "return"]}}.

    Every parameter needs a type hint and a description. Raises ValueError that names the function and what it lacks.
    """
    name = function.__name__
    doc = inspect.getdoc(function)
    if not doc:
        raise ValueError(f"tool {name}() has no docstring; it needs one that describes it and its parameters")
    description, arguments, returned = read_docstring(doc.strip())
    try:
        hints = get_type_hints(function)
    except Exception as error:  # whatever evaluating a hint that is a string may raise
        raise ValueError(f"tool {name}() has a type hint that cannot be read: {error}") from error
    properties, required = {}, []
    for i, parameter in enumerate(inspect.signature(function).parameters.values()):
        if i == 0 and parameter.name in ("self", "cls") and parameter.name not in hints:
            continue
        where = f"parameter {parameter.name!r} of tool {name}()"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"{where} is {parameter.kind.description}; models pass arguments by name")
        if parameter.name not in hints:
            raise ValueError(f"{where} has no type hint")
        if parameter.name not in arguments:
            raise ValueError(f"{where} is not described under 'Args:' in the docstring")
        properties[parameter.name] = described(type_schema(hints[parameter.name], where), arguments[parameter.name], where)
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema: dict[str, Any] = {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties},
    }
    if required:
        schema["parameters"]["required"] = required
    if "return" in hints:
        try:
            schema["return"] = type_schema(hints["return"], "")
        except ValueError:  # a model never writes the result, so a type that JSON lacks is no reason to refuse the tool
            pass
        else:
            if returned is not None:
                schema["return"]["description"] = returned
    return {"type": "function", "function": schema}


def described(schema: dict[str, Any], text: str, where: str) -> dict[str, Any]:
    if choices := CHOICES.search(text):
        try:
            values = json.loads(choices[1])
        except ValueError as error:
            raise ValueError(f"{where}: its choices must be a JSON array, not {shown(choices[1])}") from error
        schema["enum"] = [value.strip() if isinstance(value, str) else value for value in values]
        text = text[: choices.start()].strip()
    schema["description"] = text
    return schema


def type_schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type hint. Raises ValueError for a type that has none."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is None:
        if is_dataclass(hint) or is_typeddict(hint):
            return members_schema(hint, where)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return enum_schema([member.value for member in hint], where)
        if (not isinstance(hint, type) and hint is not Any) or hint not in JSON_TYPES:
            expected = "int, float, str, bool, an Enum, a Literal, or a list, tuple, dict, dataclass, TypedDict or union of these"
            raise ValueError(
                f"{where} has the type {shown(hint)}, expected {expected}; or pass the JSON schema of the tool itself"
            )
        return dict(JSON_TYPES[hint])
    if origin in (Union, UnionType):
        return union_schema(args, where)
    if origin is Literal:
        return enum_schema(list(args), where)
    if origin is list:
        return {"type": "array", "items": type_schema(args[0], where)}
    if origin is tuple:
        if len(args) == 1 or ... in args:
            raise ValueError(f"{where} is a tuple of one type, {shown(hint)}: write list[...] for a sequence of any length")
        return {"type": "array", "prefixItems": [type_schema(arg, where) for arg in args]}
    if origin is dict:
        return {"type": "object", "additionalProperties": type_schema(args[1], where)}
    raise ValueError(f"{where} has the type {shown(hint)}, which has no JSON schema; pass the JSON schema of the tool itself")


def members_schema(hint: Any, where: str) -> dict[str, Any]:
    """Of a dataclass or TypedDict: its members in their order, those without a default required."""
    if where.count(".") > MOST_NESTED:
        raise ValueError(f"{where} is nested too deep: {hint.__name__} must not be part of itself")
    hints = get_type_hints(hint)
    if is_dataclass(hint):
        members = [field.name for field in fields(hint)]
        required = [field.name for field in fields(hint) if field.default is MISSING and field.default_factory is MISSING]
    else:
        members = list(hints)
        required = [name for name in members if name in hint.__required_keys__]
    properties = {name: type_schema(hints[name], f"{where}.{name}") for name in members}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def union_schema(hints: Sequence[Any], where: str) -> dict[str, Any]:
    kinds = [type_schema(hint, where) for hint in hints if hint is not NoneType]
    if len(kinds) == 1:
        schema = kinds[0]
    elif all(kind.keys() == {"type"} and isinstance(kind["type"], str) for kind in kinds):
        names = sorted({kind["type"] for kind in kinds})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": kinds}
    if NoneType in hints:
        schema["nullable"] = True
    return schema


def enum_schema(values: list[Any], where: str) -> dict[str, Any]:
    if not values or any(type(value) not in SCALARS for value in values):
        raise ValueError(f"{where} lists {shown(values)}, expected one or more of int, float, str, bool and None")
    names = list(dict.fromkeys(JSON_TYPES[type(value)]["type"] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": values}


def read_docstring(doc: str) -> tuple[str, dict[str, str], str | None]:
    """Description, argument name -> description, and what is returned (None if it does not say)."""
    parts: dict[str, list[str]] = {"": []}
    heading = ""
    for line in doc.splitlines():
        if match := HEADING.fullmatch(line):
            heading = match[1]
            parts.setdefault(heading, [])
        else:
            parts[heading].append(line)
    arguments: dict[str, list[str]] = {}
    indent, lines = "", list[str]()
    for line in filter(str.strip, parts.get("Args", [])):
        match = ARGUMENT.fullmatch(line)
        deeper = lines and line.startswith(indent) and line[len(indent)].isspace()
        if match and not deeper:
            indent, lines = match["indent"], [match["text"].strip()]
            arguments[match["name"]] = lines
        else:
            lines.append(line.strip())  # goes on with the argument above
    returned = "\n".join(parts["Returns"]).strip() if "Returns" in parts else None
    return "\n".join(parts[""]).strip(), {name: " ".join(filter(None, lines)) for name, lines in arguments.items()}, returned
