"""Docker engines, with the login of a registry from an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_cd.exceptions import RunnerError

if TYPE_CHECKING:
    from docker import DockerClient

# Images are pulled meanwhile.
_TIMEOUT_SECONDS = 600


def docker_client(engine: str | None, conn_id: str | None) -> DockerClient:
    """
    Return a client of an engine.

    :param engine: its address; ``None`` is ``DOCKER_HOST`` of this process, else the engine of this machine
    :param conn_id: connection of type ``docker`` with the login of a registry, as the Docker provider has it
    :raises RunnerError: there is no such connection, or the registry refuses the login
    :raises docker.errors.DockerException: the engine does not answer
    """
    import docker

    if engine is None:
        client = docker.from_env(timeout=_TIMEOUT_SECONDS)
    else:
        client = docker.DockerClient(base_url=engine, timeout=_TIMEOUT_SECONDS)
    if conn_id is not None:
        _log_in(client, conn_id)
    return client


def _log_in(client: DockerClient, conn_id: str) -> None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.log import mask_secret
    from docker.errors import APIError

    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        raise RunnerError(f"there is no connection {conn_id!r}; add one of type docker") from error
    if connection.password:
        mask_secret(connection.password)
    registry = connection.host or ""
    if connection.port:
        registry = f"{registry}:{connection.port}"
    try:
        # What the engine's machine or this user has stored must not stand in for the connection.
        client.login(connection.login or "", connection.password or "", registry=registry, reauth=True)
    except APIError as error:
        raise RunnerError(f"{registry} refuses the login of connection {conn_id!r}: {error}") from error
