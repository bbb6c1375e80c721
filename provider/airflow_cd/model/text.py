"""Makes text from outside safe for a log line, a terminal, or a Markdown page."""

from __future__ import annotations

import re

# Controls (terminals obey them), line and paragraph ends, marks that turn or hide what stands beside them,
# half characters, and tags, which are invisible and yet there. Joiners stay: languages and emoji need them.
_DISTURBING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_REPLACEMENT = "\ufffd"


def printable(text: str, longest: int) -> str:
    """
    Return the text on one line, of ``longest`` characters at most.

    What could disturb a terminal, a log or a line is replaced by U+FFFD; what is too long ends with an
    ellipsis.
    """
    # Cut first: the length comes from outside, too.
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return _DISTURBING.sub(_REPLACEMENT, cut)


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
