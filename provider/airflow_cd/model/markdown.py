"""Writing other people's words into Markdown, so that they are shown as they are."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#!|~&])")
_TICKS = re.compile(r"`+")


def escape(text: str) -> str:
    """Return the text so that Markdown shows it as it is: commit messages are anybody's words."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return a code span that shows the text as it is, whatever backticks are in it."""
    content = " ".join(text.split())
    # Within a span only as many backticks as it began with end it.
    fence = "`" * (max((len(run) for run in _TICKS.findall(content)), default=0) + 1)
    padding = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{padding}{content}{padding}{fence}"


def cell(text: str) -> str:
    """Return Markdown so that it can stand in a table: there a bar ends the cell, even within code."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)
