# SPDX-License-Identifier: Apache-2.0
"""Grammars and schemas by llguidance: what models write keeps to them; and what is refused, with and without the extra [json]."""

import random
import re
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from test_constraints import byte_level, sentencepiece, write_model
from test_json_schema import assert_valid

import slm

pytest.importorskip("llguidance", reason="needs the extra [json]: pip install llguidance")

from slm.constraints import Pattern
from slm.grammars import Grammar, vocabulary_of

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "v": {"type": "integer", "minimum": 0, "maximum": 99},
                "sub": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["v", "sub"],
            "additionalProperties": False,
        }
    },
}
SHAPES = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, size: {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["kind", size],
            "additionalProperties": False,
        }
        for kind, size in (("circle", "radius"), ("square", "side"))
    ]
}
CLOSED = {"additionalProperties": False}
SCHEMAS = [
    ("When did men land on the moon? As JSON.", {"type": "string", "format": "date"}),
    ("Give a number that 5 divides.", {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 500}),
    ("Describe a shape.", SHAPES),
    (
        "How many of each room?",
        {"type": "object", "patternProperties": {"^room[0-9]$": {"type": "integer", "minimum": 0, "maximum": 9}}, **CLOSED}
        | {"maxProperties": 3},
    ),
    (
        "A person with an address.",
        {
            "allOf": [
                {"type": "object", "properties": {"name": {"type": "string", "maxLength": 15}}, "required": ["name"]},
                {"properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
            ],
            "additionalProperties": {"type": "boolean"},
            "properties": {"name": True, "city": True},
            "maxProperties": 2,
        },
    ),
    (
        "A host.",
        {
            "type": "object",
            "properties": {"ip": {"type": "string", "format": "ipv4"}, "id": {"type": "string", "format": "uuid"}},
            "required": ["ip", "id"],
            **CLOSED,
        },
    ),
]
ARITHMETIC = r"""
start: sum
sum: product (("+" | "-") product)*
product: value ("*" value)*
value: NUMBER | "(" sum ")"
NUMBER: /[1-9][0-9]{0,2}/
"""
GBNF = r"""
# sums
root    ::= product ([-+] product)*
product ::= value ("*" value)*
value   ::= number | "(" root ")"
number  ::= [1-9] [0-9]? [0-9]?
"""


@pytest.fixture(scope="module", params=[byte_level, sentencepiece], ids=["byte_level", "sentencepiece"])
def model(request, tmp_path_factory):
    with slm.load(write_model(tmp_path_factory.mktemp("model") / "model.gguf", request.param())) as loaded:
        yield loaded


def is_sum(text: str) -> bool:
    """By Python's own parser, to which the grammar's texts are a part of its expressions."""
    if not re.fullmatch(r"[0-9()+*-]+", text) or re.search(r"\*\*|\D0|^0|\d{4}|(^|[^\d)])[-+]|\)\(|\d\(|\)\d", text):
        return False
    try:
        compile(text, "", "eval")
    except SyntaxError:
        return False
    return True


@dataclass
class Note:
    tags: list  # of anything: not for the automaton
    author: Literal["Ann", "Bob"] | None
    due: int | None = None


def test_nullable_beside_what_is_left_to_llguidance() -> None:
    constraint = slm.json(Note)
    for text in ('{"tags":[1,{}],"author":null}', '{"tags":[],"author":"Bob","due":null}', '{"tags":[],"author":"Ann","due":7}'):
        assert constraint.matches(text)
    for text in ('{"tags":null,"author":null}', '{"tags":[],"author":"Eve"}', '{"tags":[],"author":null,"due":""}', "null"):
        assert not constraint.matches(text)
    days = {"type": "array", "items": {"$ref": "#/$defs/day"}, "$defs": {"day": {"type": "string", "format": "date"}}}
    for text in ("null", "[]", '["2026-11-30"]'):
        assert slm.json(days | {"nullable": True}).matches(text)
        assert slm.json(days | {"nullable": False}).matches(text) == (text != "null")
    named = {"type": "object", "properties": {"nullable": {"format": "date", "type": "string"}}, **CLOSED}
    assert slm.json(named).matches('{"nullable":"2026-11-30"}')


def test_a_union_as_pydantic_tells_its_branches_apart() -> None:
    square = {
        "properties": {"kind": {"const": "square", "type": "string"}, "side": {"type": "integer"}},
        "required": ["kind", "side"],
    }
    circle = {"properties": {"kind": {"const": "circle", "type": "string"}, "r": {"type": "number"}}, "required": ["kind", "r"]}
    schema = {
        "$defs": {"Square": square | {"type": "object"} | CLOSED, "Circle": circle | {"type": "object"} | CLOSED},
        "discriminator": {"mapping": {"square": "#/$defs/Square", "circle": "#/$defs/Circle"}, "propertyName": "kind"},
        "oneOf": [{"$ref": "#/$defs/Square"}, {"$ref": "#/$defs/Circle"}],
    }
    constraint = slm.json(schema)
    assert constraint.matches('{"kind": "square", "side": 3}')
    assert constraint.matches('{"kind": "circle", "r": 0.5}')
    assert not constraint.matches('{"kind": "circle", "side": 3}')


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_a_real_model_writes_valid_json(smollm2, number) -> None:
    question, schema = SCHEMAS[number]
    constraint = slm.json(schema)
    assert isinstance(constraint, Grammar)
    outputs = smollm2.chat(question, constrain=constraint, max_tokens=120, temperature=1.0, seed=number, n=8)
    finished = [output.text for output in outputs if output.finish_reason == "stop"]
    assert len(finished) >= 4
    for text in finished:
        assert_valid(text, schema)
        assert constraint.matches(text)
        assert not constraint.matches(text + " ")


def test_trees_of_any_depth(model) -> None:
    constraint = slm.json(TREE)
    outputs = model.generate("a", constrain=constraint, temperature=2.0, max_tokens=600, seed=4, n=20)
    finished = [output.text for output in outputs if output.finish_reason == "stop"]
    assert len(finished) > 10
    for text in finished:
        assert_valid(text, TREE)
    assert max(text.count('"sub"') for text in finished) > 2


@pytest.mark.parametrize("text", [ARITHMETIC, GBNF], ids=["lark", "gbnf"])
def test_sums(model, text) -> None:
    grammar = slm.grammar(text)
    outputs = model.generate("a", constrain=grammar, temperature=3.0, max_tokens=300, seed=1, n=40)
    finished = [output.text for output in outputs if output.finish_reason == "stop"]
    assert len(finished) > 10
    assert any("(" in text for text in finished)
    for text in finished:
        assert is_sum(text), text
        assert grammar.matches(text)
    for output in outputs:
        assert output.finish_reason == "stop" or len(output.tokens) == 300
    changed, rng = [], random.Random(1)
    for text in finished:
        at = rng.randrange(len(text))
        changed += [text[:at] + text[at + 1 :], text[:at] + rng.choice("0+*()") + text[at:]]
    assert 0 < sum(map(grammar.matches, changed)) < len(changed)
    for text in changed:
        assert grammar.matches(text) == is_sum(text), text


# ---- the same as by an automaton -------------------------------------------------------------------------------------------

TWICE = [
    ({"type": "array", "items": {"type": "integer", "minimum": -9, "maximum": 99}, "minItems": 1, "maxItems": 3}, "[1, -2,30]"),
    (
        {"properties": {"a": {"enum": ["x", "yz"]}, "b": {"type": "boolean"}}, "required": ["b"], "type": "object", **CLOSED},
        '{"b":true}',
    ),
]


@pytest.mark.parametrize(("schema", "example"), TWICE, ids=["array", "object"])
def test_what_both_can_do_they_do_alike(model, schema, example) -> None:
    """One language and the same draws give the same text, alone, in batches, as streams and in sessions."""
    by_automaton = slm.json(schema)
    by_grammar = slm.json({"allOf": [schema]})
    assert isinstance(by_automaton, Pattern)
    assert isinstance(by_grammar, Grammar)
    assert by_automaton.matches(example)
    assert by_grammar.matches(example)
    options = {"temperature": 1.5, "max_tokens": 80, "seed": 5}
    expected = model.generate(["a", "b"], constrain=by_automaton, n=3, logprobs=2, **options)
    found = model.generate(["a", "b"], constrain=by_grammar, n=3, logprobs=2, **options)
    for one, other in zip([*expected[0], *expected[1]], [*found[0], *found[1]], strict=True):
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.tokens == other.tokens
        assert one.logprobs == other.logprobs
    alone = model.generate("b", constrain=by_grammar, **options)
    assert alone.text == expected[1][0].text
    assert "".join(chunk.text for chunk in model.stream("b", constrain=by_grammar, **options)) == alone.text
    assert model.generate("b", constrain=by_grammar, processors=[lambda tokens, logits: None], **options).text == alone.text


def test_the_tokens_that_may_come(model) -> None:
    """Held against the automaton's, byte by byte of a text."""
    guide = slm.json({"allOf": [TWICE[1][0]]})._limits(model.tokenizer)["guide"]
    over = slm.json(TWICE[1][0])._over(model.tokenizer)
    n = model.tokenizer.vocab_size
    for number, text in enumerate(['{"b', '{"a":', '{"a": "', '{"a": "yz",', '{"b": true']):
        tokens = np.array([token for byte in text for token in [by_bytes(model.tokenizer)[byte.encode()]]], np.int32)
        bits = np.unpackbits(np.frombuffer(guide(number, tokens), np.uint8), bitorder="little")
        found = np.flatnonzero(bits[:n]).tolist()
        allowed = over.allowed(text.encode())
        assert found == allowed or (len(found) == 1 and found[0] in allowed)
        assert not bits[n:].any()


def by_bytes(tokenizer) -> dict[bytes, int]:
    return {tokenizer.token_bytes(id): id for id in reversed(range(tokenizer.vocab_size)) if id not in tokenizer.control_ids}


# ---- the end ----------------------------------------------------------------------------------------------------------------


def test_a_text_that_is_whole_with_its_last_token_has_stopped(smollm2) -> None:
    grammar = slm.grammar('start: "yes" | "no"')
    output = smollm2.generate("Is the sky blue?", constrain=grammar, max_tokens=1)
    assert (output.text, output.finish_reason) in [("yes", "stop"), ("no", "stop")]
    cut = smollm2.generate("Is the sky blue?", constrain=slm.grammar('start: "yes yes"'), max_tokens=1)
    assert cut.finish_reason == "length"
    assert "yes yes".startswith(cut.text)
    assert smollm2.generate("Is", constrain=grammar, max_tokens=0).text == ""
    open_end = slm.grammar("start: /a*/")
    assert smollm2.generate("Is", constrain=open_end, max_tokens=9, ignore_eos=True).finish_reason == "length"
    assert set(smollm2.generate("Is", constrain=open_end, max_tokens=9, temperature=2.0, seed=1).text) <= {"a"}


def test_what_must_come_is_not_drawn(smollm2) -> None:
    output = smollm2.generate("A", constrain=slm.grammar('start: "constitution" ("s" | "al")'), logprobs=1)
    assert output.text in ("constitutions", "constitutional")
    assert output.logprobs[0].logprob == 0
    assert output.logprobs[0].bytes == max(
        (
            smollm2.tokenizer.token_bytes(id)
            for id in range(len(smollm2.tokenizer))
            if is_start(smollm2.tokenizer.token_bytes(id))
        ),
        key=len,
    )


def is_start(piece: bytes) -> bool:
    return bool(piece) and b"constitution".startswith(piece)


def test_a_session_goes_on(smollm2) -> None:
    session = smollm2.session()
    grammar = slm.grammar('start: "yes" | "no"')
    assert session.send("Is the sky blue?", constrain=grammar).text in ("yes", "no")
    assert session.send("And the sea?", constrain=grammar).text in ("yes", "no")


def test_an_exception_leaves_what_came(smollm2) -> None:
    seen = []

    def stop(tokens, logits) -> None:
        seen.append(len(tokens))
        if len(seen) == 4:
            raise KeyError("enough")

    grammar = slm.grammar("start: /[a-z ]+/")
    stream = smollm2.stream("Once", constrain=grammar, processors=stop, max_tokens=12)
    with pytest.raises(KeyError):
        list(stream)
    rest = list(stream)
    assert rest[-1].finish_reason == "length"
    assert stream.output.text == smollm2.generate("Once", constrain=grammar, max_tokens=12).text


def test_many_more_texts_than_run_at_once(model) -> None:
    grammar = slm.grammar(ARITHMETIC)
    options = {"constrain": grammar, "temperature": 1.5, "max_tokens": 8}
    prompts = ["a" * (1 + i % 7) for i in range(80)]
    outputs = model.generate(prompts, seed=2, **options)
    assert [output.text for output in outputs] == [model.generate(prompt, seed=2, **options).text for prompt in prompts]


def test_threads_share_a_grammar(model) -> None:
    grammar, found = slm.grammar(ARITHMETIC), {}
    options = {"temperature": 1.5, "max_tokens": 20}
    expected = [model.generate("a", constrain=slm.grammar(ARITHMETIC), seed=i, **options).text for i in range(6)]

    def run(i: int) -> None:
        found[i] = model.generate("a", constrain=grammar, seed=i, **options).text

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(6)] == expected
    assert vocabulary_of(model.tokenizer) is vocabulary_of(model.tokenizer)


# ---- errors -----------------------------------------------------------------------------------------------------------------

WRONG = [
    ("start: foo", r'at 1\(8\): unknown name: "foo"'),
    ('start: "a" (\n', "grammar: 1"),
    ("", "grammar: "),
    ("root ::= foo", "Rule 'foo' not found"),
    ('root ::= "a', "line 1"),
    ("start: <|im_end|>", "unknown special token"),
    (r"start: /(?=a)b/", "look-around"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_grammars(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        slm.grammar(text)


def test_what_cannot_be_written(model) -> None:
    for text in ("start: a\na: b\nb: a", f"start: <[{model.tokenizer.eos_id}]>"):
        with pytest.raises(ValueError, match=r"no text that begins|no token for what must follow|Token range end too large"):
            model.generate("a", constrain=slm.grammar(text))
    for attribute in ("temperature", "max_tokens"):
        with pytest.raises(slm.UnsupportedError, match=f"a rule's {attribute} is not supported"):
            slm.grammar(f'start: a\na[{attribute}=1]: "a"')
    with pytest.raises(ValueError, match=r"grammar: panic: [^\n]*$"):  # without the backtrace
        model.generate("a", constrain=slm.grammar('start: a "!"\na[stop="x"]: /[a-z ]{1,30}/'), max_tokens=99)
    with pytest.raises(TypeError, match="text must be a str"):
        slm.grammar(3)
    with pytest.raises(ValueError, match="does not go with constrain"):
        model.generate("a", constrain=slm.grammar(ARITHMETIC), draft="lookup")


BEYOND = [
    ({"not": {}}, "the keyword 'not'"),
    ({"type": "string", "format": "date", "maxLenght": 3}, "#: the keyword 'maxLenght'"),
    ({"properties": {"a": {"allOf": [{"if": {}}]}}}, "#/properties/a/allOf/0: the keyword 'if'"),
    ({"type": "string", "format": "date", "nullable": 1}, "#/nullable: expected True or False, found 1"),
    ({"type": "string", "format": "no such"}, "llguidance: grammar: Unknown format: no such"),
    ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "llguidance: grammar: oneOf"),
    ({"$ref": "https://example.com/schema"}, "does not lie in this schema; nor by llguidance"),
]


@pytest.mark.parametrize(("schema", "message"), BEYOND, ids=lambda x: str(x)[:40])
def test_what_neither_does_is_named(schema, message) -> None:
    with pytest.raises(slm.UnsupportedError, match=re.escape(message)) as raised:
        slm.json(schema)
    assert "pip install" not in str(raised.value)


def test_without_the_extra(without_llguidance) -> None:
    with pytest.raises(slm.UnsupportedError, match=r"the keyword 'format'.*pip install \"slm-cpu\[json\]\""):
        slm.json({"type": "string", "format": "date"})
    with pytest.raises(slm.UnsupportedError) as raised:
        slm.json({"not": {}})
    assert "pip install" not in str(raised.value)
    with pytest.raises(slm.UnsupportedError, match=r"pip install \"slm-cpu\[json\]\""):
        slm.grammar(ARITHMETIC)


def test_what_is_too_large_is_refused_and_what_grows_too_large_is_named() -> None:
    for head in ("r", "R"):
        chain = "\n".join(f'{head}{i}: {head}{i + 1} "a"' for i in range(3000))
        with pytest.raises(slm.LimitError, match="3002 rules; at most 500"):
            slm.grammar(f'start: {head}0\n{chain}\n{head}3000: "b"')
    with pytest.raises(slm.LimitError, match="characters"):
        slm.grammar("start: " + "[" * 100_000)
    chained = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(3000)}
    with pytest.raises(slm.UnsupportedError, match="at most 500"):
        slm.json({"allOf": [{"$ref": "#/$defs/0"}], "$defs": chained | {"3000": {"type": "string"}}})
    items = slm.grammar('start: "a" s\ns: ' + " | ".join(f'"b" s "c{i}"' for i in range(1001)) + ' | "d"')
    with pytest.raises(slm.LimitError, match="items; max is 2000"):  # behind the "a"
        items.matches("abd")
    assert slm.grammar('start: "[temperature=3]"').matches("[temperature=3]")
    unknown = {"allOf": [{"type": "string"}], "properties": {"a": {"not": {}}}}
    with pytest.raises(slm.UnsupportedError, match="#/properties/a: the keyword 'not'"):
        slm.json(unknown)
