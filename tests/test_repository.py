# SPDX-License-Identifier: Apache-2.0
"""Names on the Hugging Face Hub: the real huggingface_hub against a server on this machine, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf_writer
import numpy as np
import pytest
from folder_writer import write_folder
from hub_server import Hub, serving
from test_families import CASES

from slm import hub, repository
from slm.errors import DownloadError

WORKER = Path(__file__).parent / "hub_worker.py"


class Worker:
    """Calls slm in a process with its own environment."""

    def __init__(self, url: str, home: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "TRANSFORMERS_"))}
        more = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept | more | environment,
            cwd=home,
        )

    def __call__(self, name, *arguments, **keywords):
        self.process.stdin.write(json.dumps([name, arguments, keywords]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            assert answer["error"] == "DownloadError", answer
            assert "\n" not in answer["message"]
            raise DownloadError(answer["message"])
        return answer["value"]

    def close(self) -> str:
        """What it wrote to stderr."""
        return self.process.communicate()[1]


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    gguf_writer.write_gguf(path, *gguf_writer.tiny_llama())
    return path.read_bytes()


@pytest.fixture(scope="module")
def server(model_bytes):
    server = Hub()
    with serving(server):
        yield server


@pytest.fixture(scope="module")
def worker(server, tmp_path_factory):
    worker = Worker(server.url, tmp_path_factory.mktemp("home"))
    yield worker
    assert "%|" not in worker.close()  # no bars where there is no terminal


@pytest.fixture
def publish(server, request):
    """Publish files under a name of their own for each test, so that tests share one process and one cache."""

    def publish(files, revision="main", suffix=""):
        name = f"org/{request.node.name.replace('[', '-').replace(']', '')[:60]}{suffix}"
        server.repositories.setdefault(name, {})[revision] = files
        return name

    server.requests.clear()
    server.ranges.clear()
    return publish


FOLDER = {
    "config.json": b'{"a": 1}',  # files of the same bytes would be fetched once
    "generation_config.json": b'{"a": 2}',
    "tokenizer.json": b'{"a": 3}',
    "tokenizer_config.json": b'{"a": 4}',
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    "model.safetensors": b"s" * 5000,
}
OTHERS = {
    "README.md": b"# Model",
    "pytorch_model.bin": b"p" * 5000,
    "model.py": b"import os",
    "onnx/model.onnx": b"o" * 5000,
    "consolidated.safetensors": b"c" * 5000,
    "model-Q4_0.gguf": b"GGUF" * 2000,
}


# ---- what a name means ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["org/name", "Org-1/name_2.5-GGUF", "org/name:file.gguf", "o/n:sub/file.gguf", "o/n:Q4_K_M"])
def test_names(name):
    assert repository.is_name(name)


@pytest.mark.parametrize(
    "path",
    [
        "name",
        "/org/name",
        "./name",
        "../name",
        "~/name",
        "a/b/c",
        "org/file.gguf",
        "models/x.safetensors",
        "org/name:",
        "org/..",
        "",
        "org/name:a:b",
        "org/na me",
        "org/name\n",
        "org/na\0me",
    ],
)
def test_paths_are_not_names(path):
    assert not repository.is_name(path)


def test_a_local_path_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert hub.resolve("org/name") == hub.Located(Path("org/name"), None, None)


@pytest.mark.parametrize("source", ["smollm2-135m", "x.gguf", "/no/such"])
def test_a_revision_goes_with_a_name_on_the_hub(source):
    with pytest.raises(ValueError, match="revision goes with a name on the Hugging Face Hub"):
        hub.resolve(source, revision="main")


FILES = ["m-Q4_0.gguf", "m-Q4_K_M.gguf", "m-IQ4_XS.gguf", "mmproj-m.gguf", "q8/m-Q8_0-00001-of-00002.gguf"]
FILES += ["q8/m-Q8_0-00002-of-00002.gguf", "README.md"]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("m-Q4_0.gguf", ["m-Q4_0.gguf"]),
        ("Q4_0", ["m-Q4_0.gguf"]),
        ("q4_k_m", ["m-Q4_K_M.gguf"]),
        ("Q8_0", ["q8/m-Q8_0-00001-of-00002.gguf", "q8/m-Q8_0-00002-of-00002.gguf"]),
        ("q8/m-Q8_0-00002-of-00002.gguf", ["q8/m-Q8_0-00001-of-00002.gguf", "q8/m-Q8_0-00002-of-00002.gguf"]),
    ],
)
def test_files_and_tags(wanted, names):
    assert repository.choose("o/n", FILES, wanted, False) == (names, names[0])


@pytest.mark.parametrize(
    ("files", "wanted", "message"),
    [
        (FILES, None, r"o/n holds 4 models, name one as org/name:file: 'm-IQ4_XS.gguf', 'm-Q4_0.gguf', 'm-Q4_K_M"),
        (FILES, "Q4_K", "o/n holds no 'Q4_K'; it has 'm-IQ4_XS.gguf'"),
        (FILES, "m", "o/n holds 4 models that 'm' may mean"),
        ([f"{i:03}.gguf" for i in range(200)], None, "holds 200 models.*'019.gguf' and 180 more"),
        (["config.json", "pytorch_model.bin"], None, "no model that slm reads .*pickles, which are programs"),
        (["config.json"], "a.gguf", "holds no 'a.gguf'; it has no GGUF file"),
        ([], None, "holds no model that slm reads"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen(files, wanted, message):
    with pytest.raises(DownloadError, match=message):
        repository.choose("o/n", files, wanted, False)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"names on the Hugging Face Hub need huggingface_hub: pip install 'slm-cpu\[hub\]'"):
        hub.resolve("org/name")


# ---- fetching ---------------------------------------------------------------------------------------------------------------


def test_a_folder_without_what_is_not_needed(worker, server, publish):
    name = publish(FOLDER | OTHERS)
    path, commit = worker("resolve", name)
    assert commit == server.commit(name)
    assert server.fetched() == sorted(FOLDER)
    found = {p.relative_to(path).as_posix(): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}
    assert found == FOLDER
    server.requests.clear()
    assert worker("resolve", name) == [path, commit]
    assert server.fetched() == []
    assert worker("resolve", name, offline=True) == [path, commit]


def test_shards(worker, server, publish):
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 2000 for i in (1, 2)}
    name = publish({"config.json": b"{}", "model.safetensors.index.json": b"[]"} | shards | OTHERS)
    worker("resolve", name)
    assert server.fetched() == sorted(["config.json", "model.safetensors.index.json", *shards])


def test_the_cache_is_the_hubs(worker, server, publish):
    """The layout that other tools read: refs, snapshots of links, blobs by digest."""
    name = publish(FOLDER)
    path, commit = worker("resolve", name)
    root = Path(path).parent.parent
    assert root.name == "models--" + name.replace("/", "--")
    assert (root / "refs" / "main").read_text() == commit
    assert Path(path) == root / "snapshots" / commit
    assert (Path(path) / "model.safetensors").resolve().parent == root / "blobs"


def test_a_gguf_file(worker, server, publish, model_bytes):
    name = publish({"README.md": b"", "config.json": b"{}", "tiny.gguf": model_bytes, "mmproj-tiny.gguf": b"x" * 2000})
    commit, tokens = worker("load", name)
    assert commit == server.commit(name)
    assert len(tokens) == 4
    assert server.fetched() == ["tiny.gguf"]
    assert worker("load", f"{name}:tiny.gguf", offline=True) == [commit, tokens]
    assert worker("tokenizer", name, offline=True) == 259
    info = worker("inspect", name, offline=True)
    assert (info["family"], info["revision"]) == ("llama", commit)
    with pytest.raises(DownloadError, match=r"the cached .* holds no 'other\.gguf'; it has 'tiny\.gguf'"):
        worker("load", f"{name}:other.gguf", offline=True)


@pytest.mark.parametrize("n_files", [1, 3])
def test_a_folder_loads(worker, server, publish, tmp_path, n_files):
    case = CASES["qwen3"]
    folder = write_folder(tmp_path / "model", case.config, case.arrays, n_files=n_files)
    name = publish({path.name: path.read_bytes() for path in folder.iterdir()})
    revision, argmax = worker("forward", name, case.ids.tolist())
    assert revision == server.commit(name)
    assert argmax == int(case.logits[-1].argmax())
    info = worker("inspect", name, offline=True)
    assert (info["name"], info["family"], info["revision"]) == (name, "qwen3", revision)
    if n_files > 1:  # one that is lost is missed
        lost = next(Path(worker("resolve", name)[0]).glob("model-00002-*"))
        lost.unlink()
        with pytest.raises(
            DownloadError, match=r"the cached .* lacks 'model-00002-of-00003\.safetensors', and offline=True forbids"
        ):
            worker("resolve", name, offline=True)
        assert worker("resolve", name)[1] == revision
        assert lost.exists()


def test_several_gguf_files_fetch_nothing(worker, server, publish):
    name = publish({"a.gguf": b"a" * 2000, "b.gguf": b"b" * 2000})
    with pytest.raises(DownloadError, match=r"holds 2 models, name one as org/name:file: 'a.gguf', 'b.gguf'"):
        worker("resolve", name)
    assert server.fetched() == []


def test_all_parts_of_a_split_model(worker, server, publish):
    parts = {f"q/m-0000{i}-of-00003.gguf": bytes([i]) * 2000 for i in (1, 2, 3)}
    name = publish(parts | {"other.gguf": b"x" * 2000})
    path, _ = worker("resolve", f"{name}:q/m-00002-of-00003.gguf")
    assert path.endswith("q/m-00001-of-00003.gguf")
    assert server.fetched() == sorted(parts)


def test_a_tokenizer_without_weights(worker, server, publish):
    name = publish(FOLDER | OTHERS)
    worker("resolve", name, tokenizer_only=True)
    assert server.fetched() == sorted(set(FOLDER) - {"model.safetensors"})
    with pytest.raises(DownloadError, match=r"the cached .* holds no model .* and offline=True forbids fetching it"):
        worker("resolve", name, offline=True)
    path, _ = worker("resolve", f"{name}:tokenizer.json", tokenizer_only=True, offline=True)
    assert path.endswith("/tokenizer.json")


def test_revisions(worker, server, publish):
    name = publish({"config.json": b"{}", "model.safetensors": b"1" * 2000})
    publish({"config.json": b"{}", "model.safetensors": b"2" * 2000}, revision="v2")
    first, second = server.commit(name), server.commit(name, "v2")
    assert worker("resolve", name)[1] == first
    for revision in ("v2", second):
        path, commit = worker("resolve", name, revision=revision)
        assert commit == second
        assert (Path(path) / "model.safetensors").read_bytes() == b"2" * 2000
        assert worker("resolve", name, revision=revision, offline=True) == [path, commit]
    publish({"config.json": b"{}", "model.safetensors": b"3" * 2000})  # main moves on
    assert worker("resolve", name, offline=True)[1] == first
    assert worker("resolve", name)[1] == server.commit(name) != first
    assert worker("resolve", name, revision=first, offline=True)[1] == first
    with pytest.raises(DownloadError, match=r"has no revision 'v3': expected a branch, tag or full commit"):
        worker("resolve", name, revision="v3")


# ---- what goes wrong --------------------------------------------------------------------------------------------------------


def test_no_such_repository(worker, server):
    with pytest.raises(
        DownloadError, match=r"there is no path org/none here, and no such repository at http.*/org/none; if it is pri"
    ):
        worker("resolve", "org/none")


def test_gated_and_private(worker, server, publish, tmp_path):
    gated, private = publish(FOLDER), publish(FOLDER, suffix="-private")
    server.gated.add(gated)
    server.private.add(private)
    with pytest.raises(
        DownloadError, match=rf"{gated} is gated: accept its terms at http.*, then log in with `hf auth login`, or set"
    ):
        worker("resolve", gated)
    with pytest.raises(DownloadError, match="if it is private, log in with `hf auth login`, or set HF_TOKEN"):
        worker("resolve", private)
    allowed = Worker(server.url, tmp_path, HF_TOKEN=Hub.TOKEN)
    assert allowed("resolve", gated)[1] == server.commit(gated)
    assert allowed("resolve", private)[1] == server.commit(private)
    allowed.close()


def test_a_broken_download_is_no_model(worker, server, publish):
    weights = os.urandom(300_000)
    name = publish(FOLDER | {"model.safetensors": weights})
    server.cut = [100_000] * 50
    with pytest.raises(DownloadError, match=r"could not be fetched: .* Whole files that have arrived are kept; try again"):
        worker("resolve", name)
    server.cut = []
    with pytest.raises(DownloadError, match=r"the cached .* holds no model .* and offline=True forbids fetching it"):
        worker("resolve", name, offline=True)
    path, _ = worker("resolve", name)
    assert (Path(path) / "model.safetensors").read_bytes() == weights


def test_a_broken_first_file_leaves_no_model(worker, server, publish):
    name = publish({"m.gguf": b"x" * 50_000})
    server.cut = [1000] * 50
    with pytest.raises(DownloadError, match="try again"):
        worker("resolve", name)
    server.cut = []
    with pytest.raises(DownloadError, match=r"the cached .* holds no model that slm reads|not wholly, in the cache"):
        worker("resolve", name, offline=True)


def test_a_server_that_fails(worker, server, publish):
    name = publish(FOLDER)
    server.failing.add(name)
    with pytest.raises(DownloadError, match=f"{name} could not be fetched: .*500"):
        worker("resolve", name)


def test_offline_without_a_cache(worker, server, publish):
    name = publish(FOLDER)
    with pytest.raises(DownloadError, match=f"{name} is not, or not wholly, in the cache .*offline=True forbids fetching it"):
        worker("resolve", name, offline=True)
    assert server.requests == []


def test_where_the_hub_cannot_be_reached_the_cache_serves(server, publish, tmp_path):
    name = publish(FOLDER)
    before = Worker(server.url, tmp_path)
    path, commit = before("resolve", name)
    before.close()
    server.requests.clear()
    for environment in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        after = Worker(server.url, tmp_path, **environment)
        assert after("resolve", name) == [path, commit]
        with pytest.raises(
            DownloadError, match=r"org/other is not, or not wholly, in the cache .*, and the Hub cannot be reached: "
        ):
            after("resolve", "org/other")
        after.close()
    assert server.requests == []


# ---- inspecting what is not there -------------------------------------------------------------------------------------------


def files_under(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in (home / "hub").rglob("*") if path.is_file()}


@pytest.fixture
def fresh(server, tmp_path):
    """A process with an empty cache, and with a folder for temporary files of its own."""
    (tmp_path / "tmp").mkdir()
    worker = Worker(server.url, tmp_path, TMPDIR=str(tmp_path / "tmp"))
    yield worker
    worker.close()
    assert list((tmp_path / "tmp").iterdir()) == []
    server.ranged = True


@pytest.mark.parametrize("ranged", [True, False])
def test_a_gguf_file_is_inspected_by_its_header(fresh, server, publish, model_bytes, tmp_path, ranged):
    name = publish({"tiny.gguf": model_bytes + bytes(40_000_000), "README.md": b""})
    server.ranged, server.sent = ranged, 0
    info = fresh("inspect", name)
    print(f"{server.sent} bytes sent")
    assert server.sent < (1 << 20) + (0 if ranged else 8 << 20) + 10_000  # what is on the way when the client hangs up
    assert (info["family"], info["revision"], info["unsupported"]) == ("llama", server.commit(name), "()")
    assert info["file_bytes"] == str(len(model_bytes) + 40_000_000)
    assert files_under(tmp_path) == set()
    path, commit = fresh("resolve", name)
    assert (info["path"], info["revision"]) == (path, commit)
    server.sent = 0
    cached = fresh("inspect", f"{name}:tiny.gguf")
    assert server.sent < 10_000
    assert {key for key in info if info[key] != cached[key]} <= {"process_bytes", "available_bytes"}


def test_all_parts_of_a_split_model_are_inspected(fresh, server, publish, model_bytes, tmp_path):
    metadata, tensors = gguf_writer.tiny_llama()
    names, parts = list(tensors), {}
    for i, chosen in enumerate((names[:5], names[5:])):
        keys = {"split.no": ("uint16", i), "split.count": ("uint16", 2), "split.tensors.count": ("int32", len(names))}
        path = tmp_path / "part.gguf"
        gguf_writer.write_gguf(path, (metadata if i == 0 else {}) | keys, {key: tensors[key] for key in chosen})
        parts[f"q/m-0000{i + 1}-of-00002.gguf"] = path.read_bytes() + bytes(3_000_000)
    name = publish(parts)
    server.sent = 0
    info = fresh("inspect", f"{name}:q/m-00002-of-00002.gguf", revision=server.commit(name))
    assert server.sent < 2 * (1 << 20) + 10_000
    assert info["file_bytes"] == str(sum(map(len, parts.values())))
    assert info["path"].endswith(f"/snapshots/{server.commit(name)}/q/m-00001-of-00002.gguf")
    assert files_under(tmp_path) == set()


@pytest.mark.parametrize("n_files", [1, 3])
def test_a_folder_is_inspected_by_its_headers(fresh, server, publish, tmp_path, n_files):
    case = CASES["llama_3_scaling"]
    arrays = {key: np.tile(a, (1200, 1)) if len(a) == case.config["vocab_size"] else a for key, a in case.arrays.items()}
    config = case.config | {"vocab_size": 1200 * case.config["vocab_size"]}
    folder = write_folder(tmp_path / "model", config, arrays, n_files=n_files)
    name = publish({path.name: path.read_bytes() for path in folder.iterdir()})
    server.sent = 0
    info = fresh("inspect", name)
    assert server.sent < n_files * (1 << 20) + 20_000 < sum(path.stat().st_size for path in folder.iterdir()) / 4
    assert (info["name"], info["family"], info["revision"]) == (name, "llama", server.commit(name))
    local = fresh("inspect", str(folder))
    same = ("parameters", "quantization", "trained_context", "context", "file_bytes", "weight_bytes", "load_bytes", "kv_bytes")
    assert [info[key] for key in same] == [local[key] for key in same]
    assert files_under(tmp_path) == set()


def test_inspecting_does_not_move_the_cache_on(fresh, server, publish, model_bytes):
    name = publish({"tiny.gguf": model_bytes})
    path, first = fresh("resolve", name)
    publish({"tiny.gguf": model_bytes + bytes(2000)})
    assert fresh("inspect", name)["revision"] == server.commit(name) != first
    assert fresh("resolve", name, offline=True) == [path, first]
    assert fresh("inspect", name, offline=True)["revision"] == first
    assert fresh("inspect", name, revision=first, offline=True)["path"] == path


def test_inspecting_goes_wrong(fresh, server, publish, model_bytes):
    name = publish({"tiny.gguf": model_bytes + bytes(2_000_000)})
    with pytest.raises(DownloadError, match=f"{name} is not, or not wholly, in the cache"):
        fresh("inspect", name, offline=True)
    server.cut = [100_000] * 50
    with pytest.raises(DownloadError, match=f"{name} could not be inspected: .*; try again"):
        fresh("inspect", name)
    server.cut = []
    server.gated.add(name)
    with pytest.raises(DownloadError, match=f"{name} is gated: accept its terms"):
        fresh("inspect", name)
    outside = publish({"../../evil.gguf": model_bytes}, suffix="-outside")
    with pytest.raises(DownloadError, match=r"the name '\.\./\.\./evil\.gguf' leads out of it"):
        fresh("inspect", outside)
