# SPDX-License-Identifier: Apache-2.0
"""The command line: the API's verbs, with its keywords as options. The only package that prints."""

import io
import os
import signal
import sys
from collections.abc import Sequence

import slm
from slm.cli.console import note, sentence
from slm.cli.parser import build_parser


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
    except (slm.Error, ImportError, OSError, TypeError, ValueError, MemoryError) as error:  # ImportError: an extra is missing
        note(sentence(error))
        return 2
