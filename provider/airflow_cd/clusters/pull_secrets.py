"""Registry logins of Airflow connections as Secrets, so that a namespace can pull images."""

from __future__ import annotations

from airflow_cd.clusters.namespaces import RegistryLogin, auth_of, pull_secret
from airflow_cd.exceptions import EngineError

# As Docker and kubelets call the registry of images that name none.
_DOCKER_HUB = "https://index.docker.io/v1/"
_CALLED_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com")


def login_of(conn_id: str) -> RegistryLogin:
    """
    Return registry and login of a connection of type ``docker``, masked in logs however they are written.

    :raises EngineError: there is no such connection, or it lacks a part
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.log import mask_secret

    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        raise EngineError(f"there is no connection {conn_id!r}; add one of type docker") from error
    missing = [name for name in ("host", "login", "password") if not getattr(connection, name)]
    if missing:
        raise EngineError(
            f"connection {conn_id!r} has no {' and no '.join(missing)}; a pull secret needs all three"
        )
    login = RegistryLogin(
        _registry(str(connection.host), connection.port), str(connection.login), str(connection.password)
    )
    data = pull_secret("any", "any", login)["data"]
    for secret in (login.password, auth_of(login), *data.values()):
        mask_secret(secret)
    return login


def _registry(host: str, port: int | None) -> str:
    name = host.removeprefix("https://").removeprefix("http://").split("/")[0]
    if name in _CALLED_DOCKER_HUB:
        return _DOCKER_HUB
    return f"{name}:{port}" if port and ":" not in name else name
