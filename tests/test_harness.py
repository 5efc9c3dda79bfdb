# SPDX-License-Identifier: Apache-2.0
"""slm.harness: lm-evaluation-harness runs tasks of local files over a model, and gets what plain calls of the model give."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.tasks import TaskManager  # noqa: E402

import slm  # noqa: E402
from slm.harness import HarnessModel  # noqa: E402

QUESTIONS = [
    {"question": "The capital of France is", "choices": ["Paris", "Rome", "a banana"], "answer": 0},
    {"question": "Two and two make", "choices": ["nine", "four", "a sea"], "answer": 1},
    {"question": "Ice is made of", "choices": ["fire", "sand", "water"], "answer": 2},
    {"question": "The opposite of hot is", "choices": ["hot", "cold", "Tuesday"], "answer": 0},
]


@pytest.fixture(scope="module")
def harness(smollm2):
    return HarnessModel(smollm2)


def requests(*args):
    return [SimpleNamespace(args=pair) for pair in args]


def evaluate(model, folder, monkeypatch, task, **options):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    tasks = [{"task": "local"} | source | task]
    known = TaskManager(include_defaults=False)  # reading the harness's own tasks takes seconds
    return lm_eval.simple_evaluate(model=model, tasks=tasks, task_manager=known, bootstrap_iters=0, **options)


def test_multiple_choice(harness, smollm2, tmp_path, monkeypatch):
    task = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
    }
    task["metric_list"] = [{"metric": "acc"}, {"metric": "acc_norm"}]
    result = evaluate(harness, tmp_path, monkeypatch, task, log_samples=True)
    hits = []
    for q, sample in zip(QUESTIONS, result["samples"]["local"], strict=True):
        scores = smollm2.score([(q["question"], f" {choice}") for choice in q["choices"]])
        assert [float(answer[0][0]) for answer in sample["resps"]] == pytest.approx([score.logprob for score in scores])
        hits.append(np.argmax([score.logprob for score in scores]) == q["answer"])
    assert result["results"]["local"]["acc,none"] == np.mean(hits) >= 0.5


def test_generate_with_a_chat_template(harness, smollm2, tmp_path, monkeypatch):
    task = {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{choices[answer]}}"}
    task |= {"generation_kwargs": {"until": ["."], "max_gen_toks": 12}, "metric_list": [{"metric": "exact_match"}]}
    result = evaluate(harness, tmp_path, monkeypatch, task, log_samples=True, apply_chat_template=True)
    for q, sample in zip(QUESTIONS, result["samples"]["local"], strict=True):
        assert sample["resps"] == [[smollm2.chat(q["question"], max_tokens=12, stop=".").text]]


def test_rolling(smollm2_path):
    text = "The quick brown fox jumps over the lazy dog. " * 3
    with slm.load(smollm2_path, context=12) as model:
        harness = HarnessModel(model)
        ids = model.tokenizer.encode(text)
        assert len(ids) > 24
        found = harness.loglikelihood_rolling(requests((text,), ("Hi there",), ("",)))
        padded, total = [model.tokenizer.bos_id, *ids], 0.0
        for end in range(12, len(ids) + 12, 12):  # the last window reaches back to be full
            last, before = min(end, len(ids)), end - 12
            total += model.logprobs(padded[last - 12 : last + 1])[before - last :].sum()
        assert found == pytest.approx(
            [total, model.perplexity([model.tokenizer.bos_id, *model.tokenizer.encode("Hi there")]).nll * -2, 0]
        )


def test_samples_of_a_repeated_text(harness, smollm2, tmp_path, monkeypatch):
    kwargs = {"until": ["."], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    task = {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "x", "repeats": 3}
    task |= {"generation_kwargs": kwargs, "metric_list": [{"metric": "exact_match"}]}
    result = evaluate(harness, tmp_path, monkeypatch, task, log_samples=True, random_seed=7)
    answers = [sample["resps"][0] for sample in result["samples"]["local"]]
    assert all(len(set(samples)) == 3 for samples in answers)
    again = evaluate(harness, tmp_path, monkeypatch, task, log_samples=True, random_seed=7)
    assert answers == [sample["resps"][0] for sample in again["samples"]["local"]]
    asked = [("A cat", kwargs | {"seed": 5}), ("A dog", kwargs | {"seed": 5}), ("A cat", kwargs | {"seed": 5})]
    cats = smollm2.generate("A cat", n=2, seed=5, temperature=1.0, max_tokens=6, stop=".")
    dog = smollm2.generate("A dog", seed=5, temperature=1.0, max_tokens=6, stop=".")
    assert harness.generate_until(requests(*asked)) == [cats[0].text, dog.text, cats[1].text]


def test_what_is_refused(harness):
    with pytest.raises(ValueError, match="max_gen_toks is 8192, and the context of the model has 8192 positions"):
        harness.generate_until(requests(("Hi", {"max_gen_toks": 8192})))
    with pytest.raises(ValueError, match="apply_chat_template must be True or False, not 'tool_use'"):
        harness.chat_template("tool_use")
    assert "<|im_start|>" in harness.chat_template(True)
    assert harness.chat_template(False) is None


def test_a_long_context_loses_its_beginning(smollm2_path, caplog):
    with slm.load(smollm2_path, context=12) as model:
        harness = HarnessModel(model)
        ids = model.tokenizer.encode(" one two three four five six seven eight nine ten eleven twelve thirteen fourteen")
        text, tail = model.tokenizer.decode(ids[:-1]), model.tokenizer.decode(ids[-1:])
        expected = model.score([(ids[-13:-1], ids[-1:])])[0]
        with caplog.at_level(logging.WARNING, "slm.harness"):
            assert harness.loglikelihood(requests((text, tail), ("", "Hi")))[0] == (expected.logprob, expected.is_greedy)
        assert "1 of 2 texts lose their beginning to fit the context of 12" in caplog.text
        found = harness.generate_until(requests((text, {"max_gen_toks": 4}), (text, {"max_gen_toks": 3, "until": "\n\n"})))
        assert found[0] == model.generate(ids[:-1][-8:], max_tokens=4).text
        assert found[1] == model.generate(ids[:-1][-9:], max_tokens=3, stop="\n\n").text
        assert harness.generate_until(requests((text, {"max_gen_toks": 4, "top_p": 0.9}))) == found[:1]  # greedy, as there
        assert harness.generate_until(requests((text, {"max_gen_toks": 4, "num_beams": 1}))) == found[:1]
        with pytest.raises(TypeError, match="num_beams"):
            harness.generate_until(requests((text, {"num_beams": 4, "max_gen_toks": 4})))
