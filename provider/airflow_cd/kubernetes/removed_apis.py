"""
Which API versions of Kubernetes were removed when.

The table is that of https://kubernetes.io/docs/reference/using-api/deprecation-guide/, from 1.16 on. It names
nothing for 1.33 to 1.36. What it does not know an API server may still tell of itself, in the metric
``apiserver_requested_deprecated_apis``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

GUIDE = "https://kubernetes.io/docs/reference/using-api/deprecation-guide/"
METRIC = "apiserver_requested_deprecated_apis"


class Removal(NamedTuple):
    """
    One kind of an API version that a minor version of Kubernetes does not have any more.

    :param minor: that version, 22 for 1.22
    :param resource: the kind's plural, as in paths of the API
    :param instead: the API version to use; empty where there is none
    """

    minor: int
    api_version: str
    kind: str
    resource: str
    instead: str

    @property
    def source(self) -> str:
        """Return where Kubernetes says so."""
        return f"{GUIDE}#v1-{self.minor}"


class Requested(NamedTuple):
    """An API version that a client requests, by the count of the API server."""

    minor: int
    api_version: str
    resource: str


_APPS = "DaemonSet Deployment ReplicaSet StatefulSet"
_REVIEWS = "LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview"
_STORAGE = "CSIDriver CSINode StorageClass VolumeAttachment"
_RBAC = "ClusterRole ClusterRoleBinding Role RoleBinding"
_FLOW, _FLOWS = "flowcontrol.apiserver.k8s.io", "FlowSchema PriorityLevelConfiguration"
_ADMISSION, _NETWORKING = "admissionregistration.k8s.io", "networking.k8s.io"
_ROWS = (
    (16, "extensions/v1beta1", "NetworkPolicy", "networking.k8s.io/v1"),
    (16, "extensions/v1beta1", "PodSecurityPolicy", "policy/v1beta1"),
    (16, "extensions/v1beta1", "DaemonSet Deployment ReplicaSet", "apps/v1"),
    (16, "apps/v1beta1", "Deployment StatefulSet", "apps/v1"),
    (16, "apps/v1beta2", _APPS, "apps/v1"),
    (
        22,
        f"{_ADMISSION}/v1beta1",
        "MutatingWebhookConfiguration ValidatingWebhookConfiguration",
        f"{_ADMISSION}/v1",
    ),
    (22, "apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", "apiextensions.k8s.io/v1"),
    (22, "apiregistration.k8s.io/v1beta1", "APIService", "apiregistration.k8s.io/v1"),
    (22, "authentication.k8s.io/v1beta1", "TokenReview", "authentication.k8s.io/v1"),
    (22, "authorization.k8s.io/v1beta1", _REVIEWS, "authorization.k8s.io/v1"),
    (22, "certificates.k8s.io/v1beta1", "CertificateSigningRequest", "certificates.k8s.io/v1"),
    (22, "coordination.k8s.io/v1beta1", "Lease", "coordination.k8s.io/v1"),
    (22, "extensions/v1beta1", "Ingress", f"{_NETWORKING}/v1"),
    (22, f"{_NETWORKING}/v1beta1", "Ingress IngressClass", f"{_NETWORKING}/v1"),
    (22, "rbac.authorization.k8s.io/v1beta1", _RBAC, "rbac.authorization.k8s.io/v1"),
    (22, "scheduling.k8s.io/v1beta1", "PriorityClass", "scheduling.k8s.io/v1"),
    (22, "storage.k8s.io/v1beta1", _STORAGE, "storage.k8s.io/v1"),
    (25, "batch/v1beta1", "CronJob", "batch/v1"),
    (25, "discovery.k8s.io/v1beta1", "EndpointSlice", "discovery.k8s.io/v1"),
    (25, "events.k8s.io/v1beta1", "Event", "events.k8s.io/v1"),
    (25, "autoscaling/v2beta1", "HorizontalPodAutoscaler", "autoscaling/v2"),
    (25, "policy/v1beta1", "PodDisruptionBudget", "policy/v1"),
    (25, "policy/v1beta1", "PodSecurityPolicy", ""),
    (25, "node.k8s.io/v1beta1", "RuntimeClass", "node.k8s.io/v1"),
    (26, f"{_FLOW}/v1beta1", _FLOWS, f"{_FLOW}/v1beta3"),
    (26, "autoscaling/v2beta2", "HorizontalPodAutoscaler", "autoscaling/v2"),
    (27, "storage.k8s.io/v1beta1", "CSIStorageCapacity", "storage.k8s.io/v1"),
    (29, f"{_FLOW}/v1beta2", _FLOWS, f"{_FLOW}/v1"),
    (32, f"{_FLOW}/v1beta3", _FLOWS, f"{_FLOW}/v1"),
)
_PLURALS = (("y", "ies"), ("ss", "sses"))


def _plural(kind: str) -> str:
    word = kind.lower()
    for end, instead in _PLURALS:
        if word.endswith(end):
            return word.removesuffix(end) + instead
    return f"{word}s"


REMOVALS = tuple(
    Removal(minor, api_version, kind, _plural(kind), instead)
    for minor, api_version, kinds, instead in _ROWS
    for kind in kinds.split()
)


def minor_of(version: str) -> int | None:
    """Return 20 for ``v1.20.2`` or ``1.20+``, ``None`` for what is not a version of Kubernetes."""
    found = re.match(r"v?1\.(\d+)", version)
    return int(found.group(1)) if found else None


def removals_until(minor: int) -> tuple[Removal, ...]:
    """Return what clusters of this minor version do not have any more."""
    return tuple(removal for removal in REMOVALS if removal.minor <= minor)


def removal_of(api_version: str, kind: str, until: int) -> Removal | None:
    """Return how a kind of an API version is gone by a minor version, ``None`` when it is not."""
    wanted = (api_version, kind)
    return next((one for one in removals_until(until) if (one.api_version, one.kind) == wanted), None)


def requested(metrics: str, until: int) -> Iterator[Requested]:
    """
    Yield what an API server was asked for since it started, and will not have any more.

    :param metrics: what it answers at ``/metrics``
    :param until: the minor version in question
    """
    for line in metrics.splitlines():
        if not line.startswith(f"{METRIC}{{") or line.rsplit(" ", 1)[-1] in ("0", ""):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        release = re.fullmatch(r"1\.(\d+)", labels.get("removed_release", ""))
        if release and int(release.group(1)) <= until:
            group, version = labels.get("group", ""), labels.get("version", "")
            api_version = f"{group}/{version}" if group else version
            yield Requested(int(release.group(1)), api_version, labels.get("resource", ""))
