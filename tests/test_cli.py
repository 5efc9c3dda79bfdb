# SPDX-License-Identifier: Apache-2.0
"""The command line as a user has it: subprocesses, pipes, a terminal, signals."""

import dataclasses
import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import gguf_writer
import numpy as np
import pytest
from hub_server import Hub, serving
from test_adapters import PREFIX, write_peft

import slm
from slm.cli.answers import GENERATE_OPTIONS
from slm.cli.conversation import Talk
from slm.cli.parser import build_parser

QUESTION = "What is the capital of France?"


def cli(*args, input=None, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "slm", *map(str, args)], input=input, text=True, capture_output=True, timeout=120, **kwargs
    )


def on_a_terminal(*args, send=(), timeout=60):
    """Everything a terminal shows, and the exit status. send: pairs of (pattern to wait for, what to type then)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "slm", *map(str, args)])
    shown, seen, todo, deadline = b"", 0, list(send), time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if todo and (match := re.search(todo[0][0], shown[seen:])):
                seen += match.end()
                time.sleep(0.2)  # readline shows its prompt a moment before it listens for signals
                os.write(terminal, todo.pop(0)[1])
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        else:
            os.kill(pid, signal.SIGKILL)
            pytest.fail(f"still running; it showed {shown!r}")
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
    return shown.decode("utf-8", "replace"), status


# ---- run -------------------------------------------------------------------------------------------------------------


def test_run_answers_on_stdout_and_says_nothing_else(smollm2, smollm2_path):
    done = cli("run", "-m", smollm2_path, "--max-tokens", 12, QUESTION)
    expected = smollm2.chat(QUESTION, max_tokens=12).text
    assert (done.returncode, done.stdout, done.stderr) == (0, expected + "\n", "")


def test_run_and_chat_have_every_option_of_generate():
    for command, missing in (("run", set()), ("chat", {"--n", "--echo"})):
        described = cli(command, "--help").stdout
        options = re.findall(r"--[a-z-]+", described)
        assert {f"--{name.replace('_', '-')}" for name in GENERATE_OPTIONS} - set(options) == missing


def test_run_takes_every_option(smollm2, smollm2_path):
    options = [
        "--temperature",
        0.9,
        "--top-k",
        40,
        "--top-p",
        0.95,
        "--seed",
        3,
        "--stop",
        "\n\n",
        "--stop",
        "zzz",
        "--ignore-eos",
        "--draft",
        "lookup",
        "--logit-bias",
        "5=-inf",
        "--logit-bias",
        "6=1.5",
        "--repetition-penalty",
        1.1,
        "--min-p",
        0.01,
    ]
    options += ["--context", 256, "--threads", 1, "--kv", "bf16", "--offline", "--system", "Be brief."]
    done = cli("run", "-m", smollm2_path, "--max-tokens", 12, *options, QUESTION)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    expected = smollm2.chat(
        messages,
        max_tokens=12,
        temperature=0.9,
        top_k=40,
        top_p=0.95,
        seed=3,
        ignore_eos=True,
        stop=["\n\n", "zzz"],
        logit_bias={5: -math.inf, 6: 1.5},
        repetition_penalty=1.1,
        min_p=0.01,
    ).text
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.removesuffix("\n") == expected.removesuffix("\n")


def plain(output):
    """An output as a line of JSON has it, without what differs from run to run."""
    record = json.loads(json.dumps(dataclasses.asdict(output), default=list))
    return {name: value for name, value in record.items() if name not in ("timings", "seed")}


def read_back(lines):
    records = [json.loads(line) for line in lines.splitlines()]
    assert all(record.pop("timings")["prefill_seconds"] > 0 and record.pop("seed") >= 0 for record in records)
    return records


def test_several_answers_with_all_that_is_known_of_them(smollm2, smollm2_path, tmp_path):
    (tmp_path / "question").write_text(QUESTION + "\n")
    sampled = {"n": 2, "temperature": 1.0, "seed": 3, "max_tokens": 6}
    options = ["--n", 2, "--temperature", 1, "--seed", 3, "--max-tokens", 6, "-f", tmp_path / "question"]
    done = cli("run", "-m", smollm2_path, "--json", "--logprobs", 2, "--echo", *options)
    expected = smollm2.chat(QUESTION, logprobs=2, echo=True, **sampled)
    assert (read_back(done.stdout), done.stderr) == ([plain(output) for output in expected], "")
    first, second = [output.text.removesuffix("\n") for output in smollm2.chat(QUESTION, **sampled)]
    assert cli("run", "-m", smollm2_path, *options).stdout == f"{first}\n\n{second}\n"


def test_the_form_of_an_answer(smollm2, smollm2_path, tmp_path):
    schema = {"type": "object", "properties": {"city": {"enum": ["Rome", "Paris"]}}, "required": ["city"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    for options, constrain in (
        (("--choice", "Rome", "--choice", "Paris"), slm.choice(["Rome", "Paris"])),
        (("--regex", "[A-Z]{3}"), slm.regex("[A-Z]{3}")),
        (("--json-schema", tmp_path / "schema.json"), slm.json(schema)),
    ):
        done = cli("run", "-m", smollm2_path, *options, QUESTION)
        assert (done.stdout, done.stderr) == (smollm2.chat(QUESTION, constrain=constrain).text + "\n", "")


def test_a_grammar_in_a_file(smollm2, smollm2_path, tmp_path):
    pytest.importorskip("llguidance")
    (tmp_path / "sum.gbnf").write_text('root ::= [1-9] " + " [1-9]\n')
    done = cli("run", "-m", smollm2_path, "--grammar", tmp_path / "sum.gbnf", QUESTION)
    expected = smollm2.chat(QUESTION, constrain=slm.grammar((tmp_path / "sum.gbnf").read_text())).text
    assert (done.stdout, done.stderr) == (expected + "\n", "")


def test_a_grammar_without_the_extra(tmp_path):
    (tmp_path / "sum.gbnf").write_text('root ::= "a"')
    program = "import sys; sys.modules['llguidance'] = None; from slm.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "run", "--grammar", str(tmp_path / "sum.gbnf"), "x"]
    done = subprocess.run(command, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (2, 'slm: slm.grammar needs llguidance: pip install "slm-cpu[json]"\n')


def test_an_adapter(tmp_path):
    gguf_writer.write_gguf(tmp_path / "m.gguf", *gguf_writer.tiny_llama())
    rng = np.random.default_rng(0)
    weights = {"lora_A.weight": rng.standard_normal((4, 32)), "lora_B.weight": rng.standard_normal((64, 4))}
    arrays = {f"{PREFIX}model.layers.0.mlp.up_proj.{name}": np.float32(array) for name, array in weights.items()}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 64, "target_modules": ["up_proj"]}
    adapter = write_peft(tmp_path / "adapter", config, arrays)
    done = cli("run", "-m", tmp_path / "m.gguf", "--adapter", adapter, "--json", "--logprobs", 1, "--max-tokens", 3, "Hi there")
    with slm.load(tmp_path / "m.gguf", adapter=adapter) as model, slm.load(tmp_path / "m.gguf") as base:
        outputs = [each.generate("Hi there", max_tokens=3, logprobs=1) for each in (model, base)]
    assert read_back(done.stdout) == [plain(outputs[0])]
    assert outputs[0].logprobs != outputs[1].logprobs


def test_run_refuses_what_is_no_bias():
    done = cli("run", "--logit-bias", "5", QUESTION)
    assert done.returncode == 2
    assert "argument --logit-bias: expected a token id, = and a number, found '5'" in done.stderr


@pytest.mark.parametrize("argument", [[], ["-"]])
def test_run_reads_a_piped_prompt(smollm2, smollm2_path, argument):
    done = cli("run", "-m", smollm2_path, "--max-tokens", 4, *argument, input=QUESTION + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip("\n") == smollm2.chat(QUESTION, max_tokens=4).text.rstrip("\n")


def test_run_raw_continues_the_text(smollm2, smollm2_path):
    done = cli("run", "-m", smollm2_path, "--raw", "--max-tokens", 2, "The capital of France is")
    assert (done.returncode, done.stdout, done.stderr) == (0, " Paris.\n", "")


def test_run_hands_on_what_the_template_reads(smollm2_path, tmp_path):
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "add"}}]')
    same = cli("run", "-m", smollm2_path, "--max-tokens", 8, QUESTION)
    done = cli("run", "-m", smollm2_path, "--chat-template-kwargs", '{"a": 1}', "--max-tokens", 8, QUESTION)
    assert (done.returncode, done.stdout, done.stderr) == (0, same.stdout, "")  # SmolLM2's template does not read it
    for options, part in (
        (("--tools", tools), "tools: the chat template has no place for them"),
        (("--tools", tmp_path / "none"), "No such file"),
        (("--chat-template-kwargs", "{"), "--chat-template-kwargs is not JSON"),
        (("--chat-template-kwargs", "[]"), "--chat-template-kwargs must be a JSON object"),
        (("--tools", tools, "--raw"), "--tools needs a model with a chat template, and no --raw"),
    ):
        done = cli("run", "-m", smollm2_path, *options, QUESTION)
        assert (done.returncode, part in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_run_says_what_it_leaves_out(smollm2_path):
    text = "one two three " * 50
    refused = cli("run", "-m", smollm2_path, "--context", 96, text)
    assert (refused.returncode, "the context 96 positions" in refused.stderr) == (2, True)
    with slm.load(smollm2_path, context=96) as model:
        expected = model.chat(text, max_tokens=8, overflow="oldest")
    done = cli("run", "-m", smollm2_path, "--context", 96, "--overflow", "oldest", "--max-tokens", 8, text)
    assert done.stdout == expected.text + "\n"
    assert done.stderr == f"slm: the prompt did not fit: {expected.usage.cut_tokens} of its tokens are left out\n"


def test_names_on_the_hub(tmp_path):
    path = tmp_path / "m.gguf"
    gguf_writer.write_gguf(path, *gguf_writer.tiny_llama())
    server = Hub()
    server.repositories["org/model"] = {"main": {"m.gguf": path.read_bytes()}}
    with serving(server):
        environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
        ids = cli("tokenize", "--ids", "-m", "org/model", "Hi there", env=environment)
        assert ids.returncode == 0, ids.stderr
        assert ids.stdout.split() == cli("tokenize", "--ids", "-m", path, "Hi there").stdout.split()
        commit = server.commit("org/model")
        shown = cli("inspect", "org/model:m.gguf", "--revision", commit, "--offline", env=environment)
        assert re.search(rf"^revision: +{commit}$", shown.stdout, re.MULTILINE), shown
        refused = cli("inspect", "org/none", env=environment)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "no such repository" in refused.stderr


def test_run_streams(smollm2_path):
    """The first words are there long before the last."""
    command = [
        sys.executable,
        "-m",
        "slm",
        "run",
        "-m",
        str(smollm2_path),
        "--max-tokens",
        "60",
        "--ignore-eos",
        "Tell me a story.",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        times = []
        while piece := process.stdout.read(4096):
            times.append((time.perf_counter(), piece))
    assert process.returncode == 0
    assert len(times) > 20


def test_run_on_a_terminal_shows_timings(smollm2_path):
    shown, status = on_a_terminal("run", "-m", smollm2_path, "--max-tokens", 3, QUESTION)
    assert status == 0
    assert re.search(r"slm: prompt \d+ tokens in [\d.]+ s \(\d+ tokens/s\), then 2 tokens in [\d.]+ s \(\d+ tokens/s\)", shown)


ERRORS = [
    (["run", "-m", "/nonexistent.gguf", "x"], "/nonexistent.gguf"),
    (["run", "-m", "smollm-135m", "x"], "smollm2-135m"),
    (["run", "--max-tokens", "-1", "-m", "@", "x"], "max_tokens must be an integer from 0 to 2147483647, not -1"),
    (["run", "--temperature", "nan", "-m", "@", "x"], "temperature must be a number from 0 to 100, not nan"),
    (["run", "--stop", "", "-m", "@", "x"], "stop[0] is empty"),
    (["run", "--context", "4", "-m", "@", "x"], "context 4 positions"),
    (["run", "--context", "0", "-m", "@", "x"], "context must be an integer from 1"),
    (["run", "--threads", "0", "-m", "@", "x"], "threads must be an integer from 1 to 256, not 0"),
    (["run", "--raw", "--system", "s", "-m", "@", "x"], "--system needs"),
    (["run", "-m", "@"], "the prompt from stdin is empty"),
    (["run", "--max-tokens", "many", "x"], "invalid int value"),
    (["run", "--max-token-count", "3", "x"], "unrecognized arguments"),
    (["run", "a", "b"], "unrecognized arguments: b; run, chat, score and tokenize take the model as -m MODEL"),
    (["run", "@"], "stands where a text is expected, and is a model here; name it by -m"),
    (["tokenize", "@"], "stands where a text is expected, and is a model here; name it by -m"),
    (["inspect", "org/none.gguf"], "No such file or directory: 'org/none.gguf'"),
    (["run", "-m", "@", "-f", "/dev/null"], "the prompt from /dev/null is empty"),
    (["run", "-f", "x", "y"], "not allowed with argument -f/--file"),
    (["run", "--n", "2", "-m", "@", "x"], "give a temperature"),
    (["chat", "--logprobs", "2", "-m", "@"], "--logprobs is shown with --json"),
    (["run", "--choice", "a", "--regex", "b", "x"], "--choice and --regex: an answer has one form"),
    (["run", "--json-schema", __file__, "x"], "is not JSON"),
    (["walk"], "invalid choice"),
    (["inspect", __file__], "GGUF"),
    (["inspect"], "SOURCE"),
    (["tokenize", "-m", "@", "--context", "3", "x"], "unrecognized arguments"),
    (["tokenize", "-m", "@", "--decode", "5 x"], "--decode takes token ids, not 'x'"),
    (["tokenize", "--ids", "--json", "x"], "not allowed with argument"),
    (["score", "-m", "@"], "the list of pairs from stdin is empty"),
    (["score", "@"], "stands where a text is expected, and is a model here; name it by -m"),
    (["score", "--stride", "5"], "--stride is for --perplexity"),
    (["score", "-m", "@", __file__], "line 1 is not JSON"),
]


@pytest.mark.parametrize(("args", "part"), ERRORS, ids=[" ".join(args[:3])[:40] for args, _ in ERRORS])
def test_errors_are_one_line_and_status_2(smollm2_path, args, part):
    done = cli(*(smollm2_path if arg == "@" else arg for arg in args), input="")
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert done.stderr.startswith("slm")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_prompt_that_is_not_utf8(smollm2_path):
    command = [sys.executable, "-m", "slm", "run", "-m", str(smollm2_path)]
    done = subprocess.run(command, input=b"\xff\xfe", capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"utf-8" in done.stderr


# ---- pipes and signals -----------------------------------------------------------------------------------------------


def test_a_closed_pipe_ends_it_quietly(smollm2_path):
    command = [
        sys.executable,
        "-m",
        "slm",
        "run",
        "-m",
        str(smollm2_path),
        "--max-tokens",
        "4000",
        "--ignore-eos",
        "Tell me a story.",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_ctrl_c_ends_it_with_130(smollm2_path):
    command = [
        sys.executable,
        "-m",
        "slm",
        "run",
        "-m",
        str(smollm2_path),
        "--max-tokens",
        "4000",
        "--ignore-eos",
        "Tell me a story.",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


# ---- chat ------------------------------------------------------------------------------------------------------------


def test_chat_through_a_pipe(smollm2, smollm2_path):
    done = cli("chat", "-m", smollm2_path, "--max-tokens", 8, input="My name is Ada.\n\nWhat is my name?\n")
    session = smollm2.session()
    expected = [session.send(text, max_tokens=8).text for text in ("My name is Ada.", "What is my name?")]
    assert (done.returncode, done.stdout, done.stderr) == (0, "".join(text.removesuffix("\n") + "\n" for text in expected), "")


def test_chat_as_lines_of_json(smollm2, smollm2_path):
    done = cli("chat", "-m", smollm2_path, "--max-tokens", 8, "--json", input="/undo\nWhat?\n")  # piped lines are no commands
    session = smollm2.session()
    expected = [plain(session.send(text, max_tokens=8)) for text in ("/undo", "What?")]
    assert (read_back(done.stdout), done.stderr) == (expected, "")


def test_a_model_without_template_continues_each_line(tmp_path):
    path = tmp_path / "base.gguf"
    gguf_writer.write_gguf(path, *gguf_writer.tiny_llama())
    with slm.load(path) as model:
        expected = [model.generate(text, max_tokens=5) for text in ("Hi there", "And so")]
    done = cli("chat", "-m", path, "--max-tokens", 5, "--json", input="Hi there\nAnd so\n")
    assert read_back(done.stdout) == [plain(output) for output in expected]
    assert done.stderr == "slm: the model has no chat template; it continues each text by itself\n"
    refused = cli("chat", "-m", path, "--system", "Be brief.", input="Hi\n")
    assert (refused.returncode, refused.stderr) == (2, "slm: --system needs a model with a chat template\n")


def test_commands_of_a_conversation(smollm2, smollm2_path, tmp_path):
    path = tmp_path / "talk.session"
    lines = ["My name is Ada.", "My name is Bob.", "/undo", f"/save {path}", "/undo", "/undo", f"/load {path}", "/walk"]
    lines += ["What is my name?", f"/save {path}", "/exit"]
    send = [(b"> ", line.encode() + b"\n") for line in lines]
    shown, status = on_a_terminal("chat", "-m", smollm2_path, "--max-tokens", 9, send=send)
    assert status == 0
    session = smollm2.session()
    usages = [session.send(text, max_tokens=9).usage for text in ("My name is Ada.", "What is my name?")]
    saved = slm.Session.open(smollm2, path)
    assert (saved.messages, saved.tokens) == (session.messages, session.tokens)
    for usage in usages:
        assert f"tokens/s); {usage.total_tokens} of {smollm2.context} positions" in shown
    assert re.findall(r"the conversation has (\d+) messages", shown) == ["2", "2", "0", "2", "4"]
    assert shown.count("no turn is left to take back") == 1
    assert "'/walk' is no command; the commands are /undo, /reset, /save FILE" in shown


def test_a_failed_answer_leaves_the_conversation_as_it_was(smollm2, monkeypatch):
    talk = Talk(smollm2, build_parser().parse_args(["chat", "--max-tokens", "6"]))
    talk.say("My name is Ada.")
    before, messages, tokens = talk.session, talk.session.messages, talk.session.tokens
    reader, writer = os.pipe()
    os.close(reader)
    stdout = os.fdopen(writer, "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        with pytest.raises(BrokenPipeError):  # with its first piece of text
            talk.say("What is my name?")
    with suppress(BrokenPipeError):
        stdout.close()
    assert talk.session is not before
    assert (talk.session.messages, talk.session.tokens) == (messages, tokens)
    talk.say("What is my name?")
    session = smollm2.session()
    for text in ("My name is Ada.", "What is my name?"):
        session.send(text, max_tokens=6)
    assert (talk.session.messages, talk.session.tokens) == (session.messages, session.tokens)
    talk.obey("/undo")
    talk.obey("/undo")
    assert talk.session.messages == []
    with pytest.raises(ValueError, match="no turn is left to take back"):
        talk.obey("/undo")


def test_load_of_odd_files(smollm2, tmp_path):
    """Each an error that `slm chat` goes on after, with the conversation as it was; a session without messages is none."""
    talk = Talk(smollm2, build_parser().parse_args(["chat", "--max-tokens", "6"]))
    talk.say("Hi")
    talk.obey(f"/save {tmp_path / 'whole'}")
    whole = (tmp_path / "whole").read_bytes()
    for name, data in (("empty", b""), ("text", b"hello"), ("cut", whole[:-1]), ("long", whole + b"x")):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "damaged").write_bytes(whole[:-99] + bytes([whole[-99] ^ 1]) + whole[-98:])
    os.mkfifo(tmp_path / "pipe")
    messages, tokens = talk.session.messages, talk.session.tokens
    for name in ("nowhere", "", "empty", "text", "cut", "long", "damaged", "pipe", "a\0b", "whole/x"):
        with pytest.raises((slm.Error, OSError, ValueError)):
            talk.obey(f"/load {tmp_path / name}")
        assert (talk.session.messages, talk.session.tokens) == (messages, tokens)
    talk.say("And?")  # what is loaded later does not undo this
    session = smollm2.session()
    session.append([1, 2, 3])
    session.save(tmp_path / "ids")
    talk.obey(f"/load {tmp_path / 'ids'}")
    assert (talk.session.messages, talk.session.tokens) == ([], [1, 2, 3])
    with pytest.raises(ValueError, match="no turn is left to take back"):
        talk.obey("/undo")
    talk.obey(f"/load   {tmp_path / 'whole'}  ")
    assert (talk.session.messages, talk.session.tokens) == (messages, tokens)


def test_ctrl_c_at_the_prompt_ends_a_conversation_the_second_time(smollm2_path):
    send = [(b"> ", b"\x03"), (b"once more[^>]*> ", b"Hi\n"), (b"> ", b"\x03"), (b"once more[^>]*> ", b"\x03")]
    shown, status = on_a_terminal("chat", "-m", smollm2_path, "--max-tokens", 2, send=send)
    assert (status, shown.count("once more")) == (130, 2)


def test_chat_on_a_terminal(smollm2_path):
    shown, status = on_a_terminal(
        "chat",
        "-m",
        smollm2_path,
        "--max-tokens",
        4000,
        "--ignore-eos",
        send=[(b"> ", b"Count to a million.\n"), (rb"million\.\r\n\w+ \w+", b"\x03"), (b"> ", b"\x04")],
    )
    assert status == 0
    assert "Ctrl-D" in shown
    assert shown.count("> ") >= 2  # Ctrl-C ended the answer, not the conversation


# ---- the other commands ----------------------------------------------------------------------------------------------


def test_models_lists_what_is_known_and_cached(tmp_path):
    done = cli("models", env=os.environ | {"SLM_CACHE": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["NAME", "SIZE", "CACHED", "LICENCE", "DESCRIPTION"]
    assert rows[0].split()[:5] == ["smollm2-135m", "98", "MB", "no", "Apache-2.0"]


def test_inspect(smollm2, smollm2_path):
    done = cli("inspect", smollm2_path, "--context", 100)
    assert (done.returncode, done.stderr) == (0, "")
    fields = dict(re.split(r":\s+", line, maxsplit=1) for line in done.stdout.splitlines())
    assert fields["parameters"] == f"{smollm2.info.parameters:,}"
    assert fields["context"] == "100 tokens"
    assert fields["types"].startswith("Q4_1 (")


def test_what_the_encoding_of_stdout_lacks_is_escaped(smollm2_path, tmp_path):
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = cli("tokenize", "-m", smollm2_path, "Größe", env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xf6" in done.stdout
    (tmp_path / "größe.gguf").symlink_to(smollm2_path)
    done = cli("inspect", tmp_path / "größe.gguf", env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe.gguf" in done.stdout


def test_tokenize(smollm2, smollm2_path):
    text = "Hi <|im_end|> é"
    ids = smollm2.tokenizer.encode(text)
    done = cli("tokenize", "-m", smollm2_path, "--ids", text)
    assert (done.returncode, done.stdout, done.stderr) == (0, " ".join(map(str, ids)) + "\n", "")
    rows = cli("tokenize", "-m", smollm2_path, input=text).stdout.splitlines()
    assert [int(row.split()[0]) for row in rows] == ids
    assert "'Hi'" in rows[0]
    special = cli("tokenize", "-m", smollm2_path, "--ids", "--parse-special", text).stdout.split()
    assert list(map(int, special)) == smollm2.tokenizer.encode(text, parse_special=True)

    shown = [json.loads(line) for line in cli("tokenize", "-m", smollm2_path, "--json", text).stdout.splitlines()]
    assert [token["id"] for token in shown] == ids
    assert shown[0] == {"id": ids[0], "piece": "Hi", "start": 0, "end": 2}
    assert cli("tokenize", "-m", smollm2_path, "--decode", "-", input=str(ids)).stdout == text + "\n"


def test_score(smollm2, smollm2_path, tmp_path):
    lines = ['{"context": "2 + 2 =", "continuation": " 4"}', "", '["2 + 2 =", " 5"]', "[[5, 6], [7]]"]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines))
    expected = smollm2.score([("2 + 2 =", " 4"), ("2 + 2 =", " 5"), ([5, 6], [7])])
    found = [json.loads(line) for line in cli("score", "-m", smollm2_path, "--json", path).stdout.splitlines()]
    assert found == [dataclasses.asdict(score) for score in expected]
    rows = cli("score", "-m", smollm2_path, input=path.read_text()).stdout.splitlines()
    assert rows == [f"{s.logprob:>12.4f}  {'greedy' if s.is_greedy else '':<6}  {''.join(s.pieces)!r}" for s in expected]
    text = "The sea is blue. " * 5
    done = cli("score", "-m", smollm2_path, "--perplexity", "--context", "20", "--stride", "5", "-", input=text)
    with slm.load(smollm2_path, context=20) as model:
        assert (done.stdout, done.stderr) == (f"{model.perplexity(text, stride=5)}\n", "")
    one = json.loads(cli("score", "-m", smollm2_path, "--perplexity", "--json", "-", input="Hi there").stdout, parse_constant=str)
    assert (one["tokens"], one["stderr"]) == (1, None)
    refused = cli("score", "-m", smollm2_path, input='["a", "b"]\n{"context": "a"}\n')
    assert (refused.returncode, refused.stdout) == (2, "")
    assert 'line 2 must be {"context": ..., "continuation": ...} or [context, continuation]' in refused.stderr


def test_ends_of_lines_are_part_of_what_is_scored(smollm2, smollm2_path, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"The sea is blue.\r\nThe sky too.\r\n")
    expected = dataclasses.asdict(smollm2.perplexity("The sea is blue.\r\nThe sky too.\r"))
    command = [sys.executable, "-m", "slm", "score", "-m", smollm2_path, "--perplexity", "--json"]
    for argument, data in ((path, b""), ("-", path.read_bytes())):
        done = subprocess.run([*command, argument], input=data, capture_output=True, timeout=60)
        assert json.loads(done.stdout) == expected
    pairs = b'["2 + 2 =", " 4"]\r\n\r\n{"context": "2 + 2 =", "continuation": " 4"}\r\n'
    done = subprocess.run([*command[:-2], "--json"], input=pairs, capture_output=True, timeout=60)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        dataclasses.asdict(smollm2.score([("2 + 2 =", " 4")])[0])
    ] * 2


def test_closed_streams(smollm2_path):
    for redirection, command in ((">&-", ["--version"]), ("2>&-", ["run", "-m", smollm2_path, "--max-tokens", 1, "Hi"])):
        line = " ".join(map(str, [sys.executable, "-m", "slm", *command, redirection]))
        done = subprocess.run(line, shell=True, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_no_text_to_score(smollm2_path):
    for line in ('["a", NaN]', '[["a", 2], [3]]'):
        done = cli("score", "-m", smollm2_path, input=line)
        assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (2, 1, False)


def test_version_and_help():
    assert cli("--version").stdout == f"slm {slm.__version__}\n"
    for args in ([], ["--help"]):
        done = cli(*args)
        assert (done.returncode, done.stderr) == (0, "")
        for command in ("run", "chat", "models", "inspect", "score", "tokenize"):
            assert re.search(rf"^ +{command} +\w", done.stdout, re.MULTILINE)
    for command in ("run", "chat", "models", "inspect", "score", "tokenize"):
        done = cli(command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: slm {command}")
    assert "--max-tokens N" in cli("run", "--help").stdout
