"""What every model shares: immutability, no unknown keys, and durations people write as ``30s`` or ``3d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$"


class Frozen(BaseModel):
    """Base of the values of this package: immutable, and an unknown key is an error."""

    # Most of them are parts of another one, which needs no validator of theirs, or are not used by a process
    # at all: each validator is made when it is first needed. (Defaults that are models are constructed, not
    # called, for that reason: a call would make the validator when this package is imported.)
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def parse_duration(value: Any) -> timedelta:
    """
    Turn ``90s``, ``1h30m``, ``3d`` or a number of seconds into a duration.

    :raises ValueError: it is none of these, or not positive
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and re.match(DURATION_PATTERN, value.strip()):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(value))
    else:
        raise ValueError("is not a duration; write for example 500ms, 30s, 5m, 1h30m or 3d")
    if seconds < 0:
        raise ValueError("is negative; a duration is at least 0")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration the way people write it in services.yaml."""
    seconds = value.total_seconds()
    for unit in ("w", "d", "h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def format_age(value: timedelta) -> str:
    """Write how long something took or is ago, in its two largest units: ``40s``, ``3m 20s``, ``2d 5h``."""
    left = max(int(value.total_seconds()), 0)
    counts: list[str] = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        if count or counts:
            counts.append(f"{count}{unit}" if count else "")
    return " ".join(filter(None, counts[:2])) or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"type": "number", "minimum": 0}]}
    ),
]
