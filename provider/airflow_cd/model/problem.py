"""What keeps a workload of Kubernetes from becoming ready, in words, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, get_args

from airflow_cd.model.base import Frozen
from airflow_cd.model.text import printable

# The most telling first.
Category = Literal[
    "image",
    "configuration",
    "crash",
    "volume",
    "admission",
    "quota",
    "unschedulable",
    "node",
    "readiness",
    "paused",
    "deadline",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)
_LONGEST_LINE = 300
_MOST_LINES = 20

Event = Mapping[str, Any]


class Problem(Frozen):
    """
    One thing that keeps a workload from becoming ready.

    :param category: a stable word
    :param summary: one sentence, with the object's name, without its full stop
    :param detail: what the cluster, or the container itself, said of it
    :param remedy: what to do
    :param certain: it will not get better by waiting
    :param pod: the first pod that has it
    :param container: ... and the container of it
    """

    category: Category
    summary: str
    remedy: str
    certain: bool
    detail: str = ""
    pod: str | None = None
    container: str | None = None

    @property
    def text(self) -> str:
        """Return all of it for people: one line, and more only for what the container said."""
        if "\n" in self.detail or self.category == "crash" and self.detail:
            return f"{self.summary}. {self.remedy}. It said last:\n{self.detail}"
        return f"{self.summary}{': ' + self.detail if self.detail else ''}. {self.remedy}"


def told(text: object) -> str:
    """Return what somebody else said, fit for one line."""
    return printable(" ".join(str(text or "").split()), _LONGEST_LINE).rstrip(".")


def lines_told(text: str) -> str:
    """Return the last lines of what somebody else said, each fit for a line."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(printable(line, _LONGEST_LINE) for line in lines[-_MOST_LINES:])


def parsed(time: object) -> datetime | None:
    """Return a time of the API, ``None`` for what is not there or is none."""
    try:
        moment = datetime.fromisoformat(str(time).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def seconds_since(time: object, now: datetime) -> float:
    """Return how long a time of the API is ago; 0 when it is not there."""
    moment = parsed(time)
    return (now - moment).total_seconds() if moment else 0.0


def first_seen(event: Event) -> object:
    """Return when an event happened first."""
    return event.get("firstTimestamp") or event.get("eventTime") or _created(event)


def last_seen(event: Event) -> object:
    """Return when an event happened last."""
    series = event.get("series") or {}
    return series.get("lastObservedTime") or event.get("lastTimestamp") or first_seen(event)


def times_seen(event: Event) -> int:
    """Return how often an event happened."""
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def told_of(events: Iterable[Event], thing: Mapping[str, Any]) -> list[Event]:
    """Return the events about an object, the newest first."""
    uid = thing["metadata"].get("uid")
    found = [event for event in events if (event.get("involvedObject") or {}).get("uid") == uid]
    return sorted(found, key=lambda event: str(last_seen(event)), reverse=True)


def newest(events: Sequence[Event], reasons: Iterable[str], saying: str = "") -> Event | None:
    """Return the first of the events with one of these reasons whose message has these words."""
    wanted = set(reasons)
    return next(
        (
            event
            for event in events
            if event.get("reason") in wanted and saying in str(event.get("message") or "")
        ),
        None,
    )


def _created(event: Event) -> object:
    return (event.get("metadata") or {}).get("creationTimestamp")
