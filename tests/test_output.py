# SPDX-License-Identifier: Apache-2.0
"""Outputs and other records: their fields, how they are shown, and OpenAI's form of them."""

import dataclasses

import pytest

import slm
from slm.output import Timings, Usage


def make_output(text="one\ntwo"):
    return slm.Output(text, [1, 2, 3], finish_reason="stop", usage=Usage(5, 3), timings=Timings(0.5, 0.25, 5, 2), seed=7)


def test_output_record():
    output = make_output()
    assert str(output) == "one\ntwo"
    assert f"{output:_>9}" == "__one\ntwo"
    assert repr(output) == r"Output('one\ntwo', 3 tokens, finish_reason='stop', seed=7, 8.0 tokens/s)"
    assert "\n" not in repr(make_output("x\n" * 500))
    assert len(repr(make_output("x\n" * 500))) < 200
    assert output.usage.total_tokens == 8
    assert (output.timings.prefill_tokens_per_second, output.timings.decode_tokens_per_second) == (10.0, 8.0)
    assert Timings(0.0, 0.0, 0, 0).decode_tokens_per_second == 0.0
    assert dataclasses.asdict(output)["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "cut_tokens": 0,
        "drafted_tokens": 0,
        "accepted_tokens": 0,
    }
    assert output.logprobs is None
    for record in (output, output.usage, output.timings, slm.Chunk("a", [1])):
        assert not hasattr(record, "__dict__")
        with pytest.raises(AttributeError):
            setattr(record, dataclasses.fields(record)[0].name, 0)


def test_output_html_escapes_the_text():
    html = make_output("<script>alert(1)</script>&")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in html


def test_openai_dictionaries():
    output = make_output()
    found = output.to_openai(model="tiny")
    assert found.pop("id").startswith("cmpl-")
    assert found.pop("created") > 1.7e9
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}}
    choice = {"index": 0, "text": "one\ntwo", "logprobs": None, "finish_reason": "stop"}
    assert found == {"object": "text_completion", "model": "tiny", "choices": [choice], "usage": usage}
    chat = dataclasses.replace(output, kind="chat.completion").to_openai()
    assert chat["id"].startswith("chatcmpl-")
    assert chat["id"] != dataclasses.replace(output, kind="chat.completion").to_openai()["id"]
    assert (chat["object"], chat["model"]) == ("chat.completion", "slm")
    message = {"role": "assistant", "content": "one\ntwo", "refusal": None}
    assert chat["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]


def test_kinds_of_outputs(smollm2):
    session = smollm2.session()
    session.send("Hi", max_tokens=1)
    outputs = [smollm2.generate("Hi", max_tokens=1), smollm2.chat("Hi", max_tokens=1), session.send("So?", max_tokens=1)]
    assert [output.kind for output in outputs] == ["text_completion", "chat.completion", "chat.completion"]
    assert outputs[2].to_openai()["usage"]["prompt_tokens_details"]["cached_tokens"] > 5


def test_html_of_records(smollm2):
    html = smollm2._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == html.count("</tr>") == len(smollm2.info.rows()) + 1
    assert "134,515,008" in html
    assert smollm2.info._repr_html_() in html.replace(html[html.rindex("<tr>") :], "</table>")
    score = slm.Score(-1.5, False, [-0.5, -1.0], [5, 6], ["<b>", "\n"])
    assert "<b>" not in score._repr_html_()
    assert (
        '<span title="p = 0.607, logprob = -0.500" style="background: hsl(73 70% 50% / 0.35)">&lt;b&gt;</span>'
        in score._repr_html_()
    )
    assert ">5 </span>" in dataclasses.replace(score, pieces=[])._repr_html_()
    assert repr(score) == r"Score('<b>\n', logprob=-1.5000, 2 tokens)"


def test_chunk_record():
    assert str(slm.Chunk("a", [1])) == "a"
    assert slm.Chunk("a", [1]).finish_reason is None
