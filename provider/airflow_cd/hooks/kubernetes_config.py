"""What a connection of type ``kubernetes`` says about its cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import ClusterError

if TYPE_CHECKING:
    from kubernetes.client import Configuration

_OLD_PREFIX = "extra__kubernetes__"
_SOURCES = ("in_cluster", "kube_config_path", "kube_config")
_DEFAULT_KUBECONFIG = "~/.kube/config"
# Of a user of a kubeconfig, at whatever depth.
_SECRETS = (
    "token",
    "password",
    "client-key-data",
    "id-token",
    "refresh-token",
    "access-token",
    "client-secret",
)


def configuration_of(conn_id: str | None, context: str | None) -> tuple[Configuration, bool]:
    """
    Return how a cluster is reached, and whether connections to it are kept alive.

    Of the connection's extras, those of the Kubernetes provider's hook are read, with and without the prefix
    ``extra__kubernetes__`` of old: ``in_cluster``, ``kube_config_path``, ``kube_config``,
    ``cluster_context``, ``disable_verify_ssl`` and ``disable_tcp_keepalive``. Which namespace is used is the
    target's to say.

    :raises ClusterError: there is no such connection, or what it says cannot be used
    """
    if conn_id is None:
        return _masked(_default(context, "no connection is named")), True
    extras = _extras(conn_id)
    named = [name for name in _SOURCES if extras.get(name)]
    if len(named) > 1:
        raise ClusterError(f"connection {conn_id!r} says {' and '.join(named)}; it can say one of them")
    context = context or extras.get("cluster_context")
    configuration = _masked(_read(conn_id, extras, context))
    if extras.get("disable_verify_ssl"):
        configuration.verify_ssl = False
    return configuration, not extras.get("disable_tcp_keepalive")


def _extras(conn_id: str) -> dict[str, Any]:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException as error:
        raise ClusterError(
            f"there is no connection {conn_id!r}; add one of type kubernetes, or take conn_id out to use the "
            "cluster that Airflow runs in, or its KUBECONFIG"
        ) from error
    if connection.conn_type != "kubernetes":
        raise ClusterError(f"connection {conn_id!r} is of type {connection.conn_type!r}, not kubernetes")
    extras = {key.removeprefix(_OLD_PREFIX): value for key, value in connection.extra_dejson.items()}
    # The names of today win over those of old.
    extras.update({key: value for key, value in connection.extra_dejson.items() if key in extras})
    switches = ("in_cluster", "disable_verify_ssl", "disable_tcp_keepalive")
    return {**extras, **{name: _is_on(conn_id, name, extras.get(name)) for name in switches}}


def _is_on(conn_id: str, name: str, value: Any) -> bool:
    if value in (None, ""):
        return False
    found = {"true": True, "false": False}.get(str(value).strip().lower())
    if found is None:
        raise ClusterError(f"connection {conn_id!r}: {name} is {value!r}; write true or false")
    return found


def _read(conn_id: str, extras: Mapping[str, Any], context: str | None) -> Configuration:
    where = f"connection {conn_id!r}"
    if extras["in_cluster"]:
        configuration = _in_cluster()
        if configuration is None:
            raise ClusterError(
                f"{where} says in_cluster, but this process runs in no cluster, or its pod has no token of "
                "its service account"
            )
        return configuration
    if extras.get("kube_config_path"):
        return _from_file(str(extras["kube_config_path"]), context, where)
    if extras.get("kube_config"):
        return _from_text(extras["kube_config"], context, where)
    return _default(context, f"{where} names none")


def _default(context: str | None, why: str) -> Configuration:
    # A context is one of a kubeconfig.
    configuration = _in_cluster() if context is None else None
    if configuration is not None:
        return configuration
    # The library reads the variable when it is imported, which may be long ago.
    path = os.environ.get("KUBECONFIG") or _DEFAULT_KUBECONFIG
    return _from_file(path, context, f"no cluster is around this process and {why}, so KUBECONFIG is used")


def _in_cluster() -> Configuration | None:
    """Return how the cluster around this process is reached, if there is one."""
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, load_incluster_config

    configuration = Configuration()
    try:
        load_incluster_config(configuration)
    except ConfigException:
        return None
    return configuration


def _from_file(path: str, context: str | None, where: str) -> Configuration:
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, load_kube_config
    from yaml import YAMLError

    if not any(Path(part).expanduser().is_file() for part in path.split(os.pathsep) if part):
        raise ClusterError(f"{where}: there is no kubeconfig at {path!r}")
    configuration = Configuration()
    try:
        load_kube_config(path, context, configuration)
    except (ConfigException, YAMLError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ClusterError(f"{where}: the kubeconfig at {path!r} cannot be used: {error}") from error
    return configuration


def _from_text(text: Any, context: str | None, where: str) -> Configuration:
    import yaml
    from airflow.sdk.log import mask_secret
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, load_kube_config_from_dict

    if isinstance(text, str):
        mask_secret(text)
        try:
            text = yaml.safe_load(text)
        except yaml.YAMLError:
            # What the parser says quotes the text, and with it its secrets.
            raise ClusterError(f"{where}: its kube_config is neither JSON nor YAML") from None
    if not isinstance(text, dict):
        raise ClusterError(f"{where}: its kube_config is not that of a cluster: it must be an object")
    for secret in _secrets_in(text.get("users")):
        mask_secret(secret)
    configuration = Configuration()
    try:
        load_kube_config_from_dict(text, context, configuration)
    except (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ClusterError(f"{where}: its kube_config cannot be used: {error}") from error
    return configuration


def _secrets_in(node: Any) -> list[str]:
    if isinstance(node, list):
        return [secret for one in node for secret in _secrets_in(one)]
    if not isinstance(node, dict):
        return []
    # Variables of commands that fetch a token.
    own = [value for key, value in node.items() if key in _SECRETS or (key == "value" and "name" in node)]
    return [str(value) for value in own if value] + _secrets_in(list(node.values()))


def _masked(configuration: Configuration) -> Configuration:
    from airflow.sdk.log import mask_secret

    token = configuration.api_key.get("BearerToken")
    if token:
        mask_secret(token.rpartition(" ")[2])
    return configuration
