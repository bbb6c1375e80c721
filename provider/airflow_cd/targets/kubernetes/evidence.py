"""What the cluster can tell of one object besides the object: its events, and what a container said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow_cd.exceptions import TargetError

if TYPE_CHECKING:
    from airflow_cd.targets.kubernetes.cluster import NamespaceClient

_REMOVED = "unable to retrieve container logs for "
# A log may have lines of any length.
_MOST_BYTES = 256 * 1024
# Its node may not answer; the rollout must not wait for that.
_CONNECT_SECONDS, _READ_SECONDS = 5, 10


class LogRemovedError(TargetError):
    """Raised when a container's log went with the container."""


def events_of(cluster: NamespaceClient, uid: str) -> list[dict[str, Any]]:
    """Return the events about the object of this uid. :raises TargetError: they cannot be read"""
    path = f"/api/v1/namespaces/{cluster.namespace}/events"
    with cluster.reported("events"):
        found = cluster.request("GET", path, query={"fieldSelector": f"involvedObject.uid={uid}"})
    return list(found["items"])


def last_lines(cluster: NamespaceClient, pod: str, container: str, *, previous: bool, lines: int) -> str:
    """
    Return what a container wrote last.

    :param previous: the container before the one that is there now, after it was restarted
    :raises LogRemovedError: the container was removed
    :raises TargetError: it cannot be read
    """
    query = {
        "container": container,
        "previous": str(previous).lower(),
        "tailLines": str(lines),
        "limitBytes": str(_MOST_BYTES),
    }
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/log?{urlencode(query)}"
    with cluster.reported(f"log of pod {pod}"):
        # By itself the client takes a line that is JSON for an answer of the API; and it asks again and again
        # where there is no log to be had, but not when it is asked like this.
        asked = cluster.client.call_api(
            path,
            "GET",
            header_params={"Accept": "text/plain, */*"},
            auth_settings=["BearerToken"],
            async_req=True,
            _preload_content=False,
            _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
        )
        response = asked.get()
        try:
            text = bytes(response.data).decode(errors="replace")
        finally:
            response.release_conn()
    # The kubelet says so in the place of the log, as a success.
    if text.startswith(_REMOVED):
        raise LogRemovedError(f"log of pod {pod}: its container {container} was removed")
    return text
