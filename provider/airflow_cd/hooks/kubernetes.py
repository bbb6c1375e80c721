"""Clients of Kubernetes clusters, by the connections that Airflow's Kubernetes provider has."""

from __future__ import annotations

import asyncio
import socket
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_cd.hooks.kubernetes_config import configuration_of
from airflow_cd.targets.kubernetes.refusals import blames_object

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes_asyncio.client import ApiClient as WatchClient

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

    To be called in a task, or in a thread of the triggerer, as by ``asyncio.to_thread``: there, connections
    are asked for through the event loop, which this waits for, and the first call imports a large library.

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
    Return a client for the running event loop, which whoever asked for it has to close.

    The connection is read in a thread, so this may be awaited on the triggerer's event loop. Neither time
    limits nor repetitions are its own: whoever watches knows how long nothing may come.

    :param conn_id: as of :func:`kubernetes_client`, as ``context`` is
    :raises ClusterError: there is no such connection, or what it says cannot be used
    """
    configuration = await asyncio.to_thread(_watch_configuration, conn_id, context)
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
        # Tokens that expire are read or asked for anew, as the other library does.
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
    """Says whether a request is made again. :param method: of the request"""

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
