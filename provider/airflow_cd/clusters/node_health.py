"""The health of a cluster's nodes, and how long its certificates are valid."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from airflow_cd.kubernetes.removed_apis import minor_of
from airflow_cd.model.base import Frozen, format_age

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

# Conditions that a healthy node does not have.
_PRESSURE = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
# How long before its end a certificate is an error: time to renew it at work, over a weekend.
_CERTIFICATE_ERROR = timedelta(days=7)
# https://kubernetes.io/releases/version-skew-policy/#kubelet: three minor versions older at most, two for
# kubelets before 1.25, and never newer.
_SKEW, _OLD_SKEW, _OLD = 3, 2, 25


class NodeProblem(Frozen):
    """
    :param severity: an ``error`` fails the task: it does harm now. A ``warning`` will, or may.
    :param node: its name; empty for what concerns the cluster
    :param kind: what it is, which stays the same while the text may tell how long it lasts
    """

    severity: Literal["error", "warning"]
    node: str
    kind: str
    text: str

    @property
    def key(self) -> str:
        """Return what makes it this problem, from one run to the next."""
        return f"{self.severity}/{self.node}/{self.kind}"


def node_problems(
    nodes: Iterable[Mapping[str, Any]], server: int, now: datetime, unready_after: timedelta
) -> list[NodeProblem]:
    """
    Return what is wrong.

    :param nodes: as the API gives them
    :param server: minor version of the API server
    :param unready_after: how long a node may be not ready before that is an error
    """
    found = list(nodes)
    problems = [problem for node in found for problem in _of_one(node, server, now, unready_after)]
    if not found:
        problems.append(
            NodeProblem(severity="warning", node="", kind="nodes", text="the cluster has no node")
        )
    return problems


def _of_one(
    node: Mapping[str, Any], server: int, now: datetime, unready_after: timedelta
) -> Iterable[NodeProblem]:
    name = node["metadata"]["name"]
    conditions = {one["type"]: one for one in (node.get("status") or {}).get("conditions") or ()}
    yield from _readiness(name, conditions.get("Ready"), node, now, unready_after)
    for kind in _PRESSURE:
        condition = conditions.get(kind)
        if condition is not None and condition["status"] == "True":
            text = f"{kind}: {condition.get('message') or condition.get('reason')}"
            yield NodeProblem(severity="warning", node=name, kind=kind, text=text)
    if (node.get("spec") or {}).get("unschedulable"):
        yield NodeProblem(severity="warning", node=name, kind="cordoned", text="takes no new pods (cordoned)")
    yield from _skew(name, kubelet_of(node), server)


def kubelet_of(node: Mapping[str, Any]) -> str:
    """Return the version of a node's kubelet."""
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", ""))


def _readiness(
    name: str,
    condition: Mapping[str, Any] | None,
    node: Mapping[str, Any],
    now: datetime,
    unready_after: timedelta,
) -> Iterable[NodeProblem]:
    if condition is not None and condition["status"] == "True":
        return
    since = (condition or {}).get("lastTransitionTime") or node["metadata"].get("creationTimestamp")
    age = now - datetime.fromisoformat(since.replace("Z", "+00:00")) if since else unready_after
    why = (condition or {}).get("message") or "its kubelet never said so"
    yield NodeProblem(
        severity="error" if age >= unready_after else "warning",
        node=name,
        kind="ready",
        text=f"not ready for {format_age(age)}: {why}",
    )


def _skew(name: str, version: str, server: int) -> Iterable[NodeProblem]:
    kubelet = minor_of(version)
    if kubelet is None:
        return
    most = _OLD_SKEW if kubelet < _OLD else _SKEW
    if kubelet > server:
        text = f"its kubelet {version} is newer than the API server (1.{server}), which is not supported"
        yield NodeProblem(severity="error", node=name, kind="kubelet", text=text)
    elif server - kubelet > most:
        text = (
            f"its kubelet {version} is {server - kubelet} minor versions older than the API server "
            f"(1.{server}), and {most} are supported"
        )
        yield NodeProblem(severity="error", node=name, kind="kubelet", text=text)
    elif server - kubelet == most:
        text = f"upgrade its kubelet {version} before the API server: 1.{server + 1} does not support it"
        yield NodeProblem(severity="warning", node=name, kind="kubelet", text=text)


def certificate_problems(
    ends: Mapping[str, datetime], now: datetime, warn: timedelta
) -> Iterable[NodeProblem]:
    """
    Yield which certificates end soon.

    :param ends: whose -> when it ends
    :param warn: how long before
    """
    for whose, end in ends.items():
        left = end - now
        if left < warn:
            severity: Literal["error", "warning"] = "error" if left < _CERTIFICATE_ERROR else "warning"
            text = f"{whose} certificate ends in {format_age(left)}, on {end:%Y-%m-%d}"
            yield NodeProblem(severity=severity, node="", kind=f"certificate {whose}", text=text)


_SECONDS = 10


def certificates(client: ApiClient) -> dict[str, datetime]:
    """
    Return when certificates end: the one the API server shows, and the one this client shows.

    One that cannot be had, as behind a proxy, is left out. The API does not expose those of the nodes.
    """
    configuration = client.configuration
    found = {
        "the API server's": _served(configuration.host),
        "the one used here": _own(configuration.cert_file),
    }
    return {name: end for name, pem in found.items() if pem and (end := _end(pem))}


def _served(url: str) -> str | None:
    import ssl

    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None:
        return None
    try:
        return ssl.get_server_certificate((parts.hostname, parts.port or 443), timeout=_SECONDS)
    except OSError as error:
        log.info("The API server's certificate was not looked at: %s", error)
        return None


def _own(path: str | None) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8") if path else None
    except (OSError, UnicodeDecodeError):
        return None


def _end(pem: str) -> datetime | None:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError:
        return None
