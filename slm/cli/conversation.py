# SPDX-License-Identifier: Apache-2.0
"""slm chat: at a terminal, or lines from a pipe."""

import argparse
import os
import re
import sys
from collections import deque
from contextlib import suppress

import slm
from slm.cli.answers import generate_options, has_template, refuse_template_options, show, show_whole, template_options
from slm.cli.console import ask, note, sentence
from slm.cli.loading import open_model
from slm.errors import quoted

UNDO_DEPTH = 8  # turns that /undo can take back: each keeps up to 64 positions of the cache, and what windows have dropped since
CHAT_COMMANDS = {
    "/undo": "take the last message and its answer back",
    "/reset": "begin again",
    "/save FILE": "write the conversation to a file",
    "/load FILE": "go on with the conversation in a file, by the same model",
    "/help": "show this list",
    "/exit": "end, as Ctrl-D does",
}


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


def chat_commands() -> str:
    return "\n".join(f"  {name:<12}{what}" for name, what in CHAT_COMMANDS.items())
