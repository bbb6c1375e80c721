"""When a service is healthy: what is sampled, and how samples become a verdict."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, model_validator

from airflow_cd.model.base import Duration, Frozen


class HealthCheck(Frozen):
    """
    One thing to sample. Exactly one of ``http``, ``tcp`` and ``command`` is given.

    :param http: path on the service (``/healthz``) or a whole URL
    :param status: HTTP status that counts as good
    :param body: text the response must contain
    :param latency: a slower response is a failed sample
    :param tcp: port (on the service's host) or ``host:port`` that must accept a connection
    :param command: argv list that must end with exit code 0
    :param interval: time between the starts of two samples
    :param sample_timeout: a sample that takes longer has failed
    :param healthy_after: consecutive good samples that make the verdict healthy
    :param failures: bad samples within ``window`` that are tolerated; one more makes the verdict unhealthy
    :param window: over how much time failures are counted
    :param timeout: without a verdict after this time the service is unhealthy
    """

    http: str | None = None
    status: int = Field(200, ge=100, le=599)
    body: str | None = None
    latency: Duration | None = None
    tcp: Annotated[int, Field(ge=1, le=65535)] | str | None = None
    command: tuple[str, ...] | None = None
    interval: Duration = timedelta(seconds=5)
    sample_timeout: Duration = timedelta(seconds=5)
    healthy_after: int = Field(3, ge=1)
    failures: int = Field(3, ge=0)
    window: Duration = timedelta(seconds=60)
    timeout: Duration = timedelta(seconds=120)

    @property
    def shortest(self) -> timedelta:
        """Return how long a healthy service is watched at least."""
        return self.interval * (self.healthy_after - 1)

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, data: Any) -> Any:
        if isinstance(data, dict):
            given = [kind for kind in ("http", "tcp", "command") if data.get(kind) is not None]
            if len(given) != 1:
                raise ValueError("give exactly one of http, tcp and command")
        return data

    @property
    def name(self) -> str:
        """Return what is sampled, for logs."""
        if self.http is not None:
            return f"http {self.http}"
        return f"tcp {self.tcp}" if self.tcp is not None else "command " + " ".join(self.command or ())
