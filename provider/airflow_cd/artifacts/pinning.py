"""Containers run the image that was tested: by its digest, wherever its repository stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.text import printable

Object = dict[str, Any]

# Where objects say what their pods are like: Deployments, StatefulSets, DaemonSets, Jobs and what resembles
# them (an Argo Rollout, a Knative Service); CronJobs; PodTemplates.
_TEMPLATES = (("spec", "template"), ("spec", "jobTemplate", "spec", "template"), ("template",))
_CONTAINERS = ("initContainers", "containers")
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def pin(objects: Sequence[Object], *, image: str, digest: str, source: str) -> int:
    """
    Write ``image@digest`` into each container of the image, whatever tag or digest it had.

    :param image: the repository, without a tag
    :param source: where the objects are from, for messages
    :return: how many containers that were
    :raises ManifestError: there is none, or what should be a container is not
    """
    wanted, pinned = repository_of(image), 0
    others: set[str] = set()
    for obj in objects:
        for container in _containers_of(obj, source):
            had = container.get("image")
            if isinstance(had, str) and repository_of(had) == wanted:
                container["image"] = f"{image}@{digest}"
                pinned += 1
            elif isinstance(had, str):
                others.add(had)
    if not pinned:
        listed = ", ".join(printable(other, 200) for other in sorted(others)[:10]) or "none at all"
        raise ManifestError(
            f"{source}: no container has the image {image}, which this service is packaged as; the images "
            f"found are: {listed}. Write `image: {image}` in the manifests (its digest is put there), or "
            "correct `package.image.repository`"
        )
    return pinned


def repository_of(image: str) -> str:
    """
    Return an image's repository with its registry, without tag and digest.

    As engines read it: ``busybox`` is ``docker.io/library/busybox``.
    """
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0]}"
    first, _, rest = name.partition("/")
    if not rest or not ("." in first or ":" in first or first == "localhost"):
        first, rest = _DOCKER_HUB[0], name
    if first in _DOCKER_HUB:
        return f"{_DOCKER_HUB[0]}/{rest if '/' in rest else f'library/{rest}'}"
    return f"{first}/{rest}"


def _containers_of(obj: Object, source: str) -> Iterator[Object]:
    where = f"{source}: {obj['kind']}/{obj['metadata']['name']}"
    for spec in _pod_specs(obj):
        for key in _CONTAINERS:
            containers = spec.get(key) or []
            if not isinstance(containers, list):
                raise ManifestError(f"{where}: `{key}` is a {type(containers).__name__}; write a list")
            for container in containers:
                if not isinstance(container, dict):
                    raise ManifestError(
                        f"{where}: {repr(container)[:200]} in `{key}` is no container; write a mapping"
                    )
                yield container


def _pod_specs(obj: Object) -> Iterator[Object]:
    if (obj["apiVersion"], obj["kind"]) == ("v1", "Pod") and isinstance(obj.get("spec"), dict):
        yield obj["spec"]
    for path in _TEMPLATES:
        found: Any = obj
        for step in (*path, "spec"):
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, dict):
            yield found
