# SPDX-License-Identifier: Apache-2.0
"""The model that a command runs."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import slm
from slm.errors import quoted

BAR_DELAY = 0.7  # seconds a load may take before it shows a bar
LOAD_OPTIONS = ("context", "kv", "precision", "quantize", "threads", "revision", "offline")


@contextmanager
def open_model(args: argparse.Namespace) -> Iterator[slm.Model]:
    with bar() as progress:
        model = slm.load(args.model, adapter=args.adapter, progress=progress, **load_options(args))
    with model:
        yield model


def load_options(args: argparse.Namespace) -> dict[str, Any]:
    """As slm.load() and slm.inspect() take them."""
    return {name: getattr(args, name) for name in LOAD_OPTIONS}


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


def refuse_model(argument: str | None) -> None:
    """A model in the place of a text is a slip: the default model would be fetched to answer it."""
    if argument is None:
        return
    if (argument.endswith(".gguf") and os.path.exists(argument)) or os.path.exists(os.path.join(argument, "config.json")):
        raise ValueError(f"{quoted(argument)} stands where a text is expected, and is a model here; name it by -m {argument}")
