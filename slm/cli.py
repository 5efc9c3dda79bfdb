# SPDX-License-Identifier: Apache-2.0
"""The command line: the API's verbs, with its keywords as options. The only module that prints."""

import argparse
import io
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields
from math import isnan
from typing import Any, NoReturn

import slm
from slm.chat import template_keywords
from slm.errors import quoted
from slm.families.downloads import DEFAULT_MODEL
from slm.generation import Stream
from slm.options import DRAFTS, MAX_TEMPERATURE, OVERFLOW
from slm.output import Output, Usage

BAR_DELAY = 0.7  # seconds a load may take before it shows a bar
SOURCES = "a path, a name that `slm models` lists, or a name on the Hugging Face Hub: org/name, org/name:file.gguf"
LOAD_OPTIONS = ("context", "kv", "precision", "quantize", "threads", "revision", "offline")
TEMPLATE_OPTIONS = ("system", "tools", "chat_template_kwargs")
# For the first stand --choice, --regex, --json-schema and --grammar; the others are functions.
NOT_OPTIONS = ("constrain", "processors", "edit")
GENERATE_OPTIONS = tuple(field.name for field in fields(slm.GenerateOptions) if field.name not in NOT_OPTIONS)
UNDO_DEPTH = 8  # turns that /undo can take back: each keeps up to 64 positions of the cache, and what windows have dropped since
CHAT_COMMANDS = {
    "/undo": "take the last message and its answer back",
    "/reset": "begin again",
    "/save FILE": "write the conversation to a file",
    "/load FILE": "go on with the conversation in a file, by the same model",
    "/help": "show this list",
    "/exit": "end, as Ctrl-D does",
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        extra = re.match(r"unrecognized arguments: [^-]", message)
        hint = "; run, chat, score and tokenize take the model as -m MODEL" if extra else ""
        self.exit(2, f"{self.prog}: {message}{hint}; see {self.prog} --help\n")


def build_parser() -> Parser:
    parser = Parser(prog="slm", description="Run small language models on this computer's CPU.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    origin = Parser(add_help=False)
    group = origin.add_argument_group("where from")
    group.add_argument(
        "--revision", metavar="REV", help="branch, tag or commit of a name on the Hugging Face Hub (default: main)"
    )
    group.add_argument("--offline", action="store_true", help="fetch nothing")

    model = Parser(add_help=False, parents=[origin])
    group = model.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"{SOURCES} (default %(default)s)",
    )

    loading = Parser(add_help=False)
    group = loading.add_argument_group("running")
    group.add_argument("--context", type=int, metavar="N", help="most tokens of prompt and answer together (default: as trained)")
    group.add_argument(
        "--kv",
        choices=("f32", "bf16", "int8"),
        help="type of the KV cache (default f32 for F32 weights, high precision and families that need it, else bf16)",
    )
    group.add_argument(
        "--precision", choices=("default", "high"), default="default", help="high: exact, slower (default %(default)s)"
    )
    group.add_argument("--quantize", metavar="TYPE", help="store floating-point weights as q8_0, q4_0 ... (default: as they are)")
    group.add_argument("--threads", type=int, metavar="N", help="threads to use (default: all that the process may use)")

    adapted = Parser(add_help=False, parents=[model, loading])
    group = adapted.add_argument_group("adapter")
    group.add_argument("--adapter", metavar="PATH", help="a LoRA adapter: a folder as PEFT writes it, or a GGUF file")

    running = Parser(add_help=False, parents=[adapted])
    group = running.add_argument_group("answer", "greedy unless --temperature is given")
    group.add_argument("--max-tokens", type=int, metavar="N", help="most tokens to answer with (default 256)")
    group.add_argument("--ignore-eos", action="store_true", default=None, help="go on behind the model's end tokens")
    group.add_argument("--temperature", type=float, metavar="T", help=f"0 is greedy; up to {MAX_TEMPERATURE:g} (default 0)")
    group.add_argument("--top-k", type=int, metavar="K", help="sample among the K most likely tokens (default 0: off)")
    group.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="sample among the likely tokens that together have this probability (default 1: off)",
    )
    group.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="sample among tokens at least P times as likely as the likeliest (default 0: off)",
    )
    group.add_argument(
        "--typical-p",
        type=float,
        metavar="P",
        help="sample among the tokens whose information is nearest to the entropy (default 1: off)",
    )
    group.add_argument(
        "--repetition-penalty", type=float, metavar="R", help="divide the logits of tokens that were there by R (default 1: off)"
    )
    group.add_argument(
        "--presence-penalty",
        type=float,
        metavar="A",
        help="subtract A from the logits of tokens that were there (default 0: off)",
    )
    group.add_argument(
        "--frequency-penalty", type=float, metavar="A", help="and A for each time they were there (default 0: off)"
    )
    group.add_argument(
        "--penalty-window", type=int, metavar="N", help="how many of the last tokens the penalties look at (default 64)"
    )
    group.add_argument("--no-repeat-ngram", type=int, metavar="N", help="no N tokens stand together twice (default 0: off)")
    group.add_argument(
        "--logit-bias",
        type=id_and_bias,
        action="append",
        metavar="ID=BIAS",
        help="add BIAS to the logit of a token, -inf to ban it; may be given several times",
    )
    group.add_argument("--seed", type=int, metavar="N", help="seed of the sampling (default: a new one each time)")
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be given several times")
    group.add_argument(
        "--draft",
        choices=DRAFTS,
        help="check several guesses at a time: the same answer, sooner where it repeats text (default: none)",
    )
    group.add_argument(
        "--overflow",
        choices=OVERFLOW,
        help="what to leave out of a prompt that does not fit the context (default error: nothing, it is refused)",
    )
    group = running.add_argument_group("form of the answer", "any, unless one of these is given")
    group.add_argument("--choice", action="append", metavar="TEXT", help="one of these texts; give it several times")
    group.add_argument("--regex", metavar="PATTERN", help="what a regular expression matches")
    group.add_argument("--json-schema", metavar="FILE", help="JSON as the JSON Schema in a file describes it")
    group.add_argument("--grammar", metavar="FILE", help="what the context-free grammar in a file describes")
    group = running.add_argument_group("chat template")
    group.add_argument("--system", metavar="TEXT", help="the system message (default: the model's own)")
    group.add_argument(
        "--tools",
        metavar="FILE",
        help="a JSON file with a list of tools, as their schemas; without --json calls are shown as text",
    )
    group.add_argument(
        "--chat-template-kwargs", metavar="JSON", help="""what else the template reads: '{"enable_thinking": false}'"""
    )

    group = running.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print every field of an answer, as a line of JSON, once it is whole")
    group.add_argument(
        "--logprobs", type=int, metavar="K", help="with --json: how likely each token was, and the K likeliest in its place"
    )

    command = commands.add_parser("run", parents=[running], help="answer a prompt", description="Answer a prompt, on stdout.")
    command.add_argument("--raw", action="store_true", help="continue the text as it is, without the model's chat template")
    command.add_argument("--echo", action="store_true", default=None, help="begin with the prompt")
    command.add_argument("--n", type=int, metavar="N", help="N answers, with an empty line between them (default 1)")
    add_text(command, "prompt")
    command.set_defaults(function=run)

    command = commands.add_parser(
        "chat",
        parents=[running],
        help="hold a conversation",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Hold a conversation: each line is a message. Piped in, they are answered one after another.",
        epilog=f"commands at a terminal (a message that begins with / has a space before it):\n{chat_commands()}",
    )
    command.set_defaults(function=chat)

    command = commands.add_parser("models", help="list the known models", description="List the models that slm knows by name.")
    command.set_defaults(function=models)

    what = "show what a model is and what memory it takes"
    command = commands.add_parser("inspect", parents=[origin, loading], help=what, description=f"S{what[1:]}.")
    command.add_argument("source", metavar="SOURCE", help=SOURCES)
    command.set_defaults(function=inspect)

    command = commands.add_parser(
        "score",
        parents=[adapted],
        help="how likely continuations are, or a text",
        description="Log-probabilities of continuations, or the perplexity of a text.",
        epilog='A line of FILE is {"context": "2 + 2 =", "continuation": " 4"} or ["2 + 2 =", " 4"]; lists of token ids may '
        "stand for texts. All lines run together, and what contexts begin with in common runs once.",
    )
    command.add_argument("--perplexity", action="store_true", help="FILE is a text, of any length: its perplexity")
    command.add_argument(
        "--stride", type=int, metavar="N", help="tokens from window to window of a long text (default: half of one)"
    )
    command.add_argument("--json", action="store_true", help="print every field of each result, as a line of JSON")
    command.add_argument("file", nargs="?", metavar="FILE", help="what to score; - or none at all reads it from stdin")
    command.set_defaults(function=score)

    command = commands.add_parser(
        "tokenize", parents=[model], help="show the tokens of a text", description="Show the tokens of a text, one a line."
    )
    command.add_argument("--parse-special", action="store_true", help="read control tokens that are written in the text as such")
    command.add_argument("--no-special-tokens", action="store_true", help="put no bos or eos around the text")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--ids", action="store_true", help="print the ids alone, on one line")
    form.add_argument("--json", action="store_true", help="print id, piece and place in the text of each, as a line of JSON")
    form.add_argument("--decode", action="store_true", help="the other way: TEXT holds ids, print their text")
    add_text(command, "text")
    command.set_defaults(function=tokenize)
    return parser


def add_text(command: argparse.ArgumentParser, what: str) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument("-f", "--file", metavar="FILE", help=f"read the {what} from a file")
    group.add_argument(what, nargs="?", metavar=what.upper(), help=f"the {what}; - or none at all reads it from stdin")


def chat_commands() -> str:
    return "\n".join(f"  {name:<12}{what}" for name, what in CHAT_COMMANDS.items())


def run(args: argparse.Namespace) -> None:
    prompt = given_text(args.prompt, "prompt", args.file)
    refuse_model(args.prompt)
    options = generate_options(args)
    with open_model(args) as model:
        templated = not args.raw and has_template(model)
        if not templated:
            refuse_template_options(args, "a model with a chat template, and no --raw")
        if not args.raw and not templated:
            note("the model has no chat template; it continues the text")
        messages = [] if args.system is None else [{"role": "system", "content": args.system}]
        messages.append({"role": "user", "content": prompt})
        template = template_options(args)
        if args.json or args.n is not None:
            answer: Any = model.chat(messages, **template, **options) if templated else model.generate(prompt, **options)
            show_whole(answer if isinstance(answer, list) else [answer], args.json)
            return
        if templated and model.tokenizer is not None:
            keywords = template_keywords(template["tools"], None, None, template["chat_template_kwargs"])
            show(model.stream(model.tokenizer.apply_chat_template(messages, **keywords), **options), model)
        else:
            show(model.stream(prompt, **options), model)


def chat(args: argparse.Namespace) -> None:
    talking = sys.stdin.isatty()
    with open_model(args) as model:
        talk = Talk(model, args)
        if talking:
            # Gives input() editing, and the lines typed before; not every Python is built with it. They are in no file: what is
            # said to a model on one's own computer is written down when /save says so.
            with suppress(ImportError):
                import readline  # noqa: F401

            note(f"{quoted(model.info.name)}: Ctrl-C ends an answer, Ctrl-D the conversation, /help lists commands")
        leaving = False
        while True:
            try:
                text = ask() if talking else input()
            except EOFError:
                if talking:
                    print(file=sys.stderr)
                return
            except KeyboardInterrupt:
                if leaving or not talking:
                    raise
                leaving = True
                print(file=sys.stderr)
                note("Ctrl-C once more ends the conversation, as Ctrl-D does")
                continue
            leaving = False
            try:
                if talking and re.match(r"/[a-z]+(\s|$)", text):
                    if text.strip() == "/exit":
                        return
                    talk.obey(text.strip())
                elif text.strip():
                    talk.say(text)
            except KeyboardInterrupt:
                if not talking:
                    raise
                print(flush=True)
            except (slm.Error, OSError, TypeError, ValueError) as error:
                if not talking:
                    raise
                note(sentence(error))


class Talk:
    """What `slm chat` holds: a session, and what it was before its last turns. Without a chat template there is no conversation,
    and the model continues each text by itself."""

    def __init__(self, model: slm.Model, args: argparse.Namespace) -> None:
        self.model, self.args = model, args
        self.options = generate_options(args)
        self.earlier: deque[slm.Session] = deque(maxlen=UNDO_DEPTH)
        self.session = self.new_session() if has_template(model) else None
        if self.session is None:
            refuse_template_options(args, "a model with a chat template")
            note("the model has no chat template; it continues each text by itself")

    def new_session(self) -> slm.Session:
        return self.model.session(self.args.system, **template_options(self.args))

    def say(self, text: str) -> None:
        """A message and its answer. What Ctrl-C leaves of it stays in the conversation; another exception leaves nothing."""
        if self.session is None:
            self.answer(self.model, text)
            return
        before = self.session.fork()
        try:
            self.answer(self.session, text)
        except Exception:
            self.session = before
            raise
        finally:
            if len(self.session.messages) > len(before.messages):
                self.earlier.append(before)

    def answer(self, speaker: slm.Model | slm.Session, text: str) -> None:
        if self.args.json:
            whole = speaker.send if isinstance(speaker, slm.Session) else speaker.generate
            show_whole([whole(text, **self.options)], True)
        else:
            show(speaker.stream(text, **self.options), self.model)

    def obey(self, command: str) -> None:
        name, _, path = command.partition(" ")
        path = os.path.expanduser(path.strip())
        if command == "/help":
            print(chat_commands(), file=sys.stderr)
            return
        if self.session is None:
            raise ValueError(f"{name} is for a conversation, which takes a model with a chat template")
        if command == "/reset":
            self.session = self.new_session()
            self.earlier.clear()
        elif command == "/undo":
            if not self.earlier:
                raise ValueError(f"no turn is left to take back; /undo knows the last {UNDO_DEPTH} since /load or /reset")
            self.session = self.earlier.pop()
        elif name == "/save" and path:
            self.session.save(path)
        elif name == "/load" and path:
            self.session = slm.Session.open(self.model, path)
            self.earlier.clear()
        elif name in ("/save", "/load"):
            raise ValueError(f"{name} takes a file: {name} FILE")
        else:
            raise ValueError(f"{quoted(command)} is no command; the commands are {', '.join(CHAT_COMMANDS)}")
        note(f"the conversation has {len(self.session.messages)} messages", faint=True)


def models(args: argparse.Namespace) -> None:
    from slm.hub import known_models
    from slm.info import short_bytes

    rows = [("NAME", "SIZE", "CACHED", "LICENCE", "DESCRIPTION")]
    rows += [(m.name, short_bytes(m.size), str(m.path) if m.cached else "no", m.licence, m.description) for m in known_models()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def inspect(args: argparse.Namespace) -> None:
    info = slm.inspect(args.source, **{name: getattr(args, name) for name in LOAD_OPTIONS})
    for name, value in info.rows().items():
        print(f"{name + ':':<12}{value}")


def score(args: argparse.Namespace) -> None:
    if args.stride is not None and not args.perplexity:
        raise ValueError("--stride is for --perplexity")
    refuse_model(args.file)
    path = None if args.file in (None, "-") else args.file
    text = given_text(args.file if path is None else None, "text" if args.perplexity else "list of pairs", path)
    if args.perplexity:
        with open_model(args) as model:
            perplexity = model.perplexity(text, stride=args.stride)
        record = {name: None if isnan(value) else value for name, value in asdict(perplexity).items()}  # JSON has no NaN
        print(json.dumps(record) if args.json else perplexity)
        return
    pairs = [read_pair(line, i) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    with open_model(args) as model:
        for scored in model.score(pairs):
            shown = printable(repr("".join(scored.pieces) or scored.tokens))
            mark = "greedy" if scored.is_greedy else ""
            print(json.dumps(asdict(scored)) if args.json else f"{scored.logprob:>12.4f}  {mark:<6}  {shown}")


def read_pair(line: str, number: int) -> tuple[Any, Any]:
    pair = from_json(line, f"line {number}")
    if isinstance(pair, dict) and pair.keys() >= {"context", "continuation"}:
        return pair["context"], pair["continuation"]
    if isinstance(pair, list) and len(pair) == 2:
        return pair[0], pair[1]
    raise ValueError(f'line {number} must be {{"context": ..., "continuation": ...}} or [context, continuation]')


def tokenize(args: argparse.Namespace) -> None:
    text = given_text(args.text, "text", args.file)
    refuse_model(args.text)
    tokenizer = slm.load_tokenizer(args.model, revision=args.revision, offline=args.offline)
    if args.decode:
        if args.parse_special or args.no_special_tokens:
            raise ValueError("--parse-special and --no-special-tokens are not for --decode")
        print(printable(tokenizer.decode(read_ids(text))))
        return
    options = {"parse_special": args.parse_special, "add_special_tokens": not args.no_special_tokens}
    ids, spans = tokenizer.encode_with_offsets(text, **options)
    if args.ids:
        print(*ids)
        return
    for id, (start, end) in zip(ids, spans, strict=True):
        piece = tokenizer.token_bytes(id)
        if args.json:
            print(json.dumps({"id": id, "piece": piece.decode("utf-8", "backslashreplace"), "start": start, "end": end}))
        else:
            print(f"{id:>8}  {piece.decode('utf-8', 'backslashreplace')!r}")


def read_ids(text: str) -> list[int]:
    """Ids as --ids prints them, or as a list in Python or JSON."""
    words = text.replace(",", " ").strip(" []\n").split()
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise ValueError(f"--decode takes token ids, not {quoted(wrong)}")
    return [int(word) for word in words]


@contextmanager
def open_model(args: argparse.Namespace) -> Iterator[slm.Model]:
    options = {name: getattr(args, name) for name in LOAD_OPTIONS}
    with bar() as progress:
        model = slm.load(args.model, adapter=args.adapter, progress=progress, **options)
    with model:
        yield model


def generate_options(args: argparse.Namespace) -> dict[str, Any]:
    """As Model.generate() takes them; chat has all but n and echo."""
    options = {name: value for name in GENERATE_OPTIONS if (value := getattr(args, name, None)) is not None}
    if "logit_bias" in options:
        options["logit_bias"] = dict(options["logit_bias"])
    if "logprobs" in options and not args.json:
        raise ValueError("--logprobs is shown with --json")
    names = ("choice", "regex", "json_schema", "grammar")
    forms = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]
    if len(forms) > 1:
        raise ValueError(f"{' and '.join(forms)}: an answer has one form")
    if args.choice is not None:
        options["constrain"] = slm.choice(args.choice)
    elif args.regex is not None:
        options["constrain"] = slm.regex(args.regex)
    elif args.json_schema is not None:
        schema = json_file(args.json_schema, "--json-schema")
        if not isinstance(schema, dict):
            raise ValueError(f"--json-schema {args.json_schema} must hold a JSON object, the schema")
        options["constrain"] = slm.json(schema)
    elif args.grammar is not None:
        with open(args.grammar, encoding="utf-8") as file:
            options["constrain"] = slm.grammar(file.read())
    return options


def has_template(model: slm.Model) -> bool:
    return model.tokenizer is not None and bool(model.tokenizer.chat_templates)


def id_and_bias(text: str) -> tuple[int, float]:
    id, _, bias = text.partition("=")
    try:
        return int(id), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a token id, = and a number, found {text!r}") from None


def template_options(args: argparse.Namespace) -> dict[str, Any]:
    """Of the chat template, as Model.session() takes them."""
    tools = more = None
    if args.tools is not None:
        tools = json_file(args.tools, "--tools")
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise ValueError(f"--tools {args.tools} must hold a JSON array of objects, each the schema of a tool")
    if args.chat_template_kwargs is not None:
        more = from_json(args.chat_template_kwargs, "--chat-template-kwargs")
        if not isinstance(more, dict):
            raise ValueError("--chat-template-kwargs must be a JSON object of names and values")
    return {"tools": tools, "chat_template_kwargs": more}


def refuse_template_options(args: argparse.Namespace, needed: str) -> None:
    for option in TEMPLATE_OPTIONS:
        if getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} needs {needed}")


def json_file(path: str, option: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return from_json(file.read(), f"{option} {path}")


def from_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error


def show(stream: Stream, model: slm.Model) -> None:
    """Print an answer as it is made, its timings where someone looks, and to everyone that the prompt was cut."""
    note_cut(stream.usage)
    last = ""
    try:
        with stream:
            for chunk in stream:
                if chunk.text:
                    last = printable(chunk.text)
                    print(last, end="", flush=True)
    except Exception:
        if last and not last.endswith("\n"):
            print(flush=True)  # what went wrong gets a line of its own
        raise
    if not last.endswith("\n"):
        print(flush=True)
    if sys.stderr.isatty():
        why = "; cut at its length" if chunk.finish_reason == "length" else ""
        note(f"{stream.timings}; {stream.usage.total_tokens} of {model.context} positions{why}", faint=True)


def show_whole(answers: Sequence[Output], as_json: bool) -> None:
    note_cut(answers[0].usage)
    for i, answer in enumerate(answers):
        if as_json:
            print(json.dumps(asdict(answer), default=list), flush=True)  # bytes as OpenAI's dictionaries have them
        else:
            print("\n" * (i > 0) + printable(answer.text).removesuffix("\n"))


def note_cut(usage: Usage) -> None:
    if usage.cut_tokens:
        note(f"the prompt did not fit: {usage.cut_tokens} of its tokens are left out")


def ask() -> str:
    """A line that is typed; stdout may be a file, which takes the answers alone."""
    if sys.stdout.isatty():
        return input("> ")
    print("> ", end="", file=sys.stderr, flush=True)
    return input()


def printable(text: str) -> str:
    """The text as a terminal may have it: a model must not send it commands."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text) if sys.stdout.isatty() else text


def given_text(argument: str | None, what: str, path: str | None = None) -> str:
    """An argument, what a file holds, or for "-" and for none at all what is piped in."""
    if argument not in (None, "-"):
        return argument
    if path not in (None, "-"):
        with open(path, "rb") as file:
            data = file.read()
    else:
        if argument is None and path is None and sys.stdin.isatty():
            raise ValueError(f"no {what} is given: pass it as an argument, or pipe it in")
        data = sys.stdin.buffer.read()
    source = "stdin" if path in (None, "-") else path
    try:
        text = data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"the {what} from {source}: {error}") from error
    if not text:
        raise ValueError(f"the {what} from {source} is empty")
    return text


def refuse_model(argument: str | None) -> None:
    """A model in the place of a text is a slip: the default model would be fetched to answer it."""
    if argument is None:
        return
    if (argument.endswith(".gguf") and os.path.exists(argument)) or os.path.exists(os.path.join(argument, "config.json")):
        raise ValueError(f"{quoted(argument)} stands where a text is expected, and is a model here; name it by -m {argument}")


@contextmanager
def bar() -> Iterator[Callable[[int, int], None] | None]:
    """A function of (bytes done, bytes in all) that draws a bar on a terminal once it takes long; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with ExitStack() as stack:
        drawn: list[tqdm] = []

        def progress(done: int, total: int) -> None:
            if not drawn:  # not before the first byte: fetching the file may have had a bar of its own
                style = {"unit": "B", "unit_scale": True, "desc": "loading", "leave": False}
                drawn.append(stack.enter_context(tqdm(total=total, delay=BAR_DELAY, **style)))
            drawn[0].update(done - drawn[0].n)

        yield progress


def note(text: str, faint: bool = False) -> None:
    line = f"slm: {text}"
    if faint and sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR"):
        line = f"\x1b[2m{line}\x1b[0m"
    print(line, file=sys.stderr, flush=True)


def sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 2 for an error, said in one line on stderr; 130 after Ctrl-C; 141 when nobody reads the output any more."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the descriptor was closed
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    parser = build_parser()
    args = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is escaped: an answer must not end in an exception
            stream.reconfigure(errors="backslashreplace")
    try:
        if args.version:
            print(f"slm {slm.__version__}")
        elif args.command is None:
            parser.print_help()
        else:
            args.function(args)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes stdout once more at exit
        return 128 + signal.SIGPIPE
    except (
        slm.Error,
        ImportError,
        OSError,
        TypeError,
        ValueError,
        MemoryError,
    ) as error:  # ImportError: of an extra that is not installed
        note(sentence(error))
        return 2
