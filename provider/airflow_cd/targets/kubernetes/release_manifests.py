"""The manifests of a release: as packaged or generated, completed, and kept in the namespace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import ManifestError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import PREFIX, is_adopted, is_borrowed, reference_of, repository_of
from airflow_cd.targets.kubernetes.app import labelled, objects_of_app, secret_of_app
from airflow_cd.targets.kubernetes.state_store import StateStore
from airflow_cd.targets.kubernetes.variants import ReleaseVariant

if TYPE_CHECKING:
    from airflow_cd.model.kubernetes import KubernetesTargetSettings
    from airflow_cd.model.release import Release
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.record import Deployed

_TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")


def with_protocols(obj: dict[str, Any]) -> dict[str, Any]:
    """
    Return the object with ``protocol: TCP`` at each port that says nothing.

    Protocols are part of the ports' keys, and servers before Kubernetes 1.23 do not know the default there
    (https://github.com/kubernetes/kubernetes/issues/104239).
    """
    obj = deepcopy(obj)
    for port in _ports(obj):
        port.setdefault("protocol", "TCP")
    return obj


def require_pinned(objects: Sequence[Mapping[str, Any]], release: Release, where: str) -> None:
    """
    Make sure that the containers of the service's image run the release's digest.

    They were pinned when the release was packaged; this looks at what is about to be applied.

    :param where: names the service and its place, for errors
    :raises ManifestError: one runs another image of the repository, or none runs the release's
    """
    found = [(reference_of(obj).described, image) for obj in objects for image in _images(obj)]
    ours = [
        (name, image) for name, image in found if repository_of(image) == repository_of(release.pull_spec)
    ]
    wrong = next(((name, image) for name, image in ours if image != release.pull_spec), None)
    again = "Clear the task `package` of its run to package it again."
    if wrong is not None:
        raise ManifestError(
            f"{where}: {wrong[0]} of {release.version} would run {wrong[1]}, not {release.pull_spec}. {again}"
        )
    if not ours:
        raise ManifestError(
            f"{where}: nothing in the manifests of {release.version} runs {release.pull_spec}. {again}"
        )


def _images(obj: Mapping[str, Any]) -> Iterator[str]:
    return (container["image"] for container in _containers(obj) if container.get("image"))


def _ports(obj: dict[str, Any]) -> list[dict[str, Any]]:
    spec = obj.get("spec") or {}
    if obj["kind"] == "Service":
        return list(spec.get("ports") or [])
    return [port for container in _containers(obj) for port in container.get("ports") or []]


def _containers(obj: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = obj.get("spec") or {}
    pods = spec if obj["kind"] == "Pod" else _pods_of(obj["kind"], spec)
    return [*(pods.get("containers") or []), *(pods.get("initContainers") or [])]


def _pods_of(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    elif kind not in _TEMPLATES:
        return {}
    return dict((spec.get("template") or {}).get("spec") or {})


Objects = list[dict[str, Any]]


def kept_under(deployed: Deployed) -> str:
    """Return the digest by which the objects of a release are found; version 0.1 had only the release's."""
    return deployed.content or deployed.release.digest


# Nodes are at most three minor versions behind, and those of 1.29 wait by themselves
# (https://kubernetes.io/releases/version-skew-policy/, https://kep.k8s.io/3960).
_SLEEPS = 32


class ReleaseManifests:
    """
    The objects of a service's releases in one environment.

    :param secret: returns the password of an Airflow connection
    """

    def __init__(
        self,
        service: str,
        environment: str,
        settings: KubernetesTargetSettings,
        cluster: NamespaceClient,
        records: StateStore,
        secret: Callable[[str], str],
    ) -> None:
        self._service, self._environment, self._settings = service, environment, settings
        self._cluster, self._records, self._secret = cluster, records, secret
        self._read: dict[str, Objects] = {}

    def released(self, release: Release, store: ArtifactStore) -> Objects:
        """
        Return what a release consists of, as it was packaged.

        :raises ArtifactNotFoundError: its manifests are gone
        :raises ArtifactCorruptError: they are not the release's
        :raises ManifestError: it was packaged without manifests for this environment, or they would run
            another image
        """
        if self._settings.app is not None:
            objects = objects_of_app(
                self._settings.app,
                service=self._service,
                environment=self._environment,
                release=release,
                can_sleep=self._cluster.minor >= _SLEEPS,
            )
        else:
            digest = release.manifests.get(self._environment)
            if digest is None:
                raise ManifestError(
                    f"{release.version} was packaged without manifests for {self._environment}; clear the "
                    "task `package` of its run to package it again"
                )
            objects = json.loads(store.get_bytes(digest))
            require_pinned(objects, release, self._cluster.where)
        ours = labelled(objects, service=self._service, environment=self._environment)
        return [with_protocols(one) for one in ours]

    def keep(self, release: Release, objects: Objects) -> str:
        """
        Keep what a release consists of in the cluster, and return its digest; give the release its secrets.
        """
        if self._settings.app is not None:
            secret = secret_of_app(
                self._settings.app,
                service=self._service,
                environment=self._environment,
                secret=self._secret,
            )
            if secret is not None:
                self._records.writer.apply(
                    labelled([secret], service=self._service, environment=self._environment), take=True
                )
        digest = self._records.keep_objects(release.digest, objects)
        self._read[digest] = objects
        return digest

    def kept(self, deployed: Deployed) -> Objects | None:
        """
        Return what a release consists of, if that is kept in the cluster.

        :raises UnreadableError: it is, but is not what was kept
        """
        digest = kept_under(deployed)
        found = self._read.get(digest) or self._records.objects(digest, of_release=deployed.content is None)
        if found is not None:
            self._read[digest] = found
        return found

    def side(self, deployed: Deployed, generation: int) -> ReleaseVariant:
        """
        Return a release as the environment runs it.

        :raises TargetError: what it consists of is not kept any more
        """
        release = deployed.release
        objects = self.kept(deployed)
        if objects is None:
            raise TargetError(
                f"{self._cluster.where}: the objects of {release.version} are not in the namespace any more: "
                f"its ConfigMap {self._records.name}.* was deleted. Deploy another release."
            )
        place = deployed.place or "stable"
        return ReleaseVariant(objects, place, release.digest, release.version, generation)

    def refuse_others(self, objects: Objects) -> set[tuple[str, str, str]]:
        """
        Make sure that no object is another owner's already, and return which are to be taken over.

        Those of another service or environment are never touched; what was made by hand is taken over with
        ``on_conflict: take`` only, and stays known as that.

        :raises ManifestError: one is
        """
        labels, adopted = self._records.labels, set()
        for obj in objects:
            reference = reference_of(obj)
            live = self._cluster.get(reference.api_version, reference.kind, reference.name)
            if live is None or is_borrowed(obj):
                continue
            had = live["metadata"].get("labels") or {}
            owner = {name: had[name] for name in labels if name in had}
            where = f"{self._cluster.where}: {reference.described}"
            if owner and owner != labels:
                raise ManifestError(
                    f"{where} belongs to {owner.get(f'{PREFIX}service')} in "
                    f"{owner.get(f'{PREFIX}environment')}; use another namespace, or another name"
                )
            if not owner and self._settings.on_conflict == "fail":
                raise ManifestError(
                    f"{where} is there already, and was not made by a release of this service; rename it, "
                    "delete that one, or write `on_conflict: take` to take it over"
                )
            if not owner or is_adopted(live):
                adopted.add(reference.key)
        return adopted
