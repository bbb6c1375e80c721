"""What runs a service's build and test commands."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from airflow_cd.model.base import Frozen
from airflow_cd.model.fields import Engine, ImageName, Memory


def _ids(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*(:[0-9]+)?", value):
        raise ValueError("is not the number of a user other than root; write for example 1000 or 1000:1000")
    return value


class DockerRunner(Frozen):
    """
    Containers on a Docker engine, one per command; the commands of one task share workspace and home.

    :param image: what the commands run in. A tag may mean another image tomorrow: pin the digest where builds
        must not change with it.
    :param engine: address of the engine (``unix://``, ``tcp://``, ``ssh://``); default: ``DOCKER_HOST`` of
        the worker (with ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``), else the engine of its machine
    :param conn_id: Airflow connection of type ``docker`` with the login of the image's registry
    :param pull: fetch the image every time, or only when the engine has it not
    :param user: user and group ids in the container
    :param memory: most memory, such as ``512m``; default: no limit
    :param cpus: most processors, such as ``1.5``; default: no limit
    :param processes: most processes and threads at a time
    :param network: ``none`` keeps commands off the network
    """

    image: ImageName
    engine: Engine | None = None
    conn_id: str | None = None
    pull: Literal["always", "missing"] = "missing"
    user: Annotated[str, AfterValidator(_ids)] = "1000:1000"
    memory: Memory | None = None
    cpus: float | None = Field(None, gt=0)
    processes: int = Field(4096, ge=1)
    network: Literal["bridge", "none"] = "bridge"


class RunnerChoice(Frozen):
    """A runner other than processes of the worker."""

    docker: DockerRunner


def _named(value: Any) -> Any:
    if value == "subprocess":
        return None
    if isinstance(value, str):
        raise ValueError(f"needs settings; write for example {{{value}: {{image: ...}}}}")
    return value


# ``None`` are processes of the worker, written as ``subprocess``.
Runner = Annotated[RunnerChoice | None, BeforeValidator(_named)]
