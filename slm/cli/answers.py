# SPDX-License-Identifier: Apache-2.0
"""slm run, and what it shares with slm chat: the options of an answer, and how one is shown."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import slm
from slm.cli.console import from_json, given_text, json_file, note, printable
from slm.cli.loading import open_model, refuse_model
from slm.generation import Stream
from slm.messages import template_keywords
from slm.output import Output, Usage

TEMPLATE_OPTIONS = ("system", "tools", "chat_template_kwargs")
# For the first stand --choice, --regex, --json-schema and --grammar; the others are functions.
NOT_OPTIONS = ("constrain", "processors", "edit")
GENERATE_OPTIONS = tuple(field.name for field in fields(slm.GenerateOptions) if field.name not in NOT_OPTIONS)


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
