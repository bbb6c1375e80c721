"""Where the API has the objects of a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

from airflow_cd.exceptions import ManifestError

# What most services consist of, so that the cluster need not be asked. A released version never changes
# these; that the cluster has no such kind is said by the request itself.
_KNOWN = {
    "v1": {
        "ConfigMap": "configmaps",
        "Event": "events",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {
        "DaemonSet": "daemonsets",
        "Deployment": "deployments",
        "ReplicaSet": "replicasets",
        "StatefulSet": "statefulsets",
    },
    "autoscaling/v1": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "coordination.k8s.io/v1": {"Lease": "leases"},
    "discovery.k8s.io/v1": {"EndpointSlice": "endpointslices"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
}


class Resource(NamedTuple):
    """How the API calls a kind, and whether its objects are in namespaces."""

    plural: str
    namespaced: bool


class Kinds:
    """
    Asks the cluster once per group and version, and only for kinds that not every cluster has.

    :param discover: returns what the API has at a path, ``None`` when nothing
    :param where: names the service and its place, for errors
    """

    def __init__(self, discover: Callable[[str], dict[str, Any] | None], where: str) -> None:
        self._discover, self._where = discover, where
        self._found: dict[str, dict[str, Resource]] = {}

    def path(self, api_version: str, kind: str, namespace: str, name: str | None = None) -> str:
        """
        Return the path of all objects of a kind in a namespace, or of one of them.

        :raises ManifestError: the cluster has no such kind, or its objects are in no namespace
        """
        resource = self._resource(api_version, kind)
        if not resource.namespaced:
            raise ManifestError(
                f"{self._where}: {kind}/{name} belongs to no namespace but to the whole cluster; those "
                "are not deployed with a service. Take it out of the manifests, and have whoever looks after "
                "the cluster apply it."
            )
        path = f"{_root(api_version)}/namespaces/{quote(namespace, safe='')}/{resource.plural}"
        return path if name is None else f"{path}/{quote(name, safe='')}"

    def _resource(self, api_version: str, kind: str) -> Resource:
        known = _KNOWN.get(api_version, {}).get(kind)
        if known is not None:
            return Resource(known, namespaced=True)
        found = self._found.get(api_version, {}).get(kind)
        if found is None:
            self._found[api_version] = self._ask(api_version)
            found = self._found[api_version].get(kind)
        if found is None:
            raise unknown_kind(self._where, api_version, kind)
        return found

    def _ask(self, api_version: str) -> dict[str, Resource]:
        answer = self._discover(_root(api_version)) or {}
        return {
            one["kind"]: Resource(one["name"], one["namespaced"])
            for one in answer.get("resources", ())
            if "/" not in one["name"]  # a part of another, such as ``deployments/scale``
        }


def unknown_kind(where: str, api_version: str, kind: str) -> ManifestError:
    """Return the error that says that a cluster does not know a kind."""
    return ManifestError(
        f"{where}: the cluster has no kind {kind} of {api_version}: install its CustomResourceDefinition, or "
        "write the apiVersion that this cluster has (`kubectl api-resources` lists them)"
    )


def _root(api_version: str) -> str:
    parts = "/".join(quote(part, safe="") for part in api_version.split("/"))
    return f"/apis/{parts}" if "/" in api_version else f"/api/{parts}"
