# SPDX-License-Identifier: Apache-2.0
"""The commands and their options."""

import argparse
import re
from typing import NoReturn

from slm.cli.answers import run
from slm.cli.conversation import chat, chat_commands
from slm.cli.reports import inspect, models, score, tokenize
from slm.families.downloads import DEFAULT_MODEL
from slm.options import DRAFTS, MAX_TEMPERATURE, OVERFLOW

SOURCES = "a path, a name that `slm models` lists, or a name on the Hugging Face Hub: org/name, org/name:file.gguf"


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
    add_answer_options(running)

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


def add_answer_options(parser: Parser) -> None:
    group = parser.add_argument_group("answer", "greedy unless --temperature is given")
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
    group = parser.add_argument_group("form of the answer", "any, unless one of these is given")
    group.add_argument("--choice", action="append", metavar="TEXT", help="one of these texts; give it several times")
    group.add_argument("--regex", metavar="PATTERN", help="what a regular expression matches")
    group.add_argument("--json-schema", metavar="FILE", help="JSON as the JSON Schema in a file describes it")
    group.add_argument("--grammar", metavar="FILE", help="what the context-free grammar in a file describes")
    group = parser.add_argument_group("chat template")
    group.add_argument("--system", metavar="TEXT", help="the system message (default: the model's own)")
    group.add_argument(
        "--tools",
        metavar="FILE",
        help="a JSON file with a list of tools, as their schemas; without --json calls are shown as text",
    )
    group.add_argument(
        "--chat-template-kwargs", metavar="JSON", help="""what else the template reads: '{"enable_thinking": false}'"""
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print every field of an answer, as a line of JSON, once it is whole")
    group.add_argument(
        "--logprobs", type=int, metavar="K", help="with --json: how likely each token was, and the K likeliest in its place"
    )


def id_and_bias(text: str) -> tuple[int, float]:
    id, _, bias = text.partition("=")
    try:
        return int(id), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a token id, = and a number, found {text!r}") from None


def add_text(command: argparse.ArgumentParser, what: str) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument("-f", "--file", metavar="FILE", help=f"read the {what} from a file")
    group.add_argument(what, nargs="?", metavar=what.upper(), help=f"the {what}; - or none at all reads it from stdin")
