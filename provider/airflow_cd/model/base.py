"""What all models share: immutable, no unknown keys, durations such as ``30s``, checked names."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

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


# Names become DAG ids, task ids, file names and process names: no dots, no upper case, no surprises.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Argv = Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(min_length=1)]


def _relative(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError("is not a path inside the source; write it relative, without '..'")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
Env = dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]


def _bytes(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*[kmg]", value):
        raise ValueError("is not an amount of memory; write for example 512m or 2g")
    return value


Memory = Annotated[str, AfterValidator(_bytes)]
# Of an image, with a tag or a digest if need be; never an option of a command.
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][^\s]{0,511}$")]
# Address of a Docker engine.
Engine = Annotated[str, StringConstraints(pattern=r"^(unix|tcp|ssh)://\S+$")]
