"""File name patterns, as services.yaml writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_WILD = re.compile(r"(?:\*\*/)+|/\*\*$|\*\*|\*|\?")
_MEANING = {"/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class Patterns:
    """
    Several patterns, any of which may match.

    ``*`` and ``?`` stay within a folder, ``**`` crosses folders. A pattern whose last part has no wildcard
    (``src``, ``**/node_modules``) also stands for everything below such a folder, and ``.`` for everything.
    Names are relative, with ``/``.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._expressions = [_expression(pattern) for pattern in patterns]

    def match(self, name: str) -> bool:
        """Tell whether one of the patterns matches this name."""
        return any(expression.fullmatch(name) for expression in self._expressions)


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    pattern = "**" if pattern in (".", "./") else pattern.removeprefix("./").rstrip("/")
    for found in _WILD.finditer(pattern):
        # Several `**/` in a row mean one, which also keeps hostile patterns from taking for ever.
        parts += [re.escape(pattern[end : found.start()]), _MEANING.get(found.group(), "(?:.*/)?")]
        end = found.end()
    parts.append(re.escape(pattern[end:]))
    below = "" if re.search(r"[*?]", pattern.rpartition("/")[2]) else "(?:/.*)?"
    return re.compile("".join(parts) + below, re.DOTALL)
