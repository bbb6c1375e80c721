"""What runs a service's build and test commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    model_serializer,
    model_validator,
)

from airflow_cd.model.base import Duration, Engine, Frozen, ImageName, Memory
from airflow_cd.model.kubernetes import DnsLabel
from airflow_cd.model.strategy import ObjectName

_NEEDED = {"docker": "image: ...", "kubernetes": "image: ..., namespace: ..."}


def _ids(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*(:[0-9]+)?", value):
        raise ValueError("is not the number of a user other than root; write for example 1000 or 1000:1000")
    return value


User = Annotated[str, AfterValidator(_ids)]


class DockerRunnerSettings(Frozen):
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
    user: User = "1000:1000"
    memory: Memory | None = None
    cpus: float | None = Field(None, gt=0)
    processes: int = Field(4096, ge=1)
    network: Literal["bridge", "none"] = "bridge"


class KubernetesRunnerSettings(Frozen):
    """
    Jobs on a Kubernetes cluster, one per command; the commands of one task share workspace and home.

    :param image: what the commands run in. A tag may mean another image tomorrow: pin the digest where builds
        must not change with it.
    :param namespace: where the Jobs are; it has to exist
    :param conn_id: Airflow connection of type ``kubernetes``; default: the cluster the worker is in, else
        its ``KUBECONFIG``
    :param context: context of the kubeconfig
    :param service_account: whose pods these are; they get no token of it
    :param image_pull_secrets: Secrets of the namespace with the login of the image's registry
    :param pull: fetch the image every time, or only when the node has it not
    :param user: user and group ids in the pod
    :param memory: what a command is sure to get, and the most it takes, such as ``512m``; default: no limit
    :param cpus: likewise for processors, such as ``1.5``; default: no limit
    :param node_selector: labels of the nodes to run on
    :param helper: image that takes the workspace into the pod and out of it; any with ``sh``, ``tar`` and
        ``find``
    :param start_timeout: how long a command may wait for a node, and for its image
    """

    image: ImageName
    namespace: DnsLabel
    conn_id: str | None = None
    context: str | None = None
    service_account: ObjectName | None = None
    image_pull_secrets: tuple[ObjectName, ...] = ()
    pull: Literal["always", "missing"] = "missing"
    user: User = "1000:1000"
    memory: Memory | None = None
    cpus: float | None = Field(None, gt=0)
    node_selector: dict[Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9./_-]+$")], str] = Field(
        default_factory=dict
    )
    helper: ImageName = "busybox:1.36"
    start_timeout: Duration = timedelta(minutes=10)


class RunnerChoice(Frozen):
    """
    A runner other than processes of the worker: exactly one kind.

    :param docker: containers on a Docker engine
    :param kubernetes: Jobs in a Kubernetes cluster
    """

    docker: DockerRunnerSettings | None = None
    kubernetes: KubernetesRunnerSettings | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> RunnerChoice:
        kinds = list(type(self).model_fields)
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"needs exactly one kind of runner; write one of: {', '.join(kinds)}")
        return self

    @model_serializer(mode="wrap")
    def _chosen(self, write: Callable[[RunnerChoice], dict[str, Any]]) -> dict[str, Any]:
        # What is built is known by this: a kind more must not make it another.
        return {kind: settings for kind, settings in write(self).items() if settings is not None}


def _named(value: Any) -> Any:
    if value == "subprocess":
        return None
    if isinstance(value, str):
        needed = _NEEDED.get(value, "...")
        raise ValueError(f"needs settings; write for example {{{value}: {{{needed}}}}}")
    return value


# ``None`` are processes of the worker, written as ``subprocess``.
Runner = Annotated[RunnerChoice | None, BeforeValidator(_named)]
