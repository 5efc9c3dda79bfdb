# SPDX-License-Identifier: Apache-2.0
"""What notebooks show: small HTML without scripts or style sheets. All text is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from math import exp


def table(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th><td style="text-align: left">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def captioned(html: str, caption: str) -> str:
    return (
        f'<div><div style="white-space: pre-wrap">{html}</div>'
        f'<div style="opacity: 0.6; font-size: smaller">{escape(caption)}</div></div>'
    )


def coloured(pieces: Sequence[str], logprobs: Sequence[float]) -> str:
    """Tokens on backgrounds from red (probability 0) to green (1), with the numbers under the pointer."""
    return "".join(
        f'<span title="p = {exp(logprob):.3g}, logprob = {logprob:.3f}" '
        f'style="background: hsl({120 * exp(logprob):.0f} 70% 50% / 0.35)">{escape(piece)}</span>'
        for piece, logprob in zip(pieces, logprobs, strict=True)
    )
