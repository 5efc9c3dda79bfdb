# SPDX-License-Identifier: Apache-2.0
"""Saved sessions: they go on with the same bits, in another process too; nothing but what was saved is believed."""

import hashlib
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from test_batch import CONTEXT, small_model
from test_families import CASES, write_gguf

import slm
from slm.formats.session_file import HEAD, MAGIC, VERSION

KINDS = [("gemma3", "F16", "int8"), ("gemma2", "F16", "f32"), ("cohere2", "BF16", "bf16"), ("llama_gqa_tied", "Q4_1", "bf16")]


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_restored_state_goes_on_with_the_same_bits(kind, tmp_path):
    """Of every length about a page, behind windows, and rewound."""
    core = small_model(tmp_path / "model.gguf", *kind)
    ids = np.random.default_rng(2).integers(0, core.stats()["vocab_size"], CONTEXT).tolist()
    for length, kept in [(0, 0), (1, 1), (63, 63), (64, 64), (65, 65), (300, 300), (300, 300 - 64), (131, 128), (300, 0)]:
        session = core.session()
        if length:
            session.forward(ids[:length], "none")
        session.rewind(kept)
        state, n, settled = session.save()
        assert (n, len(state)) == (kept, session.kv_bytes)
        other = core.restore(memoryview(state), n, settled)
        assert (other.length, other.kv_bytes, other.rewind_limit) == (session.length, session.kv_bytes, session.rewind_limit)
        assert other.save() == (state, n, settled)
        fork = other.fork()
        expected = session.forward(ids[kept : kept + 70], "all").tobytes()
        assert [again.forward(ids[kept : kept + 70], "all").tobytes() for again in (other, fork)] == [expected] * 2
        wrong = [(state, n + 64, settled), (state, n, settled + 64 * 64), (state, CONTEXT + 1, settled), (state, -1, settled)]
        wrong += [(state + b"\0", n, settled), (state[:-1], n, settled) if state else (b"\0", 0, 0), (state, n, -1)]
        for arguments in wrong:
            with pytest.raises(slm.FormatError):
                core.restore(*arguments)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_what_was_taken_back_is_not_saved(kind, tmp_path):
    core = small_model(tmp_path / "model.gguf", *kind)
    ids = np.random.default_rng(3).integers(0, core.stats()["vocab_size"], 120).tolist()
    plain, session = core.session(), core.session()
    plain.forward(ids[:70], "none")
    session.forward(ids, "none")
    fork = session.fork()  # shares the page that goes on behind
    for rewound in (session, fork):
        rewound.rewind(70)
        assert rewound.save()[:2] == plain.save()[:2]


# ---- conversations --------------------------------------------------------------------------------------------------------

OTHER_PROCESS = """
import sys, slm
with slm.load(sys.argv[1]) as model:
    session = slm.Session.open(model, sys.argv[2])
    print(session.send("And in one word?", max_tokens=12).tokens, session.messages, sep="\\n")
"""


def test_a_conversation_goes_on_in_another_process(smollm2, smollm2_path, tmp_path):
    def weather(city: str) -> str:
        """Tells the weather.

        Args:
            city: where
        """
        return city

    template = "{% for tool in tools %}{{ tool.function.name }} {% endfor %}" + smollm2.tokenizer.chat_templates["default"]
    session = smollm2.session("You answer briefly.", tools=[weather], chat_template=template)
    session.send("What is the sea?", max_tokens=12)
    session.send("Is it deep?", max_tokens=12)
    session.save(tmp_path / "talk.session")
    saved = session.fork()
    expected = session.send("And in one word?", max_tokens=12)
    program = [sys.executable, "-c", OTHER_PROCESS, str(smollm2_path), str(tmp_path / "talk.session")]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(expected.tokens), str(session.messages)]
    again = slm.Session.open(smollm2, tmp_path / "talk.session")
    assert (again.tokens, again.messages, again.length) == (saved.tokens, saved.messages, saved.length)
    for one in (again, saved):  # the first turn is still known
        one.rewind(one._turn_ends[0][0])
    assert (again.tokens, again.messages) == (saved.tokens, saved.messages)
    assert again.send("Why?", max_tokens=5).tokens == saved.send("Why?", max_tokens=5).tokens


def test_appended_tokens_are_kept(smollm2, tmp_path):
    session = smollm2.session()
    session.send("Hi", max_tokens=4)
    session.append([5, 6, 7])
    session.save(tmp_path / "a")
    again = slm.Session.open(smollm2, tmp_path / "a")
    assert again.send("So?", max_tokens=6).tokens == session.send("So?", max_tokens=6).tokens
    assert again.tokens == session.tokens


def test_a_session_of_another_model_is_refused(smollm2, smollm2_path, tmp_path):
    session = smollm2.session()
    session.append([1, 2, 3])
    session.save(tmp_path / "a")
    with (
        slm.load(smollm2_path, kv="f32") as other,
        pytest.raises(ValueError, match=r"a session of another model, '.*', or of the"),
    ):
        slm.Session.open(other, tmp_path / "a")
    with slm.load(smollm2_path, threads=1, context=50) as same:
        assert slm.Session.open(same, tmp_path / "a").tokens == [1, 2, 3]
    with pytest.raises(slm.ClosedError):
        slm.Session.open(same, tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        slm.Session.open(smollm2, tmp_path / "none")


def test_a_write_that_fails_leaves_the_old_file(smollm2, tmp_path):
    session = smollm2.session(chat_template="{{ value }}", chat_template_kwargs={"value": float("nan")})
    session.append([1])
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ValueError, match="JSON"):
        session.save(tmp_path / "a")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
    with pytest.raises(FileNotFoundError, match=r"none/a'$"):
        smollm2.session().save(tmp_path / "none" / "a")
    for wrong in (None, 3, b"a"):
        with pytest.raises(TypeError, match="path must be a path, not"):
            session.save(wrong)
        with pytest.raises(TypeError, match="path must be a path, not"):
            slm.Session.open(smollm2, wrong)
    with pytest.raises(TypeError, match="model must be a Model, not"):
        slm.Session.open(tmp_path / "a", smollm2)


# ---- files that are not what was saved ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "model.gguf"
    with slm.load(write_gguf(path, CASES["gemma3"], "F16", context_length=("uint32", CONTEXT))) as model:
        session = model.session("Be brief.")
        session.append([1, 2, 3] * 30)
        session.save(path.with_name("good"))
        yield model, path.with_name("good").read_bytes(), path.with_name("bad")


def opened(tiny, data):
    tiny[2].write_bytes(data)
    return slm.Session.open(tiny[0], tiny[2])


def signed(data):
    return data + hashlib.sha256(data).digest()


def test_a_damaged_file_is_refused(tiny):
    good = tiny[1]
    assert opened(tiny, good).length == 90
    rng = np.random.default_rng(0)
    for size in {*range(64), *rng.integers(0, len(good), 30).tolist(), len(good) - 1}:
        with pytest.raises(slm.FormatError, match=r"\[SESSION_(MAGIC|SIZE)\]"):
            opened(tiny, good[:size])
    with pytest.raises(slm.FormatError, match="SESSION_SIZE"):
        opened(tiny, good + b"\0")
    for at in {*range(HEAD.size + 40), *rng.integers(0, len(good), 60).tolist(), len(good) - 1}:
        flipped = bytearray(good)
        flipped[at] ^= 1 << rng.integers(8)
        with pytest.raises((slm.FormatError, slm.LimitError, slm.UnsupportedError), match=r"\[SESSION_"):
            opened(tiny, bytes(flipped))
    with pytest.raises(slm.UnsupportedError, match="SESSION_VERSION"):
        opened(tiny, good[:8] + struct.pack("<I", VERSION + 1) + good[12:])


def test_huge_counts_are_refused_before_memory_is_taken(tiny):
    for n_json, n_ids, n_state in [(2**32 - 1, 0, 0), (2, 2**64 - 1, 0), (2, 0, 2**64 - 1), (2, 2**62, 2**63), (2, 2**30, 2**40)]:
        with pytest.raises((slm.FormatError, slm.LimitError), match=r"\[SESSION_(SIZE|LIMIT)\]"):
            opened(tiny, signed(HEAD.pack(MAGIC, VERSION, n_json, n_ids, n_state) + b"{}"))


def test_fields_that_do_not_fit_are_refused(tiny):
    """With a digest that is right: what a stranger could make."""
    good = tiny[1]
    _, _, n_json, n_ids, n_state = HEAD.unpack(good[: HEAD.size])
    fields = json.loads(good[HEAD.size : HEAD.size + n_json])
    body = good[HEAD.size + n_json : -32]

    def forged(change, body=body, n_ids=n_ids):
        text = json.dumps({key: value for key, value in (fields | change).items() if value is not None}).encode()
        return signed(HEAD.pack(MAGIC, VERSION, len(text), n_ids, n_state) + text + body)

    assert opened(tiny, forged({})).length == 90
    for name in fields:
        for value in (None, -1, 10**30, 1.5, "x", [], [-1], [{}], {}, True):
            if forged({name: value}) == forged({}) or (name, value) in [("name", "x"), ("n_system", 1), ("turn_ends", [])]:
                continue
            if (name, value) in [("n_pinned_messages", True), ("messages", [{}]), ("template", {})]:
                continue
            with pytest.raises((slm.FormatError, slm.LimitError, ValueError, TypeError)):
                opened(tiny, forged({name: value}))
    with pytest.raises(slm.FormatError, match=r"KV state.*SESSION_STATE"):
        opened(tiny, forged({"length": 20}))
    with pytest.raises(slm.FormatError, match="SESSION_IDS"):
        opened(tiny, forged({}, struct.pack("<i", -1) + body[4:]))
    deep = b'{"model": ' + b"[" * 100 + b"]" * 100 + b"}"
    with pytest.raises(slm.LimitError, match="SESSION_LIMIT"):
        opened(tiny, signed(HEAD.pack(MAGIC, VERSION, len(deep), n_ids, n_state) + deep + body))
