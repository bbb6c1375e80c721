"""Docker engines and registries, with the login and the certificates of an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import EngineError

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from docker import DockerClient

# Images are pulled meanwhile.
_ANSWER_SECONDS = 600
_CONNECT_SECONDS = 10


def docker_client(
    engine: str | None, conn_id: str | None, *, answer_seconds: int = _ANSWER_SECONDS
) -> DockerClient:
    """
    Return a client of an engine.

    :param engine: its address; ``None`` is ``DOCKER_HOST`` of this process, else the engine of this machine
    :param conn_id: connection of type ``docker``, as the Docker provider has it: the login of a registry, and
        in its extra ``ca_cert``, ``client_cert`` and ``client_key``, paths of an engine's certificates
    :param answer_seconds: how long the engine may be silent during a request. It must say which version it
        has within 10 s.
    :raises EngineError: there is no such connection, its certificates cannot be used, or the registry
        refuses the login
    :raises docker.errors.DockerException: the engine does not answer
    """
    import docker

    connection = _connection(conn_id) if conn_id is not None else None
    if engine is None:
        client = docker.from_env(timeout=_CONNECT_SECONDS)
    else:
        tls = _tls(connection) if connection is not None else False
        client = docker.DockerClient(base_url=engine, timeout=_CONNECT_SECONDS, tls=tls)
    client.api.timeout = answer_seconds
    if connection is not None and connection.host:
        _log_in(client, connection)
    return client


def password_of(conn_id: str) -> str:
    """
    Return the password of a connection, masked in logs.

    :raises EngineError: it is missing, or has none
    """
    connection = _connection(conn_id)
    if not connection.password:
        raise EngineError(f"connection {conn_id!r} has no password")
    return str(connection.password)


def registry_login(conn_id: str | None) -> tuple[str, str] | None:
    """
    Return user and password of a registry.

    :raises EngineError: there is no such connection
    """
    connection = _connection(conn_id) if conn_id is not None else None
    if connection is None or not connection.host:
        return None
    return connection.login or "", connection.password or ""


def _connection(conn_id: str) -> Connection:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.log import mask_secret

    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        raise EngineError(f"there is no connection {conn_id!r}; add one of type docker") from error
    if connection.password:
        mask_secret(connection.password)
    return connection


def _tls(connection: Connection) -> Any:
    from docker.errors import TLSParameterError
    from docker.tls import TLSConfig

    extra = connection.extra_dejson
    authority, certificate, key = (extra.get(name) for name in ("ca_cert", "client_cert", "client_key"))
    if not (authority or certificate):
        return False
    try:
        pair = (certificate, key) if certificate else None
        return TLSConfig(client_cert=pair, ca_cert=authority, verify=True)
    except TLSParameterError as error:
        raise EngineError(f"the certificates of connection {connection.conn_id!r}: {error}") from error


def _log_in(client: DockerClient, connection: Connection) -> None:
    from docker.errors import APIError

    registry = str(connection.host)
    if connection.port:
        registry = f"{registry}:{connection.port}"
    try:
        # What the engine's machine or this user has stored must not stand in for the connection.
        client.login(connection.login or "", connection.password or "", registry=registry, reauth=True)
    except APIError as error:
        raise EngineError(
            f"{registry} refuses the login of connection {connection.conn_id!r}: {error}"
        ) from error
