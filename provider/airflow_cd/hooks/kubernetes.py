"""Clients of Kubernetes clusters from Airflow connections of type ``kubernetes``."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import ClusterError
from airflow_cd.kubernetes.errors import blames_object
from airflow_cd.model.yaml_limits import check_depth
from airflow_cd.processes.blocking import in_threads_of
from airflow_cd.processes.private_folder import folder_of_process

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration
    from kubernetes_asyncio.client import ApiClient as WatchClient

_OLD_PREFIX = "extra__kubernetes__"
_SOURCES = ("in_cluster", "kube_config_path", "kube_config")
_DEFAULT_KUBECONFIG = "~/.kube/config"
_LONGEST_KUBECONFIG = 4 * 1024 * 1024
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
        path = str(extras["kube_config_path"])
        for part in path.split(os.pathsep):
            _refuse_commands(_content_of(part), context, where)
        return _from_file(path, context, where)
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
            check_depth(text)
            text = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            # What the parser says quotes the text, and with it its secrets.
            raise ClusterError(f"{where}: its kube_config is neither JSON nor YAML") from None
    if not isinstance(text, dict):
        raise ClusterError(f"{where}: its kube_config is not that of a cluster: it must be an object")
    for secret in _secrets_in(text.get("users")):
        mask_secret(secret)
    _refuse_commands(text, context, where)
    configuration = Configuration()
    try:
        # The library writes keys and certificates to files.
        folder = str(folder_of_process("kube"))
        load_kube_config_from_dict(text, context, configuration, temp_file_path=folder)
    except (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ClusterError(f"{where}: its kube_config cannot be used: {error}") from error
    return configuration


def _content_of(path: str) -> Any:
    """Return the content of a kubeconfig, ``None`` where there is none that can be read: its use says so."""
    import yaml

    try:
        with Path(path).expanduser().open("rb") as file:
            text = file.read(_LONGEST_KUBECONFIG).decode("utf-8", "replace")
        check_depth(text)
        return yaml.safe_load(text)
    except (OSError, yaml.YAMLError, ValueError):
        return None


def _refuse_commands(kubeconfig: Any, context: str | None, where: str) -> None:
    """
    Refuse a user of a kubeconfig that runs a program: a user who edits connections would run it on workers.

    :param kubeconfig: its content
    :param context: the one to use; its current one by default
    :raises ClusterError: the user of the context has ``exec`` or ``auth-provider``, and that is not allowed
    """
    from airflow.configuration import conf

    named = {
        kind: {
            one.get("name"): one.get(kind[:-1]) for one in kubeconfig.get(kind) or [] if isinstance(one, dict)
        }
        for kind in ("contexts", "users")
        if isinstance(kubeconfig, dict) and isinstance(kubeconfig.get(kind), list)
    }
    used = named.get("contexts", {}).get(context or (kubeconfig or {}).get("current-context"))
    user = named.get("users", {}).get(used.get("user")) if isinstance(used, dict) else None
    if not isinstance(used, dict) or not isinstance(user, dict):
        return
    found = [key for key in ("exec", "auth-provider") if user.get(key)]
    if found and not conf.getboolean("cd", "kubeconfig_commands", fallback=False):
        raise ClusterError(
            f"{where}: the user {used['user']!r} of its kubeconfig has `{found[0]}`, which runs a program on "
            "the worker; use a token, or allow it with [cd] kubeconfig_commands = True"
        )


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


# A server that does not answer within these is not waited for. Some admission webhooks take up to 30 s.
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 35.0
_RETRIED_SECONDS = 15.0
_RETRIED_STATUS = (429, 500, 502, 503, 504)
# What may be done twice. Patches are: those of this package say what is to be, or which version they are of.
_REPEATABLE = ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
# Taken from Airflow's own [kubernetes_executor] tcp_keep_idle, tcp_keep_intvl and tcp_keep_cnt.
_KEEPALIVE = (("TCP_KEEPIDLE", 120), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 6))
# What both libraries call the same. Proxies are left to the environment, which says who is reached without.
_SAME = ("host", "ssl_ca_cert", "cert_file", "key_file", "verify_ssl", "tls_server_name", "api_key")


def kubernetes_client(conn_id: str | None, context: str | None) -> ApiClient:
    """
    Return a client of a cluster. It connects when it is first used, and may be used by several threads.

    A request that is not answered ends after 5 s without a connection and 35 s without an answer. What may
    be repeated is, for about 15 s, when the server cannot be reached, is overloaded or fails. Responses that
    are read piece by piece, such as logs that are followed, have no time limit of their own.

    To be called in a task, or in a thread of the triggerer (``processes.blocking``): there, connections are
    asked for through the event loop, which this waits for, and the first call imports a large library.

    :param conn_id: connection of type ``kubernetes``; ``None`` is the cluster that this process runs in, else
        that of ``KUBECONFIG`` or of ``~/.kube/config``
    :param context: context of the kubeconfig; ``None`` is the connection's, or the kubeconfig's own
    :raises ClusterError: there is no such connection, or what it says cannot be used
    """
    configuration, keepalive = configuration_of(conn_id, context)
    configuration.retries = False  # the client's own are not the pool's
    if keepalive:
        configuration.socket_options = _socket_options()
    client: ApiClient = _client_class()(configuration)
    client.user_agent = "airflow-cd"
    return client


async def kubernetes_watch_client(conn_id: str | None, context: str | None) -> WatchClient:
    """
    Return a client for the running event loop, which the caller must close.

    The connection is read in a thread, so this may be awaited on the triggerer's event loop. Neither time
    limits nor repetitions are its own: the watch sets its own limits.

    :param conn_id: as of :func:`kubernetes_client`, as ``context`` is
    :raises ClusterError: there is no such connection, or what it says cannot be used
    """
    remote = ("kubernetes", conn_id or "", context or "")
    configuration = await in_threads_of(remote, _watch_configuration, conn_id, context)
    from kubernetes_asyncio.client import ApiClient

    client: WatchClient = ApiClient(configuration)
    client.user_agent = "airflow-cd"
    return client


def _watch_configuration(conn_id: str | None, context: str | None) -> Any:
    from kubernetes_asyncio.client import Configuration

    found, _ = configuration_of(conn_id, context)
    configuration = Configuration()
    for name in _SAME:
        setattr(configuration, name, getattr(found, name))

    def refresh(ours: Any) -> None:
        # Tokens that expire are read or asked for again, as the other library does.
        found.get_api_key_with_prefix("BearerToken")
        ours.api_key = found.api_key

    configuration.refresh_api_key_hook = refresh
    return configuration


@cache
def _client_class() -> type[ApiClient]:
    """Return the class of clients; it is made here since its base is not imported before it is needed."""
    from kubernetes.client import ApiClient, ApiException
    from tenacity import Retrying, stop_after_delay, wait_exponential, wait_random
    from urllib3.exceptions import HTTPError

    class Client(ApiClient):  # type: ignore[misc, unused-ignore]
        def call_api(self, resource_path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("_request_timeout") is None:
                streamed = kwargs.get("_preload_content") is False
                kwargs["_request_timeout"] = (_CONNECT_SECONDS, None if streamed else _READ_SECONDS)
            attempts = Retrying(
                retry=_Retry(method),
                stop=stop_after_delay(_RETRIED_SECONDS),
                wait=wait_exponential(multiplier=0.2, max=3) + wait_random(0, 0.2),
                reraise=True,
            )
            return attempts(super().call_api, resource_path, method, *args, **kwargs)

        def request(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().request(*args, **kwargs)
            except ApiException as error:
                # Errors of TLS are made into an answer without a body, which this library trips over.
                if error.status == 0 and isinstance(error.__context__, HTTPError):
                    raise error.__context__ from None
                raise

    return Client


class _Retry:
    """
    Says whether a request is made again.

    :param method: of the request
    """

    def __init__(self, method: str) -> None:
        self._repeatable = method.upper() in _REPEATABLE

    def __call__(self, state: Any) -> bool:
        from kubernetes.client import ApiException
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        error = state.outcome.exception()
        if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
            return True  # it never got there
        if isinstance(error, HTTPError):
            return self._repeatable and "CERTIFICATE" not in str(error)
        if not isinstance(error, ApiException):
            return False
        if error.status == 429:
            return True
        fails = error.status in _RETRIED_STATUS and not blames_object(str(error.body))
        return self._repeatable and fails


def _socket_options() -> list[tuple[int, int, int]]:
    from urllib3.connection import HTTPConnection

    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # Not every system has them.
    known = [(getattr(socket, name, None), value) for name, value in _KEEPALIVE]
    return [*options, *((socket.IPPROTO_TCP, name, value) for name, value in known if name is not None)]
