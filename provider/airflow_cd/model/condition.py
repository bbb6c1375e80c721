"""The small texts that say which measured values are good or bad: ``< 0.05``, ``>= 99 and <= 101``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<operator>[<>=!]+)|(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.%])"
    r"|(?P<word>and|or)\b|(?P<other>\S+))"
)
_EXAMPLES = "write for example '< 0.05', '>= 99.9' or '> 10 and < 20'"


class Comparison(NamedTuple):
    """One comparison of what was measured with a number."""

    operator: str
    number: float

    def holds(self, value: float) -> bool:
        """Return whether it is true of the value."""
        return _OPERATORS[self.operator](value, self.number)


class Condition(NamedTuple):
    """
    Comparisons, combined with ``and`` and ``or``; ``and`` binds closer.

    :param alternatives: one of these has to hold, and of it, all
    """

    alternatives: tuple[tuple[Comparison, ...], ...]

    def holds(self, value: float) -> bool:
        """Return whether it is true of the value."""
        return any(all(one.holds(value) for one in joined) for joined in self.alternatives)


@lru_cache(maxsize=256)
def parse_condition(text: str) -> Condition:
    """
    Return what a text means.

    :raises ValueError: it is not a condition
    """
    tokens = [(str(found.lastgroup), found[0].strip()) for found in _TOKEN.finditer(text.rstrip())]
    alternatives: list[list[Comparison]] = [[]]
    for place in range(0, len(tokens) or 1, 3):
        alternatives[-1].append(_comparison(tokens[place : place + 2]))
        if len(tokens) <= place + 2:
            return Condition(tuple(tuple(joined) for joined in alternatives))
        kind, word = tokens[place + 2]
        if kind != "word":
            raise ValueError(f"has {word!r} where `and` or `or` is expected; {_EXAMPLES}")
        if word == "or":
            alternatives.append([])
    raise ValueError(f"ends after `and` or `or`; {_EXAMPLES}")


def _comparison(tokens: list[tuple[str, str]]) -> Comparison:
    kind, sign = tokens[0] if tokens else ("", "")
    if kind != "operator":
        found = f"has {sign!r}" if sign else "ends"
        raise ValueError(f"{found} where a comparison is expected; {_EXAMPLES}")
    if sign not in _OPERATORS:
        raise ValueError(f"has no comparison {sign!r}; these are known: {' '.join(_OPERATORS)}")
    kind, number = tokens[1] if len(tokens) > 1 else ("", "")
    if kind != "number":
        found = f"has {number!r}" if number else "ends"
        raise ValueError(f"{found} where a number is expected after {sign!r}; {_EXAMPLES}")
    return Comparison(sign, float(number))


def _checked(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not a condition; {_EXAMPLES}, in quotes")
    parse_condition(value)
    return value.strip()


# Kept as people write it.
ConditionText = Annotated[str, BeforeValidator(_checked)]
