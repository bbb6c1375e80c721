"""Which Kubernetes objects a service may bring, and what of them is the cluster's own to say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from airflow_cd.artifacts.manifest_documents import Found
from airflow_cd.exceptions import ManifestError

Object = dict[str, Any]

_API_VERSION = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[a-z0-9]+")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
# Roles may have colons; nothing may have what means something else in the path of a request.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9:._-]{0,251}[A-Za-z0-9])?")

# What the cluster says of an object, and whoever exported it with `kubectl get` brought along.
_SAID_BY_CLUSTER = (
    "managedFields",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "selfLink",
)

# Kinds whose objects belong to no namespace, by group. The target, which asks the cluster, refuses others.
_CLUSTER_WIDE = {
    "": ("Namespace", "Node", "PersistentVolume"),
    "admissionregistration.k8s.io": (
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    ),
    "apiextensions.k8s.io": ("CustomResourceDefinition",),
    "apiregistration.k8s.io": ("APIService",),
    "certificates.k8s.io": ("CertificateSigningRequest",),
    "flowcontrol.apiserver.k8s.io": ("FlowSchema", "PriorityLevelConfiguration"),
    "gateway.networking.k8s.io": ("GatewayClass",),
    "networking.k8s.io": ("IngressClass",),
    "node.k8s.io": ("RuntimeClass",),
    "policy": ("PodSecurityPolicy",),
    "rbac.authorization.k8s.io": ("ClusterRole", "ClusterRoleBinding"),
    "scheduling.k8s.io": ("PriorityClass",),
    "storage.k8s.io": ("CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"),
}


def objects_in(found: Iterable[Found]) -> list[Object]:
    """
    Return the objects of documents, lists taken apart, without what only the cluster says of them.

    :raises ManifestError: one of them is no object, is there twice, or does not belong to a service
    """
    objects: list[Object] = []
    places: dict[tuple[str, str, str], str] = {}
    for where, content in _single(found):
        group, kind, name = identity = _identity(where, content)
        if identity in places:
            raise ManifestError(
                f"{where}: {kind}/{name} is there twice, also in {places[identity]}; remove or rename one"
            )
        places[identity] = where
        _refuse(where, group, kind, name)
        objects.append(_cleaned(content))
    return objects


def _single(found: Iterable[Found]) -> Iterator[Found]:
    for where, content in found:
        if not isinstance(content, dict):
            raise ManifestError(
                f"{where}: a Kubernetes object is a mapping with apiVersion, kind and metadata, and this is "
                f"a {type(content).__name__}; correct it, or keep the file elsewhere"
            )
        if str(content.get("kind")).endswith("List") and "items" in content:
            items = content["items"] or []
            if not isinstance(items, list):
                raise ManifestError(f"{where}: `items` is a {type(items).__name__}, not a list; correct it")
            yield from _single(Found(f"{where}, item {n}", item) for n, item in enumerate(items, start=1))
        else:
            yield Found(where, content)


def _identity(where: str, obj: Object) -> tuple[str, str, str]:
    """Return group, kind and name. Not the version: a cluster has one object under all of them."""
    api_version = _text(where, obj, "apiVersion", _API_VERSION, "such as apps/v1")
    kind = _text(where, obj, "kind", _KIND, "such as Deployment")
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        raise ManifestError(f"{where}: {kind} has no `metadata` with a name (got {metadata!r}); add it")
    if "generateName" in metadata:
        raise ManifestError(
            f"{where}: {kind} has `metadata.generateName` (got {metadata['generateName']!r}), so that each "
            "deployment would make another object; give it a fixed `metadata.name`"
        )
    name = _text(where, metadata, "name", _NAME, "letters, digits, `-` and `.`", of=f"{kind}: metadata.")
    return api_version.rpartition("/")[0], kind, name


def _text(where: str, mapping: Object, key: str, pattern: re.Pattern[str], like: str, of: str = "") -> str:
    value = mapping.get(key)
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    if value is None:
        raise ManifestError(f"{where}: {of}{key} is missing; add it ({like})")
    raise ManifestError(f"{where}: {of}{key} is not one (got {repr(value)[:200]}); write it as {like}")


def _refuse(where: str, group: str, kind: str, name: str) -> None:
    if (group, kind) == ("", "Secret"):
        raise ManifestError(
            f"{where}: Secret/{name} would be kept, readable, in the artifact store with every release. Use "
            "a SealedSecret, an ExternalSecret of an external-secrets operator, or `app.secrets`, which "
            "takes them from Airflow connections"
        )
    if kind not in _CLUSTER_WIDE.get(group, ()):
        return
    remedy = (
        "declare it under `clusters:` (docs/clusters.md)"
        if kind == "Namespace"
        else "have whoever looks after the cluster apply it"
    )
    raise ManifestError(
        f"{where}: {kind}/{name} belongs to no namespace but to the whole cluster, and is not deployed with "
        f"a service. Take it out of the manifests, and {remedy}"
    )


def _cleaned(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SAID_BY_CLUSTER}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}
