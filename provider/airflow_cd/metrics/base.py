"""What a metric does: it measures one value of what is judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from airflow_cd.model.subject import Subject


class Reading(NamedTuple):
    """
    What was measured.

    :param value: ``None`` when there is no data; never NaN, never infinite
    :param detail: what else is worth telling, in a few words: why there is no data, or a server's warning
    """

    value: float | None
    detail: str = ""


@dataclass(frozen=True)
class MetricLogin:
    """
    What a server is asked with.

    :param conn_id: the connection it comes from, for messages
    :param base_url: the one server that may see it, without a trailing slash; ``None`` where any may
    :param user: with ``password``, for basic authentication
    :param password: without ``user`` it is a bearer token
    :param headers: more of them, which may be secret
    """

    conn_id: str
    base_url: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def hidden_in(self, text: str) -> str:
        """Return a server's words without the secrets that it may have repeated."""
        for secret in (self.password, *self.headers.values()):
            if secret:
                text = text.replace(secret, "***")
        return text


# Returns what the connection of an id says. Called for each measurement, so that a changed password counts
# at once. Raises MetricError when there is no such connection, or it cannot be used.
Logins = Callable[[str], Awaitable[MetricLogin]]


class Metric(Protocol):
    """Something that can be measured. Measuring changes nothing, and may be done at any time, in parallel."""

    async def measure(self, subject: Subject) -> Reading:
        """
        Measure once, as of now, without blocking the event loop.

        :raises MetricError: it cannot be measured; this says nothing about the release
        """
