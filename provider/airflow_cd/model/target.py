"""Where the releases of an environment run."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, StringConstraints

from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.fields import Argv, Env


class LocalTarget(Frozen):
    """
    Processes on the machine Airflow's workers run on.

    :param command: argv list; the process must listen on the port in its environment variable ``PORT``
    :param port: where the service answers, whatever release runs
    :param host: address the service answers on
    :param ready: path that must answer below 400 before the new release gets requests; without it the
        release is ready when its port accepts a connection
    :param start_timeout: how long a release may take to become ready
    :param drain: how long requests to the old release may take to finish after the switch
    :param keep: how many previous releases stay unpacked, ready to be rolled back to
    """

    command: Argv
    port: int = Field(ge=1, le=65535)
    host: str = "127.0.0.1"
    env: Env = Field(default_factory=dict)
    ready: Annotated[str, StringConstraints(pattern=r"^/")] | None = None
    start_timeout: Duration = timedelta(seconds=30)
    drain: Duration = timedelta(seconds=10)
    keep: int = Field(5, ge=1)


class TargetChoice(Frozen):
    """Where releases of an environment run: exactly one kind of target."""

    local: LocalTarget

    @property
    def kind(self) -> str:
        """Return the name of the kind, as written in services.yaml."""
        return "local"
