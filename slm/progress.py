# SPDX-License-Identifier: Apache-2.0
"""Bars for calls with many texts."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from warnings import catch_warnings, simplefilter

from slm.options import refuse_type

BAR_DELAY = 2.0  # seconds that a call may take before it shows a bar unasked

Report = Callable[[int, int], None]
Progress = bool | Report | None


@contextmanager
def reported(progress: Progress, total: int, unit: str) -> Iterator[Report | None]:
    """What the core is to call with (done, total), if anything: the caller's own function, or one that draws a bar."""
    if callable(progress):
        yield progress
        return
    if not (progress is None or isinstance(progress, bool)):
        refuse_type("progress", "None, True, False or a function of (done, total)", progress)
    if progress is False or (progress is None and not somebody_looks()):
        yield None
        return
    with catch_warnings():
        simplefilter("ignore")  # in a notebook without ipywidgets, where it draws in text, as well
        from tqdm.auto import tqdm
    with tqdm(total=total, unit=unit, delay=0 if progress else BAR_DELAY, leave=bool(progress)) as bar:
        yield lambda done, _: bar.update(done - bar.n)


def counted_from(first: int, total: int, report: Report | None) -> Report | None:
    """For a call that does what comes behind the first ones of all."""
    return report and (lambda done, _: report(first + done, total))


def somebody_looks() -> bool:
    """At a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
