# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: both forms of config.json, several files, what is refused and how it is said."""

import copy
import json
import os
import shutil
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_writer import INDEX, write_folder
from test_families import CASES, every_family, relative_error

import slm
from slm import FormatError, LimitError, UnsupportedError, loader
from slm.families import gemma, registry, rope
from slm.formats.folder import CODES, Folder

CONFIG, SHARD = "config.json", "model-00001-of-00003.safetensors"
LLAMA = CASES["llama_linear_biases"]
PLAIN = CASES["qwen2_yarn"]  # its output matrix is not tied


def transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """The same as Transformers 4 wrote it: rope_theta beside rope_scaling, a partial factor and local angles on their own."""
    new = {"rope_parameters", "dtype"} | ({"layer_types"} if config["model_type"] != "ministral" else set())
    old = {key: value for key, value in config.items() if key not in new}
    old |= {"torch_dtype": config["dtype"], "transformers_version": "4.48.0"}
    rope_parameters = dict(config.get("rope_parameters") or {})
    if "sliding_attention" in rope_parameters:
        old["rope_local_base_freq"] = rope_parameters["sliding_attention"]["rope_theta"]
        rope_parameters = dict(rope_parameters["full_attention"])
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rope_parameters:
            old[name] = rope_parameters.pop(name)
    if rope_parameters:
        kind = rope_parameters.pop("rope_type")
        old["rope_scaling"] = None if kind == "default" else {"type": kind, **rope_parameters}
    return old


def described(folder: Path, context: int | None = None) -> dict[str, Any]:
    """config, numbers of layers and contexts of a folder, to compare; the weights by their place in the file."""
    with Folder(folder) as files:
        found = registry.describe(files, context)
        descriptors = [shard.file.fileno() for shard in files._shards]

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(item) for item in value]
        return (value[0], descriptors.index(value[1]), *value[2:]) if isinstance(value, tuple) else value

    layers = [{name: place(value) for name, value in layer.items()} for layer in found.weights["layers"]]
    inv_freq = found.config["rope_inv_freq"].tolist()
    contexts = found.context_length, found.default_context, found.longest_context
    return {**found.config, "rope_inv_freq": inv_freq, "layers": layers, "contexts": contexts}


@every_family
def test_transformers_4_wrote_it_in_another_form(name, tmp_path):
    case = CASES[name]
    new = write_folder(tmp_path / "new", case.config, case.arrays)
    old = write_folder(tmp_path / "old", transformers_4(case.config), case.arrays)
    assert described(old) == described(new)


NOT_THE_DEFAULT = {
    "gptneox_no_bias": "attention_bias",
    "helium": "attention_bias",
    "llama_dynamic": "mlp_bias",
    "llama_linear_biases": "attention_bias",
    "phi_head_norms": "qk_layernorm",
    "qwen2": "tie_word_embeddings",
    "qwen2_window": "use_sliding_window",
    "stablelm": "use_qkv_bias",
    "stablelm_head_norms": "qk_layernorm",
}


@every_family
def test_defaults_of_the_class_stand_for_what_a_config_leaves_out(name, tmp_path):
    """What save_pretrained wrote, without all that equals the default of its own class."""
    case = CASES[name]
    left_out = {"use_cache", "initializer_range", "attention_dropout", "tie_word_embeddings", "attention_bias", "mlp_bias"}
    left_out |= {"hidden_act", "hidden_activation", "activation_function", "use_sliding_window", "use_qkv_bias", "qk_layernorm"}
    short = {key: value for key, value in case.config.items() if key not in left_out - {NOT_THE_DEFAULT.get(name)}}
    short = {key: value for key, value in short.items() if value is not None or "softcapping" in key}
    assert described(write_folder(tmp_path / "short", short, case.arrays)) == described(
        write_folder(tmp_path / "whole", case.config, case.arrays)
    )


# ---- rope scaling ---------------------------------------------------------------------------------------


def scaled(tmp_path: Path, context: int | None = None, **parameters: Any) -> dict[str, Any]:
    config = PLAIN.config | {"rope_parameters": {"rope_theta": 10_000.0, **parameters}}
    return described(write_folder(tmp_path / "scaled", config, PLAIN.arrays), context)


def test_dynamic_scaling_looks_at_the_context_of_the_model(tmp_path):
    """Up to the trained context nothing changes; it may reach `factor` times further."""
    short, long = (scaled(tmp_path, context, rope_type="dynamic", factor=4.0) for context in (None, 300))
    assert short["rope_inv_freq"] == rope.default(10_000.0, 16).inv_freq.tolist()
    assert long["rope_inv_freq"] == rope.dynamic(10_000.0, 16, 4.0, 128, 300).inv_freq.tolist()
    assert short["contexts"] == (128, 128, 512)
    with slm.load(tmp_path / "scaled", context=512) as model:
        assert model.context == 512
    with pytest.raises(ValueError, match="1 to 512"):
        slm.load(tmp_path / "scaled", context=513)


def test_yarn_reaches_as_far_as_its_factor(tmp_path):
    found = scaled(tmp_path, rope_type="yarn", factor=8.0, original_max_position_embeddings=32, mscale=1.0, mscale_all_dim=0.5)
    factor = rope.yarn_factor(8.0) / rope.yarn_factor(8.0, 0.5)
    expected = rope.yarn(10_000.0, 16, 8.0, 32, attention_factor=factor)
    assert found["rope_inv_freq"] == expected.inv_freq.tolist()
    assert found["rope_factor"] == pytest.approx(factor)
    assert found["contexts"] == (128, 128, 256)


def test_llama3_scaling(tmp_path):
    values = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    found = scaled(tmp_path, rope_type="llama3", **values)
    assert found["rope_inv_freq"] == rope.llama3(10_000.0, 16, 8.0, 32, 1.0, 4.0).inv_freq.tolist()


def test_longrope_by_its_first_name(tmp_path):
    factors = {"short_factor": [1.0 + i for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}
    config = PLAIN.config | {"rope_theta": 1e4, "original_max_position_embeddings": 64}
    config = {key: value for key, value in config.items() if key != "rope_parameters"} | {
        "rope_scaling": {"type": "su", **factors}
    }
    short, long = (described(write_folder(tmp_path / "su", config, PLAIN.arrays), context) for context in (64, 65))
    for found, name in ((short, "short_factor"), (long, "long_factor")):
        expected = rope.longrope(1e4, 16, factors[name], scale=2.0, original=64)
        assert found["rope_inv_freq"] == expected.inv_freq.tolist()
        assert found["rope_factor"] == expected.factor
    assert short["contexts"] == (128, 64, 128)


# ---- what is in a folder --------------------------------------------------------------------------------


def test_a_folder_without_tokenizer_takes_ids_and_ends_where_it_says(tmp_path):
    path = write_folder(tmp_path / "model", LLAMA.config, LLAMA.arrays)
    with slm.load(path) as model:
        assert model.tokenizer is None
        assert model.end_ids == (2,)  # of config.json
        assert model.info.name == "model"
        assert model.info.family == "llama"
        assert (model.info.path, model.info.context) == (path, 128)
        tokens = model.generate([5, 6, 7], max_tokens=12, ignore_eos=True).tokens
        with pytest.raises(ValueError, match="tokenizer"):
            model.generate("text")
    generation = {"eos_token_id": [tokens[3], 81, 1000], "temperature": 0.7, "do_sample": True}
    with slm.load(write_folder(path, LLAMA.config, LLAMA.arrays, generation=generation)) as model:
        assert set(model.end_ids) == {tokens[3], 81}
        out = model.generate([5, 6, 7], max_tokens=12)  # greedy, whatever the file recommends
        assert out.tokens == tokens[: tokens.index(tokens[3])]
        assert out.finish_reason == "stop"


def test_inspecting_reads_headers_only(tmp_path):
    path = write_folder(tmp_path / "model", LLAMA.config, LLAMA.arrays, ("F16", "BF16"), n_files=3)
    info = slm.inspect(path)
    assert info.unsupported == ()
    assert info.parameters == sum(array.size for array in LLAMA.arrays.values())
    assert set(info.quantization) == {"F16", "BF16"}
    assert info.file_bytes == sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert info.kv_bytes == 128 * 2 * 2 * 2 * 16 * 2
    for field, value in (("attention_surprise", 1), ("quantization_config", QUANTIZED), ("model_type", "mamba")):
        described_too = slm.inspect(write_folder(tmp_path / "x", LLAMA.config | {field: value}, LLAMA.arrays))
        assert field in described_too.unsupported[0]
        assert described_too.context == 128


def test_weights_of_the_base_model_stand_without_prefix(tmp_path):
    """As the published GPT-2 has them, with the buffers that old versions saved."""
    case = CASES["gpt2"]
    arrays = {name.removeprefix("transformer."): array for name, array in case.arrays.items()}
    arrays |= {"h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32), "h.0.attn.masked_bias": np.ones(1, np.float32)}
    core = loader.open_model(write_folder(tmp_path / "model", case.config, arrays)).core
    assert relative_error(core.session().forward(case.ids, "all"), case.logits) < 2e-5


def test_a_tied_output_matrix_may_be_stored_twice(tmp_path):
    case = CASES["qwen2"]
    arrays = case.arrays | {"lm_head.weight": case.arrays["model.embed_tokens.weight"]}
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    assert described(write_folder(tmp_path / "model", case.config, arrays))


def test_a_single_file_wins_over_an_index(tmp_path):
    path = write_folder(tmp_path / "model", LLAMA.config, LLAMA.arrays)
    (path / INDEX).write_text("{}")
    assert described(path)


# Fields of published folders that the fixtures lack, as their config.json has them.
PUBLISHED = {
    "llama_3_scaling": {
        "is_llama_config": True, "rope_interleaved": False, "pretraining_tp": 1, "_name_or_path": "x/y", "max_length": 20,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "unsloth_fixed": True, "rope_scaling": None,
    },
    "phi2": {"embd_pdrop": 0.0, "resid_pdrop": 0.1, "auto_map": {"AutoConfig": "configuration_phi.PhiConfig"}},
    "phi3": {"attention_bias": False, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False},
    "qwen2": {"use_mrope": False, "max_window_layers": 21, "use_sliding_window": False, "sliding_window": 32768},
    "gemma": {"hidden_activation": "gelu_pytorch_tanh"},
    "gemma2": {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"},
    "gemma3": {"cache_implementation": "hybrid", "sliding_window_pattern": 6},
    "gpt2": {
        "n_ctx": 1024, "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "gradient_checkpointing": False,
    },
    "gptneox": {"rotary_emb_base": 10000, "rotary_pct": 0.25, "hidden_act": "gelu"},
    "starcoder2": {"norm_type": "layer_norm", "mlp_type": "default", "embedding_dropout": 0.1},
    "cohere": {"model_max_length": 131072, "use_qk_norm": False},
    "cohere2": {
        "order_of_interleaved_layers": "local_attn_first", "position_embedding_type": "rope_gptj", "rotary_pct": 1.0,
        "use_embedding_sharing": True, "use_gated_activation": True, "use_parallel_block": True, "use_parallel_embedding": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_fields_of_published_folders_change_nothing(name, tmp_path):
    case = CASES[name]
    plain = described(write_folder(tmp_path / "plain", case.config, case.arrays))
    assert described(write_folder(tmp_path / "published", case.config | PUBLISHED[name], case.arrays)) == plain


def test_the_text_part_of_a_model_that_sees_may_state_only_what_differs(tmp_path):
    case = CASES["gemma3_vision"]
    whole = described(write_folder(tmp_path / "whole", case.config, case.arrays))
    defaults = gemma.TEXT_DEFAULTS
    text = {key: value for key, value in case.config["text_config"].items() if key != "rms_norm_eps"}
    assert case.config["text_config"]["rms_norm_eps"] == defaults["rms_norm_eps"]
    short = write_folder(tmp_path / "short", case.config | {"text_config": text}, case.arrays)
    assert described(short) == whole
    with pytest.raises(FormatError, match=r"embed_tokens\.weight \[83, 64\] instead of \[262208, 64\]"):
        described(write_folder(short, case.config | {"text_config": text | {"vocab_size": None}}, case.arrays))


def test_gpt2_does_not_say_how_wide_its_mlp_is(tmp_path):
    """n_inner is null in the published one: four times as wide as the rest."""
    case = CASES["gpt2"]
    arrays = {name: array for name, array in case.arrays.items() if "mlp.c_" not in name}
    for layer in (f"transformer.h.{i}.mlp." for i in range(2)):
        arrays |= {f"{layer}c_fc.weight": np.ones((64, 256), np.float32), f"{layer}c_fc.bias": np.ones(256, np.float32)}
        arrays |= {f"{layer}c_proj.weight": np.ones((256, 64), np.float32), f"{layer}c_proj.bias": np.ones(64, np.float32)}
    assert described(write_folder(tmp_path / "x", case.config | {"n_inner": None}, arrays))["intermediate_size"] == 256


# ---- what is refused ------------------------------------------------------------------------------------

Change = Callable[[Path], None]


def config(**changes: Any) -> Change:
    """Fields changed, or left out where the value is `...`."""

    def change(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text()) | changes
        (folder / CONFIG).write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return change


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content) and None


def index(edit: Callable[[dict[str, str]], dict[str, Any]]) -> Change:
    def change(folder: Path) -> None:
        weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
        (folder / INDEX).write_text(json.dumps({"weight_map": edit(weight_map)}))

    return change


def elsewhere(name: str) -> Change:
    return index(lambda weight_map: weight_map | {"model.norm.weight": name})


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def cut(name: str, size: int) -> Change:
    return lambda folder: os.truncate(folder / name, size)


def bin_weights(folder: Path) -> None:
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")


ROPE = {"rope_theta": 1e4}
QUANTIZED = {"quant_method": "gptq", "bits": 4}
REFUSED: list[tuple[str, Change, type[Exception], str, str]] = [
    # id, change, error, code without its prefix, what the message says
    ("no config", without(CONFIG), FormatError, "FOLDER_NO_CONFIG", "config.json"),
    ("adapter", text("adapter_config.json", "{}"), UnsupportedError, "FOLDER_ADAPTER", "adapter_config.json"),
    ("gptq", config(quantization_config=QUANTIZED), UnsupportedError, "FOLDER_QUANTIZED", "$.quantization_config"),
    ("mlx", config(quantization={"group_size": 64, "bits": 4}), UnsupportedError, "FOLDER_QUANTIZED", "found 'MLX'"),
    ("gptq by name", config(quantization_config=QUANTIZED), UnsupportedError, "FOLDER_QUANTIZED", "'gptq'"),
    ("pickles", bin_weights, UnsupportedError, "FOLDER_NO_WEIGHTS", "save_pretrained"),
    (
        "no weights",
        lambda f: [p.unlink() for p in f.glob("model*")] and None,
        FormatError,
        "FOLDER_NO_WEIGHTS",
        "model.safetensors",
    ),
    ("model type", config(model_type="mamba"), UnsupportedError, "FOLDER_MODEL_TYPE", "'llama'"),
    ("no model type", config(model_type=...), FormatError, "FOLDER_JSON_MISSING", "$.model_type"),
    ("not JSON", text(CONFIG, "{"), FormatError, "FOLDER_JSON", "byte 0x1"),
    ("not UTF-8", lambda f: (f / CONFIG).write_bytes(b'{"a":"\xff"}') and None, FormatError, "FOLDER_JSON", "0xff"),
    ("an array", text(CONFIG, "[]"), FormatError, "FOLDER_JSON_TYPE", "an object"),
    ("twice", text(CONFIG, '{"a":1,"a":2}'), FormatError, "FOLDER_JSON_DUPLICATE", "'a'"),
    ("deep", text(CONFIG, '{"a":' + "[" * 100 + "]" * 100 + "}"), LimitError, "FOLDER_LIMIT", "depth"),
    ("missing", config(hidden_size=...), FormatError, "FOLDER_JSON_MISSING", "$.hidden_size"),
    ("a string", config(hidden_size="64"), FormatError, "FOLDER_JSON_TYPE", "$.hidden_size"),
    ("a float", config(hidden_size=64.0), FormatError, "FOLDER_JSON_TYPE", "$.hidden_size"),
    ("a bool", config(num_hidden_layers=True), FormatError, "FOLDER_JSON_TYPE", "$.num_hidden_layers"),
    ("zero", config(num_attention_heads=0), FormatError, "FOLDER_JSON_RANGE", "$.num_attention_heads"),
    ("negative", config(vocab_size=-1), FormatError, "FOLDER_JSON_RANGE", "$.vocab_size"),
    ("huge", config(hidden_size=10**30), LimitError, "FOLDER_LIMIT", "$.hidden_size"),
    ("many layers", config(num_hidden_layers=2**31), LimitError, "FOLDER_LIMIT", "$.num_hidden_layers"),
    ("a long number", text(CONFIG, '{"a":' + "9" * 5000 + "}"), FormatError, "FOLDER_JSON", "digits"),
    ("NaN", config(rms_norm_eps=float("nan")), FormatError, "FOLDER_JSON_RANGE", "$.rms_norm_eps"),
    ("infinity", config(rope_parameters=ROPE | {"rope_theta": float("inf")}), FormatError, "FOLDER_JSON_RANGE", "rope_theta"),
    ("heads", config(num_key_value_heads=3), FormatError, "FOLDER_JSON_RANGE", "$.num_key_value_heads"),
    ("odd heads", config(head_dim=15), UnsupportedError, "FOLDER_UNHANDLED", "$.head_dim"),
    ("activation", config(hidden_act="xielu"), UnsupportedError, "FOLDER_UNHANDLED", "'xielu'"),
    ("unknown field", config(qk_norm_scale=2.0), UnsupportedError, "FOLDER_UNHANDLED", "$.qk_norm_scale"),
    ("unknown object", config(extra={"a": 1}), UnsupportedError, "FOLDER_UNHANDLED", "$.extra"),
    ("window", config(sliding_window=16), UnsupportedError, "FOLDER_UNHANDLED", "$.sliding_window"),
    ("bidirectional", config(use_bidirectional_attention=True), UnsupportedError, "FOLDER_UNHANDLED", "use_bidirectional"),
    ("rope type", config(rope_parameters=ROPE | {"rope_type": "axial"}), UnsupportedError, "FOLDER_UNHANDLED", "'axial'"),
    ("rope field", config(rope_parameters=ROPE | {"alpha": 2}), UnsupportedError, "FOLDER_UNHANDLED", "$.rope_parameters.alpha"),
    (
        "no factor",
        config(rope_parameters=ROPE | {"rope_type": "linear"}),
        FormatError,
        "FOLDER_JSON_MISSING",
        "parameters.factor",
    ),
    ("rope twice", config(rope_scaling={"type": "linear", "factor": 2}), UnsupportedError, "FOLDER_UNHANDLED", "$.rope_scaling"),
    ("two thetas", config(rope_theta=5.0), UnsupportedError, "FOLDER_UNHANDLED", "$.rope_theta"),
    ("rope by layers", config(rope_parameters={"full_attention": ROPE}), UnsupportedError, "FOLDER_UNHANDLED", "full_attention"),
    ("a scalar rope", config(rope_parameters=3), FormatError, "FOLDER_JSON_TYPE", "$.rope_parameters"),
    ("eos", config(eos_token_id="2"), FormatError, "FOLDER_JSON_TYPE", "$.eos_token_id"),
    ("a generation file", text("generation_config.json", "[]"), FormatError, "FOLDER_JSON_TYPE", "generation_config.json"),
    # the index
    ("a path up", elsewhere("../model.safetensors"), FormatError, "FOLDER_INDEX", "../model.safetensors"),
    ("a path down", elsewhere("a/b.safetensors"), FormatError, "FOLDER_INDEX", "a/b.safetensors"),
    ("another drive", elsewhere("c:b.safetensors"), FormatError, "FOLDER_INDEX", "c:b.safetensors"),
    ("an absolute path", elsewhere("/etc/passwd"), FormatError, "FOLDER_INDEX", "'/etc/passwd'"),
    ("no safetensors", elsewhere("model.bin"), FormatError, "FOLDER_INDEX", "model.bin"),
    ("a control character", elsewhere("a\n.safetensors"), FormatError, "FOLDER_INDEX", "\\n"),
    ("a number", index(lambda m: m | {"a": 3}), FormatError, "FOLDER_JSON_TYPE", "$.weight_map.a"),
    ("nothing", index(lambda m: {}), FormatError, "FOLDER_INDEX", "$.weight_map"),
    ("no map", text(INDEX, "{}"), FormatError, "FOLDER_JSON_MISSING", "$.weight_map"),
    ("no file", without(SHARD), FormatError, "FOLDER_SHARD_MISSING", SHARD),
    ("wrong file", elsewhere(SHARD), FormatError, "FOLDER_INDEX", "model.norm.weight"),
    ("not listed", index(lambda m: dict([*m.items()][1:])), FormatError, "FOLDER_INDEX", "not listed"),
    ("not there", index(lambda m: m | {"a": SHARD}), FormatError, "FOLDER_INDEX", f"not there: 'a' in '{SHARD}'"),
    # the files
    ("a cut header", cut(SHARD, 100), FormatError, "SAFETENSORS_TRUNCATED", SHARD),
    ("cut data", cut(SHARD, 4000), FormatError, "SAFETENSORS_TENSOR_RANGE", SHARD),
    ("an empty file", cut(SHARD, 0), FormatError, "SAFETENSORS_TRUNCATED", SHARD),
    # the tensors
    ("untied", config(tie_word_embeddings=True, vocab_size=84), FormatError, "FOLDER_TENSORS", "embed_tokens.weight [83, 64]"),
    ("biases", config(attention_bias=False), UnsupportedError, "FOLDER_TENSORS", "unexpected: 'model.layers.0.self_attn"),
    ("no biases", config(mlp_bias=True), FormatError, "FOLDER_TENSORS", "missing: model.layers.0.mlp.gate_proj.bias [96]"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("whole") / "model", LLAMA.config, LLAMA.arrays, n_files=3)


@pytest.mark.parametrize(("change", "error", "code", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_wrong_in_a_folder_is_said(whole, tmp_path, change, error, code, says):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    change(folder)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    tracemalloc.start()
    try:
        with pytest.raises(error) as caught:
            loader.open_model(folder, threads=1)
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is error
    assert caught.value.code == code
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(folder))
    assert message.isprintable()
    assert len(message) < 1200
    assert memory < 4 << 20
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_every_code_is_raised_by_some_test():
    elsewhere_raised = {"MAGIC", "CHANGED", "TYPES", "VOCABULARY"}
    found = {row[3].removeprefix("FOLDER_") for row in REFUSED if row[3].startswith("FOLDER_")}
    assert found | elsewhere_raised == set(CODES)


HOSTILE = [-1, 0, 1, 2**40, 1.5, 1e300, float("nan"), "x", [], [1], {"a": 1}, True, None]


def every_field(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from every_field(value, (*path, name))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["gemma3", "gptneox", "llama_3_scaling", "phi3_longrope", "qwen2_yarn", "smollm3"])
def test_any_value_in_any_field_is_taken_or_refused(name, tmp_path):
    """Each with each: nothing but the three errors comes out, and what is taken has finite angles and tensors that fit."""
    case = CASES[name]
    folder, outcomes = write_folder(tmp_path / "model", case.config, case.arrays), set()
    for path in every_field(case.config):
        for value in HOSTILE:
            changed = copy.deepcopy(case.config)
            place = changed
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value
            (folder / CONFIG).write_text(json.dumps(changed))
            try:
                with Folder(folder) as files:
                    assert np.isfinite(registry.describe(files, 5).config["rope_inv_freq"]).all()
                    assert all(0 <= id < 83 for id in files.end_tokens)
                outcomes.add("taken")
            except (FormatError, LimitError, UnsupportedError) as error:
                outcomes.add(type(error).__name__ if str(error).isprintable() else str(error))
    assert outcomes == {"taken", "FormatError", "LimitError", "UnsupportedError"}


def test_missing_extra_and_misshapen_tensors_are_named_together(tmp_path):
    arrays = dict(LLAMA.arrays)
    del arrays["model.layers.1.mlp.up_proj.weight"]
    arrays |= {"model.norm.weight": np.ones(65, np.float32), "evil\x1b[2J": np.ones(1, np.float32)}
    with pytest.raises(FormatError) as caught:
        slm.load(write_folder(tmp_path / "model", LLAMA.config, arrays))
    assert (
        "missing: model.layers.1.mlp.up_proj.weight [96, 64]; of the wrong shape: model.norm.weight [65] instead of [64]; "
        "unexpected: 'evil\\x1b[2J'"
    ) in str(caught.value)


def test_types_that_the_core_does_not_pack(tmp_path):
    path = write_folder(tmp_path / "model", LLAMA.config, LLAMA.arrays)
    raw = (path / "model.safetensors").read_bytes()
    (size,) = struct.unpack_from("<Q", raw)
    header = raw[8 : 8 + size].replace(b'"F32", "shape": [64]', b'"I32", "shape": [64]')
    (path / "model.safetensors").write_bytes(raw[:8] + header + raw[8 + size :])
    with pytest.raises(UnsupportedError, match="FOLDER_TYPES") as caught:
        slm.load(path)
    assert "of I32" in str(caught.value)


def test_a_name_that_is_neither_file_nor_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="FOLDER_NO_CONFIG"):
        slm.load(tmp_path / "empty")
    (tmp_path / "empty" / "model.gguf").write_bytes(b"")
    with pytest.raises(FormatError, match=r"GGUF files, of which one can be named: 'model\.gguf'"):
        slm.load(tmp_path / "empty")
