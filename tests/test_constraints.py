# SPDX-License-Identifier: Apache-2.0
"""Constraints: the automaton against Python's re, what may follow against a search of all tokens, and texts that keep to them."""

import random
import re
import threading
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import gguf_writer
import numpy as np
import pytest

import slm
from slm.expressions import Expressions

# ---- regular expressions -------------------------------------------------------------------------------------------------

ALPHABET = "ab0_ -é€😀\n"
ATOMS = [
    "a",
    "b",
    "0",
    "_",
    " ",
    "é",
    "€",
    "😀",
    ".",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    "[ab]",
    "[^ab]",
    "[a-b0]",
    r"[^\w é]",
]
ATOMS += [r"\.", "[]a]", "[a-]", r"\x61", r"\u20ac", r"[à-ÿ]", r"[\u0080-\U0010FFFF]", "(?:)", "{", "a{,b"]
QUANTIFIERS = ["*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}", "{0}"]


def random_pattern(rng: random.Random, depth: int = 0) -> str:
    """Groups in groups, each quantified or not."""
    branches = []
    for _ in range(1 if rng.random() < 0.7 else rng.randint(2, 3)):
        parts = []
        for _ in range(rng.randint(0 if depth else 1, 4)):
            if depth < 3 and rng.random() < 0.25:
                atom = f"({'?:' if rng.random() < 0.7 else ''}{random_pattern(rng, depth + 1)})"
            else:
                atom = rng.choice(ATOMS)
            quantifier = rng.choice(QUANTIFIERS) if rng.random() < 0.35 else ""
            parts.append(
                f"(?:{atom}){quantifier}" if quantifier and len(atom) > 1 and atom[0] not in "([\\" else atom + quantifier
            )
        branches.append("".join(parts))
    return "|".join(branches)


def test_automaton_matches_what_re_matches() -> None:
    rng = random.Random(1)
    strings = ["".join(s) for n in range(3) for s in product(ALPHABET, repeat=n)]
    matched = 0
    for _ in range(250):
        pattern = random_pattern(rng)
        ours = slm.regex(pattern)
        theirs = re.compile(pattern, re.ASCII)
        for text in strings + ["".join(rng.choices(ALPHABET, k=rng.randint(3, 9))) for _ in range(60)]:
            expected = theirs.fullmatch(text) is not None
            assert ours.matches(text) == expected, (pattern, text)
            matched += expected
    assert matched > 1500


def test_time_is_linear() -> None:
    """Patterns on which backtracking takes exponential time."""
    for pattern in ("(a*)*b", "(a|a)*b", "(a|aa)+b", "(.*a){20}b"):
        assert not slm.regex(pattern).matches("a" * 200_000)
    assert slm.regex("(a?){100}a{100}").matches("a" * 100)


@pytest.mark.parametrize(
    ("pattern", "position"),
    [
        (r"(a)\1", 3),
        (r"a(?=b)", 1),
        (r"(?<!a)b", 0),
        (r"(?i)a", 0),
        (r"(?P<x>a)", 0),
        (r"a\b", 1),
        (r"\Aa", 0),
        (r"a^b", 1),
        (r"a$b", 1),
        (r"(a$)", 2),
        (r"^a|b", 0),
        (r"a|b$", 3),
        (r"a*?", 2),
        (r"a++", 2),
        (r"a{2}{3}", 4),
        (r"*a", 0),
        (r"a|+", 2),
        (r"a)", 1),
        (r"(a", 0),
        (r"[a", 0),
        (r"[z-a]", 1),
        (r"[\d-z]", 1),
        (r"a{3,2}", 1),
        (r"a{100001}", 1),
        pytest.param("a{" + "9" * 5000 + "}", 1, id="digits"),
        (r"\p{L}", 0),
        (r"\u12", 0),
        ("a\\", 2),
    ],
)
def test_what_is_not_regular_is_refused_with_its_position(pattern: str, position: int) -> None:
    with pytest.raises(slm.UnsupportedError, match=rf"position {position}:"):
        slm.regex(pattern)


def test_anchors_at_the_ends_change_nothing() -> None:
    assert slm.regex("^ab$").matches("ab")
    assert slm.regex("^(a|b)$").matches("b")
    assert not slm.regex("^ab$").matches("ab\n")


def test_sizes() -> None:
    with pytest.raises(slm.LimitError, match="too large"):
        slm.regex("(a|b)*a(a|b){40}")
    with pytest.raises(slm.LimitError, match="too large"):
        slm.regex("(.{1000}){1000}")
    with pytest.raises(slm.UnsupportedError, match="groups in more than 100"):
        slm.regex("(" * 200 + ")" * 200)
    names = [f"name number {i}" for i in range(20_000)]
    many = slm.choice(names)
    assert many.matches("name number 12345")
    assert not many.matches("name number 20000")


def test_choice_and_its_arguments() -> None:
    constraint = slm.choice(["yes", "no", "yes, but", "naïve"])
    assert [constraint.matches(text) for text in ("yes", "no", "yes, but", "naïve", "ye", "yes,", "")] == [True] * 4 + [False] * 3
    assert repr(constraint) == "choice(['yes', 'no', 'yes, but', 'naïve']), 14 states"
    for wrong, error in [("yes", TypeError), ([], ValueError), ([1], TypeError), (3, TypeError), (["\ud800"], ValueError)]:
        with pytest.raises(error, match="texts"):
            slm.choice(wrong)
    with pytest.raises(TypeError, match="pattern must be a str"):
        slm.regex(3)
    with pytest.raises(TypeError, match="text must be a str"):
        constraint.matches(b"yes")


def test_intersection_and_difference() -> None:
    """Of all texts of two letters: what both match, and what one matches and the other does not; dead ends are cut off."""
    e = Expressions()
    first = e.concatenation([e.character([(97, 99)]), e.character([(97, 122)])])
    second = e.concatenation([e.character([(98, 122)]), e.character([(97, 98)])])
    both, only = e.compile(e.intersection(first, second)), e.compile(e.difference(first, second))
    for a, b in product("abcd", repeat=2):
        text = (a + b).encode()
        assert both.matches(text) == (a in "bc" and b in "ab")
        assert only.matches(text) == (a in "abc" and not (a in "bcd" and b in "ab"))
    assert both.n_states == 3
    with pytest.raises(ValueError, match="no text matches"):
        e.compile(e.intersection(e.text("abc"), e.text("abd")))


# ---- vocabularies ---------------------------------------------------------------------------------------------------------

PIECES = ["th", "the", '{"', '":', '", "', '"}', "true", "name", "value", "12", "00", " a", "aa", "aaa", "ab", "é", "€", "日本"]
PARTS = [b"\xe2\x82", b"\x82\xac", b"\xc3", b"\xa9a", b"\xe6\x97\xa5\xe6", b'\xa9"', b"\\u", b'\\"']


def byte_level() -> dict:
    """Single bytes, words, and parts of characters, in the alphabet of GPT-2; the last token ends texts."""
    letters = gguf_writer.byte_alphabet()
    tokens = [bytes([i]) for i in range(256)] + [piece.encode() for piece in PIECES] + PARTS
    pieces = list(dict.fromkeys("".join(letters[byte] for byte in token) for token in tokens))
    return {
        "tokenizer.ggml.model": ("string", "gpt2"),
        "tokenizer.ggml.pre": ("string", "smollm"),
        "tokenizer.ggml.tokens": ("array of string", [*pieces, "<tool>", "<pad>", "<end>"]),
        "tokenizer.ggml.token_type": ("array of int32", [1] * len(pieces) + [4, 5, 3]),
        "tokenizer.ggml.merges": ("array of string", []),
        "tokenizer.ggml.eos_token_id": ("uint32", len(pieces) + 2),
    }


def sentencepiece() -> dict:
    """Pieces with a marker for the space, and tokens of single bytes; a space is put before a text and taken off again."""
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)]]
    pieces += [piece.replace(" ", "▁") for piece in [*PIECES, " ", " the", ' {"', *map(chr, range(33, 127))]]
    return {
        "tokenizer.ggml.model": ("string", "llama"),
        "tokenizer.ggml.tokens": ("array of string", pieces),
        "tokenizer.ggml.scores": ("array of float32", [-float(i) for i in range(len(pieces))]),
        "tokenizer.ggml.token_type": ("array of int32", [2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259)),
        "tokenizer.ggml.bos_token_id": ("uint32", 1),
        "tokenizer.ggml.eos_token_id": ("uint32", 2),
    }


def write_model(path: Path, vocabulary: dict, n_rows: int = 0) -> Path:
    """A small Llama of random weights, with n_rows of the output layer less than tokens."""
    metadata, tensors = gguf_writer.tiny_llama()
    metadata = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")} | vocabulary
    metadata["llama.context_length"] = ("uint32", 2000)
    metadata.pop("llama.vocab_size", None)
    n = len(vocabulary["tokenizer.ggml.tokens"][1])
    rows = np.random.default_rng(3).normal(size=(n, 32)).astype(np.float32)
    gguf_writer.write_gguf(path, metadata, tensors | {"token_embd.weight": ("F32", (n, 32), rows)})
    return path


@pytest.fixture(scope="module", params=[byte_level, sentencepiece], ids=["byte_level", "sentencepiece"])
def model(request, tmp_path_factory):
    with slm.load(write_model(tmp_path_factory.mktemp("model") / "model.gguf", request.param())) as loaded:
        yield loaded


PATTERNS = [
    "the (a{3,9}|b) end",
    r'\{"name": "[^"\\]{0,5}", "value": (true|1200)\}',
    "[éa€日本😀]{2,12}",
    ".{0,3}[^a]",
    "(aaa){0,9}b?",
    r"<(tool|pad|end)>\d{1,2}",
]


@dataclass
class Brute:
    """What may follow, by trying every token with an automaton of what the pattern's texts begin with."""

    model: slm.Model
    constraint: slm.Constraint

    def __post_init__(self) -> None:
        tokenizer = self.model.tokenizer
        kinds = [tokenizer._core.kind(id) for id in range(tokenizer.vocab_size)]
        self.tokens = {id: tokenizer.token_bytes(id) for id, kind in enumerate(kinds) if kind in (1, 4, 6)}
        self.bytes_behind: dict[bytes, list[int]] = {}

    def next_bytes(self, text: bytes) -> list[int]:
        """By the tokens of one byte: both vocabularies have all of them."""
        if text not in self.bytes_behind:
            allowed = self.constraint._over(self.model.tokenizer).allowed(text)
            self.bytes_behind[text] = sorted({self.tokens[id][0] for id in allowed if len(self.tokens[id]) == 1})
        return self.bytes_behind[text]

    def may_follow(self, text: bytes, token: bytes) -> bool:
        return all(byte in self.next_bytes(text + token[:i]) for i, byte in enumerate(token))

    def forced(self, text: bytes) -> int | None:
        """The longest token on the only way on, where no token covers it and more."""
        way = b""
        while not self.constraint._automaton.matches(text + way) and len(self.next_bytes(text + way)) == 1:
            way += bytes(self.next_bytes(text + way))
        ends = self.constraint._automaton.matches(text + way) and not self.next_bytes(text + way)
        reaching = [token for token in self.tokens.values() if token.startswith(way) and (token != way or not ends)]
        within = [id for id, token in self.tokens.items() if way.startswith(token)]
        if not within or any(len(token) > len(way) for token in reaching):
            return None
        best = max(within, key=lambda id: (len(self.tokens[id]), -id))
        return best


def test_allowed_tokens_are_those_of_a_search(model) -> None:
    rng = random.Random(5)
    for pattern in PATTERNS:
        constraint = slm.regex(pattern)
        brute = Brute(model, constraint)
        over = constraint._over(model.tokenizer)
        for _ in range(6):
            text = b""
            for _ in range(30):
                allowed = over.allowed(text)
                assert allowed == [id for id, token in brute.tokens.items() if brute.may_follow(text, token)], (pattern, text)
                assert allowed == over.allowed(text)  # as it was kept
                if not allowed:
                    break
                text += brute.tokens[rng.choice(allowed)]
            if not allowed:
                assert re.fullmatch(pattern, text.decode())
    assert over.allowed(b"no such text") == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_texts_keep_to_the_pattern(model, pattern) -> None:
    """By any path of the API, sampled or not; and only what must come comes without being drawn."""
    constraint = slm.regex(pattern)
    brute = Brute(model, constraint)
    finished = 0
    for seed in range(12):
        options = {"constrain": constraint, "seed": seed, "temperature": [0.0, 1.0, 3.0][seed % 3], "max_tokens": 120}
        if seed % 4 == 3:
            options |= {"top_k": 5, "top_p": 0.8}
        output = model.generate("the value", **options)
        if output.finish_reason == "stop":
            finished += 1
            assert re.fullmatch(pattern, output.text), output
            assert constraint.matches(output.text)
        else:
            assert len(output.tokens) == 120
        assert "".join(chunk.text for chunk in model.stream("the value", **options)) == output.text
        batch = model.generate(["the value", "a", "the value"], **options)
        assert [o.tokens for o in batch[::2]] == [output.tokens] * 2
        text = b""
        for id in output.tokens:
            must = brute.forced(text)
            assert must is None or brute.tokens[must] == brute.tokens[id], (text, must, id)
            assert brute.may_follow(text, brute.tokens[id])
            text += brute.tokens[id]
    assert finished >= 8


@pytest.mark.parametrize("pattern", [PATTERNS[2], "[^b]{3,9}"], ids=["few", "many"])
def test_greedy_takes_the_largest_logit_of_what_may_come(model, pattern) -> None:
    constraint = slm.regex(pattern)
    brute, over = Brute(model, constraint), constraint._over(model.tokenizer)
    prompt = model.tokenizer.encode("the")
    output = model.generate(prompt, constrain=constraint)
    detailed = model.generate(prompt, constrain=constraint, logprobs=model.tokenizer.vocab_size)
    assert detailed.tokens == output.tokens
    end = model.tokenizer.end_ids[0]
    text, tokens = b"", list(prompt)
    for id, entry in zip([*output.tokens, end], [*detailed.logprobs, None], strict=True):
        allowed = over.allowed(text) + ([end] if constraint._automaton.matches(text) else [])
        logits = model.forward(tokens, logits="last").logits[0]
        expected = brute.forced(text) if brute.forced(text) is not None else max(sorted(allowed), key=lambda id: logits[id])
        if len(allowed) > 1 or id != end:
            assert id == expected
        if entry and brute.forced(text) is None:
            total = np.log(np.exp(logits[allowed].astype(float)).sum())
            assert {top.token for top in entry.top} == set(allowed)
            assert all(abs(top.logprob - (logits[top.token] - total)) < 1e-5 for top in entry.top)
        text += brute.tokens.get(id, b"")
        tokens.append(id)


def test_end_tokens_come_where_the_text_matches(model) -> None:
    assert model.generate("a", constrain=slm.regex(""), temperature=1.0).tokens == []
    lengths = set()
    for seed in range(20):
        output = model.generate("a", constrain=slm.regex("a*"), temperature=3.0, seed=seed, max_tokens=300)
        assert output.text == "a" * len(output.text)
        lengths.add(len(output.text))
    assert len(lengths) > 3
    output = model.generate("a", constrain=slm.regex("a*"), ignore_eos=True, max_tokens=30)
    assert (len(output.tokens), output.finish_reason) == (30, "length")
    output = model.generate("a", constrain=slm.choice(["the name", "the value"]), ignore_eos=True)
    assert output.text in ("the name", "the value")
    assert output.finish_reason == "stop"
    assert model.generate("a", constrain=slm.choice(["aaaaaaaa"]), max_tokens=1).text == "aaa"
    assert model.generate("a", constrain=slm.choice(["aaaaaaaa"]), max_tokens=0).tokens == []


def test_what_the_vocabulary_cannot_write_is_an_error(tmp_path) -> None:
    vocabulary = sentencepiece()
    keep = [i for i in range(len(vocabulary["tokenizer.ggml.tokens"][1])) if not 3 <= i < 259]
    for key in ("tokens", "scores", "token_type"):
        kind, values = vocabulary[f"tokenizer.ggml.{key}"]
        vocabulary[f"tokenizer.ggml.{key}"] = (kind, [values[i] for i in keep])
    with slm.load(write_model(tmp_path / "model.gguf", vocabulary)) as model:
        assert model.generate("a", constrain=slm.choice(["日本", "ö"])).text == "日本"
        with pytest.raises(slm.UnsupportedError, match="the vocabulary has no token for what must follow 1 tokens"):
            model.generate("a", constrain=slm.choice(["aö"]))
        with pytest.raises(slm.UnsupportedError, match=r"prompt\[1\].*has no token for what must follow 0 tokens"):
            model.generate(["a" * 60, "a"], constrain=slm.choice(["ö"]))


def test_sessions_go_on_behind_what_had_to_come(model) -> None:
    """The state holds all that was said, but for a last token that has not run, as without a constraint."""
    ids = model.tokenizer.encode("the value")
    session = model._open_core().session()
    from slm.generation import Run

    for text in ("aaaaaaaaaa", "the name", "a"):
        record = slm.GenerateOptions(constrain=slm.choice([text]))
        output = Run(session, model.tokenizer, model.end_ids, ids, record, threads=1, n_cached=0).finish()
        assert output.text == text
        assert session.length == len(ids) + len(output.tokens) - 1
        session.rewind(0)


def test_threads_share_a_constraint(model) -> None:
    constraint = slm.regex(PATTERNS[1])
    expected = [model.generate("a", constrain=slm.regex(PATTERNS[1]), temperature=2.0, seed=i).text for i in range(8)]
    found: dict[int, str] = {}

    def run(i: int) -> None:
        found[i] = model.generate("a", constrain=constraint, temperature=2.0, seed=i).text

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(8)] == expected


def test_arguments(model) -> None:
    for wrong in ("yes", ["yes"], 3, slm.regex):
        with pytest.raises(TypeError, match=r"constrain must be slm\.choice"):
            model.generate("a", constrain=wrong)
    with pytest.raises(ValueError, match="does not go with constrain"):
        model.generate("a", constrain=slm.choice(["a"]), draft="lookup")


# ---- a real model -----------------------------------------------------------------------------------------------------------


def test_real_model(smollm2) -> None:
    question = "Is the sky blue on a clear day? Answer yes or no."
    output = smollm2.chat(question, constrain=slm.choice(["yes", "no"]))
    assert (str(output), output.finish_reason) == ("yes", "stop")
    pattern = r"[A-Z][a-z]{2,8} [1-3]?\d, \d{4}"
    date = smollm2.chat("On which day did men first land on the moon?", constrain=slm.regex(pattern))
    assert re.fullmatch(pattern, date.text)
    session = smollm2.session()
    assert session.send(question, constrain=slm.choice(["yes", "no"])).text == "yes"
    assert session.send("Why?", max_tokens=10).usage.prompt_tokens > session.length - 11
