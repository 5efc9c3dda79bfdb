# SPDX-License-Identifier: Apache-2.0
"""Every keyword is checked, and the message says which one, what it was and what it may be."""

import math

import numpy as np
import pytest

import slm
from slm.options import GenerateOptions, check_ids

# keyword, wrong value, exception, parts of the message
WRONG = [
    ("max_tokens", -1, ValueError, ["max_tokens", "from 0 to 2147483647", "-1"]),
    ("max_tokens", 2**31, ValueError, ["max_tokens", "from 0 to 2147483647", "2147483648"]),
    ("max_tokens", 10**4999, ValueError, ["max_tokens", "from 0 to 2147483647"]),
    ("max_tokens", True, TypeError, ["max_tokens", "from 0 to 2147483647", "bool True"]),
    ("max_tokens", 3.0, TypeError, ["max_tokens", "integer", "float 3.0"]),
    ("max_tokens", "3", TypeError, ["max_tokens", "integer", "str '3'"]),
    ("max_tokens", None, TypeError, ["max_tokens", "integer", "None"]),
    ("max_tokens", np.float32(3), TypeError, ["max_tokens", "integer"]),
    ("ignore_eos", 1, TypeError, ["ignore_eos", "True or False", "int 1"]),
    ("ignore_eos", "no", TypeError, ["ignore_eos", "True or False", "str 'no'"]),
    ("temperature", -0.1, ValueError, ["temperature", "from 0 to 100", "-0.1"]),
    ("temperature", 100.5, ValueError, ["temperature", "from 0 to 100", "100.5"]),
    ("temperature", math.nan, ValueError, ["temperature", "from 0 to 100", "nan"]),
    ("temperature", math.inf, ValueError, ["temperature", "from 0 to 100", "inf"]),
    ("temperature", np.float32("nan"), ValueError, ["temperature", "nan"]),
    ("temperature", 10**400, ValueError, ["temperature", "from 0 to 100"]),
    ("temperature", True, TypeError, ["temperature", "number", "bool True"]),
    ("temperature", 1j, TypeError, ["temperature", "number", "complex"]),
    ("temperature", "0.5", TypeError, ["temperature", "number", "str '0.5'"]),
    ("top_k", -1, ValueError, ["top_k", "from 0 to 2147483647", "-1"]),
    ("top_k", 2**31, ValueError, ["top_k", "from 0 to 2147483647"]),
    ("top_k", False, TypeError, ["top_k", "bool False"]),
    ("top_p", 0, ValueError, ["top_p", "above 0 and at most 1", "0"]),
    ("top_p", -0.0, ValueError, ["top_p", "above 0 and at most 1"]),
    ("top_p", 1.0001, ValueError, ["top_p", "above 0 and at most 1", "1.0001"]),
    ("top_p", math.nan, ValueError, ["top_p", "above 0 and at most 1", "nan"]),
    ("min_p", -0.1, ValueError, ["min_p", "from 0 to 1", "-0.1"]),
    ("min_p", 1.5, ValueError, ["min_p", "from 0 to 1", "1.5"]),
    ("min_p", math.nan, ValueError, ["min_p", "from 0 to 1", "nan"]),
    ("min_p", None, TypeError, ["min_p", "number", "NoneType"]),
    ("typical_p", 0, ValueError, ["typical_p", "above 0 and at most 1"]),
    ("typical_p", 1.1, ValueError, ["typical_p", "above 0 and at most 1", "1.1"]),
    ("typical_p", "x", TypeError, ["typical_p", "number", "str 'x'"]),
    ("repetition_penalty", 0, ValueError, ["repetition_penalty", "above 0 and at most 100", "0"]),
    ("repetition_penalty", -1.0, ValueError, ["repetition_penalty", "above 0 and at most 100", "-1.0"]),
    ("repetition_penalty", math.inf, ValueError, ["repetition_penalty", "above 0 and at most 100", "inf"]),
    ("repetition_penalty", True, TypeError, ["repetition_penalty", "bool True"]),
    ("presence_penalty", 101, ValueError, ["presence_penalty", "from -100 to 100", "101"]),
    ("presence_penalty", "1", TypeError, ["presence_penalty", "str '1'"]),
    ("frequency_penalty", math.nan, ValueError, ["frequency_penalty", "from -100 to 100", "nan"]),
    ("frequency_penalty", [1], TypeError, ["frequency_penalty", "list"]),
    ("penalty_window", 0, ValueError, ["penalty_window", "from 1 to 2147483647", "0"]),
    ("penalty_window", -1, ValueError, ["penalty_window", "from 1 to 2147483647", "-1"]),
    ("penalty_window", 6.0, TypeError, ["penalty_window", "integer", "float 6.0"]),
    ("no_repeat_ngram", -1, ValueError, ["no_repeat_ngram", "from 0 to 2147483647", "-1"]),
    ("no_repeat_ngram", 2.0, TypeError, ["no_repeat_ngram", "integer", "float 2.0"]),
    ("logit_bias", [(5, 1.0)], TypeError, ["logit_bias", "mapping of token ids to numbers", "list"]),
    ("logit_bias", {"5": 1.0}, TypeError, ["a key of logit_bias", "integer", "str '5'"]),
    ("logit_bias", {-1: 1.0}, ValueError, ["a key of logit_bias", "from 0 to", "-1"]),
    ("logit_bias", {5: math.inf}, ValueError, ["logit_bias[5]", "from -1e+09 to 1e+09", "inf"]),
    ("logit_bias", {5: math.nan}, ValueError, ["logit_bias[5]", "nan"]),
    ("logit_bias", {5: "1"}, TypeError, ["logit_bias[5]", "number", "str '1'"]),
    ("logit_bias", {5: None}, TypeError, ["logit_bias[5]", "number", "NoneType"]),
    ("n", 0, ValueError, ["n must be", "from 1 to 1024", "0"]),
    ("n", 1025, ValueError, ["n must be", "from 1 to 1024", "1025"]),
    ("n", 2.0, TypeError, ["n must be", "integer", "float 2.0"]),
    ("n", 2, ValueError, ["n is 2", "temperature 0", "the same"]),
    ("logprobs", -1, ValueError, ["logprobs", "from 0 to 1024", "-1"]),
    ("logprobs", 1025, ValueError, ["logprobs", "from 0 to 1024", "1025"]),
    ("logprobs", True, TypeError, ["logprobs", "integer", "bool True"]),
    ("echo", 1, TypeError, ["echo", "True or False", "int 1"]),
    ("processors", 3, TypeError, ["processors", "functions of (tokens, logits)", "int 3"]),
    ("processors", "abc", TypeError, ["processors", "functions of (tokens, logits)", "str 'abc'"]),
    ("processors", [max, 3], TypeError, ["processors[1]", "a function of (tokens, logits)", "int 3"]),
    ("seed", -1, ValueError, ["seed", "from 0 to 18446744073709551615", "-1"]),
    ("seed", 2**64, ValueError, ["seed", "from 0 to 18446744073709551615", "18446744073709551616"]),
    ("seed", 1.5, TypeError, ["seed", "integer", "float 1.5"]),
    ("seed", True, TypeError, ["seed", "bool True"]),
    ("stop", "", ValueError, ["stop[0]", "empty"]),
    ("stop", ["a", ""], ValueError, ["stop[1]", "empty"]),
    ("stop", ["a", 3], TypeError, ["stop[1]", "str", "int 3"]),
    ("stop", b"a", TypeError, ["stop", "str", "bytes"]),
    ("stop", {"a"}, TypeError, ["stop", "sequence of str", "set"]),
    ("stop", None, TypeError, ["stop", "sequence of str", "NoneType"]),
    ("stop", "a\ud800", ValueError, ["stop", "surrogate", "index 1"]),
]


@pytest.mark.parametrize(
    ("keyword", "value", "exception", "parts"), WRONG, ids=lambda x: str(x)[:24] if isinstance(x, str) else ""
)
def test_wrong_values(keyword, value, exception, parts):
    with pytest.raises(exception) as caught:
        GenerateOptions(**{keyword: value})
    assert type(caught.value) is exception
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 200


def test_numpy_scalars_and_edges_are_accepted():
    options = GenerateOptions(
        max_tokens=np.int64(0),
        ignore_eos=np.bool_(True),
        temperature=np.float32(0.5),
        top_k=np.uint8(40),
        top_p=np.float64(1.0),
        min_p=np.float32(0.25),
        no_repeat_ngram=np.int8(3),
        logit_bias={np.int64(5): np.float32(-1.5), 6: -math.inf},
        seed=np.uint64(2**64 - 1),
        stop="x",
    )
    assert options == GenerateOptions(
        max_tokens=0,
        ignore_eos=True,
        temperature=0.5,
        top_k=40,
        top_p=1.0,
        min_p=0.25,
        no_repeat_ngram=3,
        logit_bias={5: -1.5, 6: -math.inf},
        seed=2**64 - 1,
        stop=("x",),
    )
    assert [type(v) for v in (options.max_tokens, options.temperature, options.seed)] == [int, float, int]
    assert GenerateOptions(temperature=100, top_p=5e-324).temperature == 100.0
    with pytest.raises(AttributeError):
        options.max_tokens = 3


def test_seed_is_drawn_and_recorded():
    drawn = {GenerateOptions().seed for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 <= seed < 2**64 for seed in drawn)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("max_token", "max_tokens"),
        ("max_new_tokens", "max_tokens"),
        ("response_format", "constrain"),
        ("temprature", "temperature"),
        ("do_sample", "temperature"),
        ("topp", "top_p"),
        ("repeat_penalty", "repetition_penalty"),
        ("repeat_last_n", "penalty_window"),
    ],
)
def test_unknown_keyword_names_the_nearest(typed, meant):
    with pytest.raises(TypeError, match=rf"generate\(\) has no option '{typed}'; did you mean '{meant}'\?"):
        GenerateOptions.of("generate", {typed: 1})


@pytest.mark.parametrize(
    ("typed", "instead"),
    [("stream", r"stream\(\) of a model or a session"), ("tool_choice", "constrain="), ("tools", r"chat\(\) and session\(\)")],
)
def test_what_is_no_option_but_something_else(typed, instead):
    with pytest.raises(TypeError, match=rf"send\(\) has no option '{typed}': .*{instead}"):
        GenerateOptions.of("send", {typed: 1})


@pytest.mark.parametrize(("name", "value"), [("top_k", 40), ("top_p", 0.95), ("min_p", 0.05), ("typical_p", 0.5)])
def test_what_is_for_sampling_asks_for_a_temperature(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}, and without a temperature nothing is sampled"):
        GenerateOptions.of("generate", {name: value})
    for temperature in (0, 0.7):
        assert getattr(GenerateOptions.of("generate", {name: value, "temperature": temperature}), name) == value
    GenerateOptions.of("generate", {"top_k": 1, "top_p": 1.0, "min_p": 0.0, "typical_p": 1})  # greedy, as asked


def test_unknown_keyword_without_a_near_one_lists_them():
    with pytest.raises(TypeError, match="'zzz'; it has max_tokens, ignore_eos, temperature, top_k, top_p, min_p, typical_p, "):
        GenerateOptions.of("generate", {"zzz": 1})


@pytest.mark.parametrize("function", ["stream", "send"])
def test_one_answer_where_there_is_room_for_one(function):
    with pytest.raises(ValueError, match=rf"n must be 1 for {function}\(\), which gives one answer, not 3"):
        GenerateOptions.of(function, {"n": 3, "temperature": 1.0})
    assert GenerateOptions.of("generate", {"n": 3, "temperature": 1.0}).n == 3


LOAD = [
    ({"context": 0}, ValueError, ["context", "from 1", "0"]),
    ({"context": True}, TypeError, ["context", "bool True"]),
    ({"context": 2.0}, TypeError, ["context", "integer"]),
    ({"kv": "f16"}, ValueError, ["kv", "'f32', 'bf16' or 'int8'", "'f16'"]),
    ({"kv": 1}, ValueError, ["kv", "'f32', 'bf16' or 'int8'", "1"]),
    ({"kv": "int4"}, ValueError, ["kv", "'f32', 'bf16' or 'int8'", "'int4'"]),
    ({"threads": 0}, ValueError, ["threads", "from 1 to 256", "0"]),
    ({"threads": 257}, ValueError, ["threads", "from 1 to 256", "257"]),
    ({"threads": False}, TypeError, ["threads", "bool False"]),
    ({"offline": 1}, TypeError, ["offline", "True or False"]),
    ({"progress": 1}, TypeError, ["progress", "int 1"]),
    ({"adapter": 3}, TypeError, ["adapter", "a path", "3"]),
    ({"precision": "highest"}, ValueError, ["precision", "'default' or 'high'", "'highest'"]),
    ({"quantize": "q4"}, ValueError, ["quantize", "'q8_0'", "'q4_0'", "not 'q4'"]),
    ({"quantize": 4}, ValueError, ["quantize", "'q8_0'", "not 4"]),
    ({"revision": "main"}, ValueError, ["revision goes with a name on the Hugging Face Hub"]),
    ({"revision": ""}, ValueError, ["revision is empty"]),
    ({"revision": 1}, TypeError, ["revision must be a str"]),
    ({"n_ctx": 5}, TypeError, ["'n_ctx'", "did you mean 'context'?"]),
    ({"thread": 5}, TypeError, ["'thread'", "did you mean 'threads'?"]),
]


@pytest.mark.parametrize(("keywords", "exception", "parts"), LOAD, ids=lambda x: str(x)[:24] if isinstance(x, dict) else "")
def test_load_checks_before_it_opens(keywords, exception, parts):
    with pytest.raises(exception) as caught:
        slm.load("/nonexistent/model.gguf", **keywords)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("function", [slm.load, slm.load_tokenizer, slm.inspect])
def test_source_must_be_a_path_or_name(function):
    with pytest.raises(TypeError, match=r"source must be a path or a name, not int 3"):
        function(3)
    with pytest.raises(FileNotFoundError):
        function("/nonexistent/model.gguf")


def test_ids_are_checked_with_their_position():
    assert check_ids("prompt", (np.int32(3), 4), 5) == [3, 4]
    with pytest.raises(ValueError, match=r"prompt\[1\] must be a token id from 0 to 4, not 5"):
        check_ids("prompt", [0, 5], 5)
    with pytest.raises(ValueError, match=r"prompt\[0\] must be a token id from 0 to 4, not -1"):
        check_ids("prompt", [-1], 5)
    with pytest.raises(TypeError, match=r"prompt\[2\] must be a token id, not bool True"):
        check_ids("prompt", [0, 1, True], 5)
    with pytest.raises(TypeError, match=r"prompt\[0\] must be a token id, not float 1.0"):
        check_ids("prompt", [1.0], 5)
