# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters against PEFT (tests/oracle/make_adapters.py): PEFT folders and GGUF files, on models from folders and GGUF files,
whose rows stand in another order; views that share weights; and what is refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf_conversion
import gguf_writer
import numpy as np
import pytest
from folder_writer import safetensors, write_folder
from test_families import CASES as FAMILIES
from test_families import relative_error, write_gguf

import slm

FOLDER = Path(__file__).parent / "data" / "oracle"
PREFIX = "base_model.model."
ENDS = {
    ".lora_A.weight": ".weight.lora_a",
    ".lora_B.weight": ".weight.lora_b",
    ".lora_embedding_A": ".weight.lora_a",
    ".lora_embedding_B": ".weight.lora_b",
}


@dataclass(frozen=True)
class Case:
    """config: of adapter_config.json; arrays: of adapter_model.safetensors; logits: with the adapter, of the first ids."""

    family: str
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    logits: np.ndarray

    @property
    def ids(self) -> list[int]:
        return FAMILIES[self.family].ids[: len(self.logits)].tolist()


def read(name: str) -> Case:
    with np.load(FOLDER / f"adapter_{name}.npz") as file:
        arrays = {key: file[key] for key in file}
    del arrays["made_with"]
    config, family, logits = json.loads(str(arrays.pop("config"))), str(arrays.pop("family")), arrays.pop("logits")
    return Case(family, config, {key: np.float32(value) for key, value in arrays.items()}, logits)


CASES = {path.stem.removeprefix("adapter_"): read(path.stem.removeprefix("adapter_")) for path in FOLDER.glob("adapter_*.npz")}
NAMES = sorted(CASES)
every_case = pytest.mark.parametrize("name", NAMES)


def write_peft(path: Path, config: dict[str, Any], arrays: dict[str, np.ndarray], kind: str = "F32") -> Path:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps(config))
    (path / "adapter_model.safetensors").write_bytes(safetensors(arrays, dict.fromkeys(arrays, kind)))
    return path


def in_gguf(case: Case) -> dict[str, np.ndarray]:
    """The tensors as llama.cpp's converter names and orders them."""
    gguf = FAMILIES[case.family].gguf
    assert gguf
    converted = {}
    for name, array in case.arrays.items():
        end = next(end for end in ENDS if name.endswith(end))
        module = gguf_conversion.gguf_name(name.removeprefix(PREFIX).replace(end, ".weight"), gguf["names"])
        if end == ".lora_embedding_A":
            array = array.T
        if end == ".lora_B.weight":
            changes = [change for change in gguf["changes"] if change[0] in ("pairs_together", "heads_apart")]
            array = rows_moved(module, array, changes)
        converted[module.removesuffix(".weight") + ENDS[end]] = np.ascontiguousarray(array, np.float32)
    return converted


def rows_moved(module: str, array: np.ndarray, changes: list[Any]) -> np.ndarray:
    for function, *arguments in changes:
        array = gguf_conversion.CHANGES[function]({module: array}, *arguments)[module]
    return array


def adapter_keys(case: Case) -> dict[str, tuple[str, Any]]:
    alpha = case.config["lora_alpha"]
    if case.config["use_rslora"]:
        alpha *= case.config["r"] ** 0.5
    return {
        "general.architecture": tuple(FAMILIES[case.family].gguf["metadata"]["general.architecture"]),
        "general.type": ("string", "adapter"),
        "adapter.type": ("string", "lora"),
        "adapter.lora.alpha": ("float32", alpha),
    }


def write_gguf_adapter(path: Path, keys: dict[str, Any], arrays: dict[str, np.ndarray], kind: str = "F32") -> Path:
    gguf_writer.write_gguf(path, keys, {name: (kind, array.shape, array) for name, array in arrays.items()})
    return path


def write_base(path: Path, family: str, form: str, type_name: str = "F32") -> Path:
    case = FAMILIES[family]
    if form == "gguf":
        return write_gguf(path / "model.gguf", case, type_name)
    kinds = [type_name if array.ndim == 2 else "F32" for array in case.arrays.values()]
    return write_folder(path / "model", case.config, case.arrays, kinds)


# ---- logits ----------------------------------------------------------------------------------------------------------------


# F32: BLIS where the build has it; F16: always our packed kernels
@every_case
@pytest.mark.parametrize(("form", "type_name"), [("folder", "F32"), ("gguf", "F16")])
def test_logits_are_those_of_peft(name, form, type_name, tmp_path):
    case = CASES[name]
    with slm.load(write_base(tmp_path, case.family, form, type_name), kv="f32", threads=2) as model:
        adapted = model.adapt(write_peft(tmp_path / "adapter", case.config, case.arrays))
        assert relative_error(adapted.forward(case.ids).logits, case.logits) < 2e-5
        assert relative_error(model.forward(case.ids).logits, FAMILIES[case.family].logits[: len(case.ids)]) < 2e-5


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"phi3"}))  # whose alphas are not one
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_a_gguf_adapter_is_the_same(name, form, tmp_path):
    case = CASES[name]
    path = write_gguf_adapter(tmp_path / "adapter.gguf", adapter_keys(case), in_gguf(case))
    with slm.load(write_base(tmp_path, case.family, form), adapter=path, kv="f32") as model:
        assert relative_error(model.forward(case.ids).logits, case.logits) < 2e-5


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_types_of_adapters(kind, tmp_path):
    """F16 holds these numbers exactly, and runs the same chains."""
    case = CASES["qwen2"]
    with slm.load(write_base(tmp_path, case.family, "gguf", "Q8_0")) as model:
        exact = model.adapt(write_peft(tmp_path / "f32", case.config, case.arrays)).forward(case.ids).logits
        found = model.adapt(write_peft(tmp_path / "half", case.config, case.arrays, kind)).forward(case.ids).logits
        assert relative_error(found, exact) <= (0 if kind == "F16" else 2e-2)


@every_case
@pytest.mark.parametrize("type_name", ["Q8_0", "F16"])
def test_bits_do_not_depend_on_how_the_work_is_cut(name, type_name, tmp_path):
    case = CASES[name]
    path = write_peft(tmp_path / "adapter", case.config, case.arrays)
    core = slm.load(write_base(tmp_path, case.family, "gguf", type_name)).adapt(path)._core
    ids = FAMILIES[case.family].ids.tolist()
    whole = core.session().forward(ids, "all", 1)
    for chunk, threads in ((1, 2), (2, 2), (5, 3), (17, 2), (33, 1)):
        np.testing.assert_array_equal(core.session().forward(ids, "all", threads, chunk), whole)
        np.testing.assert_array_equal(core.session().forward(ids, "last", threads, chunk), whole[-1:])


def test_all_ways_to_run_agree(tmp_path):
    """Chosen tokens, batches, scores, sessions and activations of an adapted output layer, against its logits."""
    case = CASES["llama"]
    path = write_peft(tmp_path / "adapter", case.config, case.arrays)
    model = slm.load(write_base(tmp_path, case.family, "gguf", "Q8_0"), adapter=path)
    ids = case.ids
    text = list(ids)
    for _ in range(8):
        text.append(int(model.forward(text, logits="last").logits.argmax()))
    assert model.generate(ids, max_tokens=8).tokens == text[len(ids) :]
    assert model.generate([ids, ids[:5], ids[:9]], max_tokens=8)[0].tokens == text[len(ids) :]
    assert model.generate(ids, max_tokens=8, draft="lookup").tokens == text[len(ids) :]
    logits = np.float64(model.forward(text).logits)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    score = model.score([(ids, text[len(ids) :])])[0]
    expected = [logprobs[i - 1, text[i]] for i in range(len(ids), len(text))]
    assert score.is_greedy
    np.testing.assert_allclose(score.token_logprobs, expected, rtol=1e-5)
    last = f"layer.{model.num_hidden_layers - 1}.out"
    captured = model.forward(text, capture=[last, "layer.0.attn_in", "layer.0.mlp_out"], edit={"embed": lambda rows: None})
    np.testing.assert_array_equal(captured.logits, model.forward(text).logits)
    np.testing.assert_array_equal(model.unembed(captured.activations[last]), captured.logits)


def test_names_of_larger_classes(tmp_path):
    """The text part of a model that also sees, and a class without a head."""
    case = CASES["gemma"]
    with slm.load(write_base(tmp_path, case.family, "folder")) as model:
        expected = model.adapt(write_peft(tmp_path / "plain", case.config, case.arrays)).forward(case.ids).logits
        renamed = {name.replace(".model.model.", ".model.model.language_model."): a for name, a in case.arrays.items()}
        found = model.adapt(write_peft(tmp_path / "larger", case.config, renamed)).forward(case.ids).logits
        np.testing.assert_array_equal(found, expected)
        renamed = {name.replace(".model.model.", ".model."): a for name, a in case.arrays.items()}
        found = model.adapt(write_peft(tmp_path / "headless", case.config, renamed)).forward(case.ids).logits
        np.testing.assert_array_equal(found, expected)


# ---- views -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def qwen(tmp_path):
    """A model and the folder of an adapter of it."""
    case = CASES["qwen2"]
    path = write_peft(tmp_path / "adapter", case.config, case.arrays)
    with slm.load(write_base(tmp_path, case.family, "gguf", "Q8_0")) as model:
        yield model, path, case


def test_scale(qwen, tmp_path):
    model, path, case = qwen
    plain = model.forward(case.ids).logits
    np.testing.assert_array_equal(model.adapt(path, scale=0).forward(case.ids).logits, plain)
    half = model.adapt(path, scale=0.5).forward(case.ids).logits
    config = case.config | {"lora_alpha": case.config["lora_alpha"] / 2}
    np.testing.assert_array_equal(half, model.adapt(write_peft(tmp_path / "half", config, case.arrays)).forward(case.ids).logits)
    without = model.adapt(path).adapt(path, scale=-1)
    assert relative_error(without.forward(case.ids).logits, plain) < 2e-2  # int8 activations round at other places
    assert [adapter.scale for adapter in without.adapters] == [1, -1]
    assert relative_error(model.adapt(path).forward(case.ids).logits, plain) > 0.1


def test_adapters_add_up(tmp_path):
    """Two adapters are one of twice the rank."""
    case = CASES["qwen2"]
    other = {name: np.roll(array, 1, axis=-1) for name, array in case.arrays.items()}
    axis = {name: 0 if "lora_A" in name else 1 for name in other}
    both = {name: np.concatenate([array, other[name]], axis[name]) for name, array in case.arrays.items()}
    config = case.config | {"r": 8, "lora_alpha": 16}
    with slm.load(write_base(tmp_path, case.family, "folder"), kv="f32") as model:
        first = write_peft(tmp_path / "first", case.config, case.arrays)
        second = write_peft(tmp_path / "second", case.config, other)
        expected = model.adapt(write_peft(tmp_path / "both", config, both)).forward(case.ids).logits
        one = model.adapt(first)
        two = one.adapt(second)
        assert relative_error(two.forward(case.ids).logits, expected) < 2e-5
        assert relative_error(one.forward(case.ids).logits, case.logits) < 2e-5  # as it was
        one.close()
        assert relative_error(two.forward(case.ids).logits, expected) < 2e-5


def test_models_close_in_any_order(qwen):
    model, path, case = qwen
    adapted = model.adapt(path)
    before = adapted.forward(case.ids).logits
    stats = model._core.stats(), adapted._core.stats()
    assert 0 < stats[1]["weight_bytes"] - stats[0]["weight_bytes"] < 2 * sum(a.nbytes for a in case.arrays.values()) + (1 << 16)
    session = adapted._core.session()
    model.close()
    with pytest.raises(slm.ClosedError):
        model.adapt(path)
    np.testing.assert_array_equal(adapted.forward(case.ids).logits, before)
    adapted.close()
    np.testing.assert_array_equal(session.forward(case.ids, "all"), before)
    with pytest.raises(slm.ClosedError):
        adapted.forward(case.ids)


def test_a_saved_session_is_of_one_adapter(qwen, tmp_path):
    model, path, case = qwen
    adapted = model.adapt(path)
    session = adapted.session()
    session.append(case.ids)
    session.save(tmp_path / "saved")
    assert slm.Session.open(model.adapt(path), tmp_path / "saved").tokens == case.ids
    for other in (model, model.adapt(path, scale=0.5), adapted.adapt(path)):
        with pytest.raises(ValueError, match="a session of another model"):
            slm.Session.open(other, tmp_path / "saved")


def test_it_says_what_it_is(qwen):
    model, path, _ = qwen
    adapted = model.adapt(path, scale=2)
    (adapter,) = adapted.adapters
    assert model.adapters == ()
    assert (adapter.name, adapter.path, adapter.base, adapter.scale) == ("adapter", path, "made/qwen2", 2.0)
    assert (adapter.modules, adapter.ranks) == (14, (4,))
    assert "Adapter('adapter', scale 2, rank 4, 14 modules" in repr(adapted)
    assert "Adapter" in adapted._repr_html_()
    assert "Adapter" not in model._repr_html_() + repr(model)


# ---- what is refused -------------------------------------------------------------------------------------------------------

FIRST = f"{PREFIX}model.layers.0.self_attn.q_proj"
Arrays = dict[str, np.ndarray]


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: change(arrays[name])}


def renamed(name: str, new: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {new if key == name else key: array for key, array in arrays.items()}


def with_number(number: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[-1, 1] = number
        return array

    return change


A, B = f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"
WRONG_TENSORS = [
    (changed(A, lambda a: a[:, :-1]), slm.FormatError, "PEFT_TENSORS", [A, "[4, 63] instead of [4, 64]"]),
    (changed(B, lambda b: b[:-1]), slm.FormatError, "PEFT_TENSORS", [B, "[63, 4] instead of [64, 4]"]),
    (changed(A, lambda a: a[:-1]), slm.FormatError, "PEFT_RANK", [A, "expected rank 4, found 3"]),
    (changed(B, lambda b: b[:, :-1]), slm.FormatError, "PEFT_RANK", [B, "expected rank 4, found 3"]),
    (changed(A, lambda a: a[0]), slm.FormatError, "PEFT_TENSORS", [A, "a matrix", "[64]"]),
    (changed(A, lambda a: a[:, :0]), slm.FormatError, "PEFT_TENSORS", [A, "a matrix", "[4, 0]"]),
    (changed(A, with_number(np.nan)), slm.FormatError, "PEFT_NUMBERS", ["lora_a of q_proj of layer 0", "NaN"]),
    (changed(B, with_number(-np.inf)), slm.FormatError, "PEFT_NUMBERS", ["lora_b of q_proj of layer 0", "infinity"]),
    (lambda a: {k: v for k, v in a.items() if k != A}, slm.FormatError, "PEFT_TENSORS", [A, f"only '{B[:64]}"]),
    (lambda a: {k: v for k, v in a.items() if k != B}, slm.FormatError, "PEFT_TENSORS", [B, f"only '{A[:64]}"]),
    (lambda a: {}, slm.FormatError, "PEFT_TENSORS", ["none"]),
    (renamed(A, f"{FIRST}.weight"), slm.UnsupportedError, "PEFT_TENSORS", [f"{FIRST}.weight", "save_embedding_layers=False"]),
    (renamed(A, f"{FIRST}.lora_embedding_A"), slm.FormatError, "PEFT_TENSORS", [A[:40], "only"]),
    (
        lambda a: {k.replace("layers.1.", "layers.7."): v for k, v in a.items()},
        slm.FormatError,
        "PEFT_TENSORS",
        ["of no linear layer of the model", "layers.7."],
    ),
    (lambda a: {k.removeprefix(PREFIX): v for k, v in a.items()}, slm.FormatError, "PEFT_TENSORS", ["begins with base_model"]),
    (
        lambda a: a | {k.replace(".model.model.", ".model."): v for k, v in a.items()},
        slm.FormatError,
        "PEFT_TENSORS",
        ["of no linear layer of the model"],
    ),
]


def check_refused(model: slm.Model, path: Path, kind: type[slm.Error], code: str, words: list[str], file: Path) -> None:
    with pytest.raises(kind) as caught:
        model.adapt(path)
    message = str(caught.value)
    assert caught.value.code == code
    assert message.startswith(str(file))
    for word in words:
        assert word[:60] in message, message


@pytest.mark.parametrize(("change", "kind", "code", "words"), WRONG_TENSORS)
def test_wrong_tensors(qwen, tmp_path, change, kind, code, words):
    model, _, case = qwen
    path = write_peft(tmp_path / "wrong", case.config, change(case.arrays))
    check_refused(model, path, kind, code, words, path / "adapter_model.safetensors")


WRONG_FIELDS = [
    ({"use_dora": True}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.use_dora", "expected no such field or false, found true"]),
    ({"bias": "all"}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.bias", "'all'"]),
    ({"lora_bias": True}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.lora_bias", "true"]),
    ({"modules_to_save": ["lm_head"]}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.modules_to_save", "empty array, found an"]),
    ({"peft_type": "IA3"}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.peft_type", "'IA3'"]),
    ({"peft_type": None}, slm.FormatError, "PEFT_JSON_MISSING", ["$.peft_type"]),
    ({"init_lora_weights": "pissa"}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.init_lora_weights", "'pissa'"]),
    ({"layer_replication": [[0, 2]]}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.layer_replication"]),
    ({"alora_invocation_tokens": [1]}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.alora_invocation_tokens"]),
    ({"trainable_token_indices": [3]}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.trainable_token_indices"]),
    ({"ensure_weight_tying": True}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.ensure_weight_tying"]),
    ({"use_dora": 0}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.use_dora", "found 0"]),
    ({"surprise": 1}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.surprise", "found 1"]),
    ({"r": 0}, slm.FormatError, "PEFT_JSON_RANGE", ["$.r", "found 0"]),
    ({"r": 1 << 40}, slm.LimitError, "PEFT_LIMIT", ["$.r"]),
    ({"r": "8"}, slm.FormatError, "PEFT_JSON_TYPE", ["$.r"]),
    ({"lora_alpha": 1e300}, slm.FormatError, "PEFT_JSON_RANGE", ["$.lora_alpha"]),
    ({"use_rslora": "yes"}, slm.FormatError, "PEFT_JSON_TYPE", ["$.use_rslora"]),
    ({"fan_in_fan_out": 1}, slm.FormatError, "PEFT_JSON_TYPE", ["$.fan_in_fan_out"]),
    ({"rank_pattern": {"q_proj": 0}}, slm.FormatError, "PEFT_JSON_RANGE", ["$.rank_pattern.q_proj"]),
    ({"rank_pattern": {"q_proj": 5}}, slm.FormatError, "PEFT_RANK", ["q_proj", "expected rank 5, found 4"]),
    ({"alpha_pattern": {"q_proj": "x"}}, slm.FormatError, "PEFT_JSON_TYPE", ["$.alpha_pattern.q_proj"]),
    ({"alpha_pattern": {"(?=q)": 1}}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.alpha_pattern", "(?=q)"]),
    ({"alpha_pattern": {"q[": 1}}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.alpha_pattern", "not closed"]),
    ({"alpha_pattern": {"q{90000}_{90000}": 1}}, slm.FormatError, "PEFT_JSON_RANGE", ["$.alpha_pattern", "states"]),
    ({"alpha_pattern": {"^x|q_proj": 1}}, slm.UnsupportedError, "PEFT_UNHANDLED", ["$.alpha_pattern", "alternative"]),
    (
        {"alpha_pattern": {f"(a|b)*a(a|b){{14}}{i}": 1 for i in range(64)}},
        slm.LimitError,
        "PEFT_LIMIT",
        ["states of $.alpha_pattern"],
    ),
    ({"fine_tune_type": "lora"}, slm.UnsupportedError, "PEFT_UNHANDLED", ["one of mlx-lm", "adapter_model.safetensors"]),
    ({"alpha_pattern": []}, slm.FormatError, "PEFT_JSON_TYPE", ["$.alpha_pattern"]),
]


@pytest.mark.parametrize(("change", "kind", "code", "words"), WRONG_FIELDS)
def test_wrong_fields(qwen, tmp_path, change, kind, code, words):
    model, _, case = qwen
    path = write_peft(tmp_path / "wrong", case.config | change, case.arrays)
    file = "adapter_model.safetensors" if code == "PEFT_RANK" else "adapter_config.json"
    check_refused(model, path, kind, code, words, path / file)


def test_a_pattern_cannot_take_for_ever(qwen, tmp_path):
    model, _, case = qwen
    hostile = {"(([a-z_.]+)*)*x": 3, "^(([a-z0-9_.]+)+)+!": 5}
    plain = model.adapt(write_peft(tmp_path / "plain", case.config, case.arrays)).forward(case.ids).logits
    adapted = model.adapt(write_peft(tmp_path / "wrong", case.config | {"alpha_pattern": hostile}, case.arrays))
    np.testing.assert_array_equal(adapted.forward(case.ids).logits, plain)


def test_a_dollar_at_the_end_of_a_pattern_says_nothing(qwen, tmp_path):
    model, _, case = qwen
    found = [
        model.adapt(write_peft(tmp_path / str(i), case.config | {"alpha_pattern": {key: 99}}, case.arrays)).forward(case.ids)
        for i, key in enumerate(("q_proj", "q_proj$"))
    ]
    np.testing.assert_array_equal(found[0].logits, found[1].logits)


def test_an_embedding_of_full_rank(qwen, tmp_path):
    """Whose matrix A is square, and still transposed in PEFT's files."""
    model, _, case = qwen
    vocab, hidden = model.vocab_size, model.hidden_size
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((vocab, vocab)).astype(np.float32), rng.standard_normal((hidden, vocab)).astype(np.float32)
    name = f"{PREFIX}model.embed_tokens.lora_embedding_"
    config = {"peft_type": "LORA", "r": vocab, "lora_alpha": vocab}
    adapted = model.adapt(write_peft(tmp_path / "square", config, {f"{name}A": a, f"{name}B": b}))
    ids = case.ids[:4]
    rows = [each.forward(ids, capture="embed").activations["embed"] for each in (adapted, model)]
    assert relative_error(rows[0] - rows[1], (b @ a[:, ids]).T) < 1e-3


@pytest.mark.parametrize(
    ("family", "architecture"), [("mistral_window", "llama"), ("ministral", "llama"), ("gemma3_vision", "gemma3")]
)
def test_gguf_adapters_of_families_that_share_an_architecture(tmp_path, family, architecture):
    case = FAMILIES[family]
    sizes = case.config.get("text_config", case.config)
    width, hidden = sizes["intermediate_size"], sizes["hidden_size"]
    keys = adapter_keys(CASES["llama"]) | {"general.architecture": ("string", architecture)}
    arrays = {"lora_a": np.ones((2, width), np.float32), "lora_b": np.ones((hidden, 2), np.float32)}
    named = {f"blk.0.ffn_down.weight.{name}": array for name, array in arrays.items()}
    with slm.load(write_folder(tmp_path / "model", case.config, case.arrays, ["F32"] * len(case.arrays))) as model:
        assert model.adapt(write_gguf_adapter(tmp_path / "a.gguf", keys, named)).adapters[0].ranks == (2,)


def test_folders_that_are_none(qwen, tmp_path):
    model, path, _ = qwen
    check_refused(model, tmp_path, slm.FormatError, "PEFT_NO_ADAPTER", ["adapter_config.json"], tmp_path)
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    check_refused(model, path, slm.FormatError, "PEFT_NO_ADAPTER", ["adapter_model.safetensors", "load it with PEFT"], path)
    with pytest.raises(FileNotFoundError, match="named by their paths"):
        model.adapt("org/name")
    read = []
    with pytest.raises(FileNotFoundError):
        slm.load(tmp_path / "model.gguf", adapter=tmp_path / "nowhere", progress=lambda *done: read.append(done))
    assert not read
    file = path / "adapter_config.json"
    check_refused(model, file, slm.FormatError, "PEFT_NO_ADAPTER", ["name the folder it is in"], file)
    with pytest.raises(slm.UnsupportedError, match=r"give it to adapt\(\)"):
        slm.load(path)


def test_a_file_that_is_cut(qwen, tmp_path):
    model, path, _ = qwen
    file = path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    check_refused(model, path, slm.FormatError, "SAFETENSORS_TENSOR_RANGE", [], file)


GGUF_A = "blk.0.attn_q.weight.lora_a"
WRONG_GGUF = [
    ({"general.type": ("string", "model")}, {}, slm.UnsupportedError, "GGUF_KEY_UNHANDLED", ["general.type", "'model'"]),
    ({"general.type": None}, {}, slm.FormatError, "GGUF_KEY_MISSING", ["general.type", "a model, no adapter"]),
    (
        {},
        {GGUF_A: np.zeros((65537, 64), np.float32), f"{GGUF_A[:-1]}b": np.zeros((64, 65537), np.float32)},
        slm.LimitError,
        "GGUF_TENSORS",
        [GGUF_A, "65536"],
    ),
    ({"adapter.type": ("string", "ia3")}, {}, slm.UnsupportedError, "GGUF_KEY_UNHANDLED", ["adapter.type", "'ia3'"]),
    ({"adapter.lora.alpha": ("uint32", 3)}, {}, slm.FormatError, "GGUF_KEY_TYPE", ["adapter.lora.alpha"]),
    ({"adapter.lora.alpha": ("float32", np.nan)}, {}, slm.FormatError, "GGUF_KEY_RANGE", ["adapter.lora.alpha"]),
    (
        {"adapter.alora.invocation_tokens": ("array of uint32", [3])},
        {},
        slm.UnsupportedError,
        "GGUF_KEY_UNHANDLED",
        ["adapter.alora.invocation_tokens"],
    ),
    ({"general.architecture": ("string", "llama")}, {}, slm.FormatError, "GGUF_FOREIGN", ["expected 'qwen2', found 'llama'"]),
    ({}, {GGUF_A: np.zeros((5, 64), np.float32)}, slm.FormatError, "GGUF_TENSORS", ["[rows, 5]", "[64, 4]"]),
    ({}, {GGUF_A: np.zeros((4, 65), np.float32)}, slm.FormatError, "GGUF_TENSORS", ["[4, 65] instead of [4, 64]"]),
    ({}, {GGUF_A: None}, slm.FormatError, "GGUF_TENSORS", [GGUF_A, "only"]),
    ({}, {"blk.0.attn_norm.weight": np.zeros(64, np.float32)}, slm.UnsupportedError, "GGUF_TENSORS", ["blk.0.attn_norm.weight"]),
    ({}, {GGUF_A: np.full((4, 64), np.nan, np.float32)}, slm.FormatError, "GGUF_NUMBERS", ["lora_a of q_proj of layer 0"]),
]


@pytest.mark.parametrize(("keys", "arrays", "kind", "code", "words"), WRONG_GGUF)
def test_wrong_gguf(qwen, tmp_path, keys, arrays, kind, code, words):
    model, _, case = qwen
    keys = {key: value for key, value in (adapter_keys(case) | keys).items() if value is not None}
    arrays = {name: array for name, array in (in_gguf(case) | arrays).items() if array is not None}
    path = write_gguf_adapter(tmp_path / "wrong.gguf", keys, arrays)
    check_refused(model, path, kind, code, words, path)
    if code != "GGUF_KEY_UNHANDLED" and "general.type" in keys:
        with pytest.raises(slm.UnsupportedError, match=r"give it to adapt\(\)"):
            slm.load(path)


def test_types_that_are_refused(qwen, tmp_path):
    model, _, case = qwen
    arrays = {name: np.float64(array) for name, array in case.arrays.items()}
    path = write_peft(tmp_path / "wrong", case.config, case.arrays)
    file = path / "adapter_model.safetensors"
    header = {}
    data = b""
    for name, array in arrays.items():
        header[name] = {"dtype": "F64", "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    check_refused(model, path, slm.UnsupportedError, "PEFT_TYPES", ["F32, F16, BF16", "F64"], file)


def test_a_gguf_adapter_without_alpha_counts_whole(qwen, tmp_path):
    """As in llama.cpp."""
    model, _, case = qwen
    keys = {key: value for key, value in adapter_keys(case).items() if key != "adapter.lora.alpha"}
    found = model.adapt(write_gguf_adapter(tmp_path / "a.gguf", keys, in_gguf(case))).forward(case.ids).logits
    config = case.config | {"lora_alpha": case.config["r"]}
    expected = model.adapt(write_peft(tmp_path / "b", config, case.arrays)).forward(case.ids).logits
    np.testing.assert_array_equal(found, expected)


def test_arguments(qwen):
    model, path, _ = qwen
    for scale, kind in ((np.nan, ValueError), (np.inf, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(kind, match="scale"):
            model.adapt(path, scale=scale)
    with pytest.raises(TypeError, match="path"):
        model.adapt(3)
    with pytest.raises(TypeError, match="adapter"):
        slm.load(path, adapter=3)
