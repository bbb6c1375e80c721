"""Where the releases of an environment run."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.base import Argv, Duration, Engine, Env, Frozen, ImageName, Memory
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.target_settings import Capability, TargetSettings, settings_class


class LocalTargetSettings(TargetSettings):
    """
    Processes on the machine Airflow's workers run on.

    :param command: argv list; the process must listen on the port in its environment variable ``PORT``
    :param port: where the service answers, whatever release runs
    :param host: address the service answers on
    :param env: environment variables of the process
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

    @property
    def address(self) -> tuple[str, ...]:
        """Return the address and port it listens on."""
        return "", self.host, str(self.port)

    @property
    def described(self) -> str:
        """Return where the service answers, for people."""
        return f"http://{self.host}:{self.port}"


class VolumeSettings(Frozen):
    """
    A folder that outlives releases.

    :param source: name of a volume of the engine, or an absolute path on its machine
    :param target: absolute path in the container
    :param read_only: whether the container can only read it
    """

    source: Annotated[str, StringConstraints(pattern=r"^(/|[a-zA-Z0-9][a-zA-Z0-9_.-]*$)[^:\s]*$")]
    target: Annotated[str, StringConstraints(pattern=r"^/[^:\s]+$")]
    read_only: bool = False


class DockerTargetSettings(TargetSettings):
    """
    Containers on a Docker engine, behind a small proxy in a container of its own.

    :param port: where the service answers on the engine's machine, whatever release runs
    :param container_port: the port the container listens on; the variable ``PORT`` holds it as well
    :param host: address of the engine's machine on which the service answers
    :param url: where Airflow reaches the service; default: made of ``host`` and ``port``
    :param engine: address of the engine (``unix://``, ``tcp://``, ``ssh://``); default: ``DOCKER_HOST`` of
        the worker (with ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``), else the engine of its machine
    :param conn_id: Airflow connection of type ``docker``: the login of the images' registry, and the
        certificates for an engine behind TLS
    :param command: arguments instead of the image's own ``CMD``
    :param user: user and group in the container; default: the image's
    :param env: environment variables of the container
    :param secrets: name of a file under ``/run/secrets`` -> Airflow connection whose password it holds
    :param volumes: folders that outlive releases
    :param networks: networks of the engine that the container joins, where databases are, say
    :param memory: most memory, such as ``512m``; default: no limit
    :param cpus: most processors, such as ``1.5``; default: no limit
    :param init: run the command below a tiny init, which hands on signals and collects orphans. Without, a
        program that does not expect to be process 1 may ignore SIGTERM.
    :param restart: whether the engine starts a container again that ended
    :param ready: path that must answer below 400 before the new release gets requests; without it
        any answer to ``/`` will do. A ``HEALTHCHECK`` of the image must say ``healthy`` besides
    :param start_timeout: how long a release may take to become ready
    :param drain: how long requests to the old release may take to finish after the switch
    :param stop_timeout: how long the old container may take to end after SIGTERM
    :param keep: how many previous releases' images stay on the engine, ready to be rolled back to
    :param front: image of the proxy; any with ``caddy`` and BusyBox
    """

    takes = "image"

    port: int = Field(ge=1, le=65535)
    container_port: int = Field(8080, ge=1, le=65535)
    host: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+$")] = "127.0.0.1"
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S*[^/\s]$")] | None = None
    engine: Engine | None = None
    conn_id: str | None = None
    command: Argv | None = None
    user: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_][a-zA-Z0-9_.:-]*$")] | None = None
    env: Env = Field(default_factory=dict)
    secrets: dict[Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]*$")], str] = Field(
        default_factory=dict
    )
    volumes: tuple[VolumeSettings, ...] = ()
    networks: tuple[Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")], ...] = ()
    memory: Memory | None = None
    cpus: float | None = Field(None, gt=0)
    init: bool = False
    restart: Literal["always", "unless-stopped", "on-failure", "no"] = "unless-stopped"
    ready: Annotated[str, StringConstraints(pattern=r"^/\S*$")] | None = None
    start_timeout: Duration = timedelta(seconds=60)
    drain: Duration = timedelta(seconds=10)
    stop_timeout: Duration = timedelta(seconds=10)
    keep: int = Field(5, ge=1)
    front: ImageName = "caddy:2"

    @model_validator(mode="after")
    def _reachable(self) -> DockerTargetSettings:
        machine = urlsplit(self.engine or "").hostname
        if machine and self.url is None and self.host in ("127.0.0.1", "::1"):
            raise ValueError(
                f"would answer on {self.host} of {machine} only; set `host` to an address of that machine "
                "(0.0.0.0 for all), or `url` to where it is reached"
            )
        return self

    @property
    def remote(self) -> tuple[str, ...]:
        """Return the engine."""
        return "docker", self.engine or "", self.conn_id or ""

    @property
    def address(self) -> tuple[str, ...]:
        """Return the engine, and the address and port it listens on there."""
        return self.engine or "", self.host, str(self.port)

    @property
    def described(self) -> str:
        """Return where the service answers, for people."""
        if self.url is not None:
            return self.url
        return f"http://{self.host}:{self.port}" + (f" on {self.engine}" if self.engine else "")


class TargetChoice(Frozen):
    """
    Where releases of an environment run: exactly one kind of target.

    Any other key is a kind that an installed package adds (entry point group ``airflow_cd.targets``).

    :param local: processes on the workers' machine
    :param docker: containers on a Docker engine
    :param kubernetes: objects in a Kubernetes namespace
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": {"type": "object"}})

    local: LocalTargetSettings | None = None
    docker: DockerTargetSettings | None = None
    kubernetes: KubernetesTargetSettings | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> TargetChoice:
        if sum(settings is not None for _, settings in self) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise ValueError(f"needs exactly one kind of target; write one of: {kinds}")
        return self

    @model_validator(mode="after")
    def _settings_of_packages(self) -> TargetChoice:
        added: dict[str, Any] = self.model_extra or {}
        for kind, raw in added.items():
            try:
                settings = settings_class(kind)
            except DefinitionError as error:
                raise ValueError(str(error)) from error
            # As the value of a mapping, so that errors have the kind in their place.
            added.update(TypeAdapter(dict[str, settings]).validate_python({kind: raw}))  # type: ignore[valid-type]
        return self

    @property
    def kind(self) -> str:
        """Return the name of the kind, as written in services.yaml."""
        return next(kind for kind, settings in self if settings is not None)

    @property
    def settings(self) -> TargetSettings:
        """Return the settings of this kind."""
        settings: TargetSettings = next(settings for _, settings in self if settings is not None)
        return settings

    @property
    def takes(self) -> str:
        """Return what kind of release runs there: ``archive`` or ``image``."""
        return self.settings.takes

    def can(self, capability: Capability) -> bool:
        """Return whether this kind of target has a capability."""
        return capability in self.settings.capabilities

    @property
    def described(self) -> str:
        """Return where the service answers, for people."""
        return self.settings.described
