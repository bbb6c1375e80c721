"""Objects of a release as data: their identity, their workloads, and the Service that routes to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.base import Frozen
from airflow_cd.model.kubernetes import KubernetesTargetSettings

# In front of the names of all labels and annotations of ours.
PREFIX = "airflow-cd/"
# On objects that existed before and have another owner: it is never deleted.
ADOPTED = f"{PREFIX}adopted"
# Label on each object that a holder of the lease wrote: which one it was. Not an annotation: a Deployment
# whose annotations change is another generation, and is not ready until its controller has seen that.
FENCE = f"{PREFIX}fence"


class Reference(Frozen):
    """
    One object of a namespace.

    :param uid: tells an object from another one that had its name before; ``None`` is any
    """

    api_version: str
    kind: str
    name: str
    uid: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes it this object: group, kind and name. The group's version does not."""
        return group_of(self.api_version), self.kind, self.name

    @property
    def described(self) -> str:
        """Return its name for people: ``Deployment/web``."""
        return f"{self.kind}/{self.name}"


def is_borrowed(obj: Mapping[str, Any]) -> bool:
    """
    Return whether an object belongs to another owner, and is changed only for a while.

    It is not deployed, hence without labels of ours; it is as it was read from the cluster, and what is
    deployed never is.
    """
    return "resourceVersion" in obj["metadata"]


def is_adopted(live: Mapping[str, Any]) -> bool:
    """Return whether an object of ours was another owner's before; it is not ours to delete."""
    return ADOPTED in ((live.get("metadata") or {}).get("annotations") or {})


def group_of(api_version: str) -> str:
    """Return the group of an ``apiVersion``; that of ``v1`` has no name."""
    return api_version.rpartition("/")[0]


def reference_of(obj: Mapping[str, Any]) -> Reference:
    """Return what an object is called; it has its uid when it comes from a cluster."""
    metadata = obj["metadata"]
    return Reference(
        api_version=obj["apiVersion"], kind=obj["kind"], name=metadata["name"], uid=metadata.get("uid")
    )


Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


def find_workload(
    objects: Sequence[Object],
    settings: KubernetesTargetSettings,
    image: str | None,
    *,
    kinds: Collection[str] = ("Deployment",),
) -> Object:
    """
    Return the workload that the strategy is about: the one of the settings, else the only one with the image.

    :param objects: of one release
    :param image: the service's repository, without tag and digest; ``None`` is any
    :param kinds: strategies with steps need a Deployment
    :raises ManifestError: there is none, or there are several
    """
    able = [one for one in workloads_of(objects) if one["kind"] in kinds]
    if settings.workload is not None:
        found = [one for one in able if name_of(one) == settings.workload]
        wanted = f"named {settings.workload!r}, as `workload:` says"
    else:
        found = [one for one in able if image is None or image in _repositories(one)]
        wanted = f"with the image {image}" if image else "at all"
    if len(found) == 1:
        return found[0]
    kind = " or ".join(kinds)
    if found:
        raise ManifestError(
            f"several workloads have the service's image: {_listed(found)}. Say by `workload:` which of them "
            "the strategy is about."
        )
    raise ManifestError(
        f"the manifests have no {kind} {wanted}; they have {_listed(workloads_of(objects))}. "
        "Strategies other than rolling need a Deployment: add it, or name it by `workload:`."
    )


def find_service(
    objects: Sequence[Object], settings: KubernetesTargetSettings, workload: Object
) -> Object | None:
    """
    Return the Service that sends requests to a workload, ``None`` where there is none.

    :raises ManifestError: there are several, or not the one that the settings name
    """
    found = [one for one in services_of(objects) if selects(selector_of(one), pod_labels(workload))]
    if settings.service is not None:
        named = [one for one in found if name_of(one) == settings.service]
        if not named:
            raise ManifestError(
                f"the manifests have no Service {settings.service!r} that selects the pods of "
                f"{described(workload)}; those that do: {_listed(found)}. Correct `service:` or its selector."
            )
        return named[0]
    if len(found) > 1:
        raise ManifestError(
            f"several Services select the pods of {described(workload)}: {_listed(found)}. Say by `service:` "
            "which of them is to follow the strategy; the others go on selecting all of its pods."
        )
    return found[0] if found else None


def workloads_of(objects: Sequence[Object]) -> list[Object]:
    """Return the objects that keep pods running."""
    return [one for one in objects if one["kind"] in WORKLOADS and group_of(one["apiVersion"]) == "apps"]


def services_of(objects: Sequence[Object]) -> list[Object]:
    """Return the Services."""
    return [one for one in objects if one["kind"] == "Service" and group_of(one["apiVersion"]) == ""]


def image_of(objects: Sequence[Object], digest: str) -> str | None:
    """Return the repository whose image of this digest the workloads run, ``None`` where that is not one."""
    pinned = {
        image.partition("@")[0]
        for one in workloads_of(objects)
        for image in _images(one)
        if image.endswith(f"@{digest}")
    }
    return repository_of(pinned.pop()) if len(pinned) == 1 else None


def repository_of(image: str) -> str:
    """Return an image's name without tag and digest."""
    name = image.partition("@")[0]
    head, _, tail = name.rpartition("/")
    tail = tail.partition(":")[0]
    return f"{head}/{tail}" if head else tail


def is_scaled(objects: Sequence[Object], workload: Object) -> bool:
    """Return whether a HorizontalPodAutoscaler among the objects says how many instances it has."""
    for one in objects:
        target = (one.get("spec") or {}).get("scaleTargetRef") or {}
        if one["kind"] == "HorizontalPodAutoscaler" and (target.get("kind"), target.get("name")) == (
            workload["kind"],
            name_of(workload),
        ):
            return True
    return False


def runs(value: Any, digest: str) -> bool:
    """Return whether something in an object is the image of this digest."""
    if isinstance(value, str):
        return value.endswith(f"@{digest}")
    if isinstance(value, Mapping):
        return any(runs(one, digest) for one in value.values())
    return isinstance(value, list) and any(runs(one, digest) for one in value)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether a Service's selector selects pods of these labels. An empty one selects none."""
    return bool(selector) and selector.items() <= labels.items()


def selector_of(service: Object) -> dict[str, str]:
    """Return a Service's selector."""
    return dict((service.get("spec") or {}).get("selector") or {})


def pod_labels(workload: Object) -> dict[str, str]:
    """Return the labels of a workload's pods."""
    template = (workload.get("spec") or {}).get("template") or {}
    return dict((template.get("metadata") or {}).get("labels") or {})


def name_of(obj: Object) -> str:
    """Return an object's name."""
    return str(obj["metadata"]["name"])


def described(obj: Object) -> str:
    """Return an object's name for people: ``Deployment/web``."""
    return f"{obj['kind']}/{name_of(obj)}"


def _repositories(workload: Object) -> set[str]:
    return {repository_of(image) for image in _images(workload)}


def _images(workload: Object) -> Iterator[str]:
    spec = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        if container.get("image"):
            yield container["image"]


def _listed(objects: Sequence[Object]) -> str:
    return ", ".join(sorted(described(one) for one in objects)) or "none"
