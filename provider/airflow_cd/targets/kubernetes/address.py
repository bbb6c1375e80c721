"""Where a Service of Kubernetes answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_cd.model.kubernetes import KubernetesTargetSettings

_USUAL = {"http": 80, "https": 443}


def url_of(
    service: Mapping[str, Any], settings: KubernetesTargetSettings, node: str | None = None
) -> str | None:
    """
    Return where a Service answers, without a trailing slash, or ``None`` where that cannot be told.

    That is what the settings say, else what the Service says itself: a port named ``http...``, else its
    first one. It is ``None`` for a headless Service, and for a load balancer that has no address yet.

    :param service: as the API gives it
    :param node: address of any node, where those can be reached: a NodePort is used at this address, and
        at the cluster's own otherwise
    """
    if settings.url is not None:
        return settings.url
    spec = service.get("spec") or {}
    port = _preferred(spec.get("ports") or [])
    if spec.get("type") == "ExternalName":
        return _url(spec.get("externalName"), port, (port or {}).get("port"))
    if port is None:
        return None
    if spec.get("type") == "LoadBalancer":
        return _url(_balancer(service), port, port["port"])
    if spec.get("type") == "NodePort" and node is not None and port.get("nodePort"):
        return _url(node, port, port["nodePort"])
    address = spec.get("clusterIP")
    return _url(None if address == "None" else address, port, port["port"])


def _preferred(ports: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    usable = [port for port in ports if port.get("protocol", "TCP") == "TCP"]
    named = [port for port in usable if _name(port) == "http"]
    related = [port for port in usable if _name(port).startswith("http")]
    return next(iter([*named, *related, *usable]), None)


def _balancer(service: Mapping[str, Any]) -> str | None:
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [{}]
    address = given[0].get("hostname") or given[0].get("ip")
    return str(address) if address else None


def _name(port: Mapping[str, Any]) -> str:
    return str(port.get("name") or "")


def _url(host: str | None, port: Mapping[str, Any] | None, number: int | None) -> str | None:
    if not host:
        return None
    port = port or {}
    # A name may say more than the protocol: ``https-web``. ``appProtocol`` is meant to say just this.
    secure = "https" in (_name(port).split("-")[0], port.get("appProtocol")) or port.get("port") == 443
    scheme = "https" if secure else "http"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if number in (None, _USUAL[scheme]) else f"{scheme}://{host}:{number}"
