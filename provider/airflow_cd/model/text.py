"""Text that somebody else chose, made fit for a line of a log, a terminal or a page."""

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
    # Cut first: somebody else chose the length, too.
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return _DISTURBING.sub(_REPLACEMENT, cut)
