"""The objects of one namespace of a Kubernetes cluster: applied, read, compared and deleted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from airflow_cd.exceptions import (
    AccessDeniedError,
    DeployConflictError,
    FieldConflictError,
    ManifestError,
    TargetError,
)
from airflow_cd.targets.kubernetes.api import MERGE, NamespaceApi
from airflow_cd.targets.kubernetes.differences import NEW, FieldDifference, text_of
from airflow_cd.targets.kubernetes.objects import Reference, reference_of

log = logging.getLogger(__name__)

# The class has a method ``list``, which its annotations would name.
Objects = list[dict[str, Any]]
Differences = list[FieldDifference]

_APPLY = "application/apply-patch+yaml"
_TRIES = 10
# Of objects that were read from a cluster, which these values would tie to what it was then.
_READ = ("managedFields", "resourceVersion", "uid")


class NamespaceClient(NamespaceApi):
    """
    Each object costs one request to apply, one to read, and two to compare or delete.

    What kinds there are is asked once per group and version, and only for kinds that not every cluster has.
    """

    def apply(
        self, objects: Sequence[Mapping[str, Any]], *, take: bool = False, dry_run: bool = False
    ) -> Objects:
        """
        Set objects' fields, one object after the other, and return what they are now.

        Fields that are not given any more, and that nobody else manages, are removed.

        :param take: fields that somebody else manages are taken over
        :param dry_run: nothing is changed
        :raises ManifestError: one of them cannot be deployed as it is; nothing was changed where that can
            be told without the cluster
        """
        ready = [self._checked(obj) for obj in objects]
        return [self._apply(obj, take, dry_run) for obj in ready]

    def validate(self, objects: Sequence[Mapping[str, Any]], take: bool = False) -> None:
        """
        Have the cluster check objects, and change nothing.

        :raises ManifestError: some cannot be applied; names all problems
        :raises FieldConflictError: that is what all problems are
        :raises AccessDeniedError: that is what all problems are
        """
        problems = []
        for obj in objects:
            try:
                self._apply(self._checked(obj), take, dry_run=True)
            except (ManifestError, FieldConflictError, AccessDeniedError) as problem:
                problems.append(problem)
        if not problems:
            return
        found = {type(problem) for problem in problems}
        kind = found.pop() if len(found) == 1 else ManifestError
        raise kind("\n".join(dict.fromkeys(str(problem) for problem in problems))) from problems[0]

    def get(self, api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, if there is one. :raises ManifestError: there is no such kind"""
        return self._of_one("GET", Reference(api_version=api_version, kind=kind, name=name))

    def list(self, api_version: str, kind: str, labels: Mapping[str, str]) -> Objects:
        """Return all objects of a kind with these labels. :raises ManifestError: there is no such kind"""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        with self._about(Reference(api_version=api_version, kind=kind, name="*")):
            path = self._kinds.path(api_version, kind, self.namespace)
            found = self.request("GET", path, query={"labelSelector": selector})
        return [{**one, "apiVersion": api_version, "kind": kind} for one in found["items"]]

    def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object that there is not. :raises DeployConflictError: there is one"""
        obj = self._checked(obj)
        reference = reference_of(obj)
        with self._about(reference):
            path = self._kinds.path(reference.api_version, reference.kind, self.namespace)
            made: dict[str, Any] = self.request("POST", path, obj, query={"fieldManager": self._manager})
            return made

    def merge(self, reference: Reference, patch: Mapping[str, Any]) -> dict[str, Any] | None:
        """
        Change the fields that are given, and return what the object is now, ``None`` when there is none.

        :param patch: a JSON merge patch; with a ``resourceVersion`` in its metadata, the object must be of
            that version
        :raises DeployConflictError: it is of another version
        """
        return self._of_one("PATCH", reference, patch, MERGE, {"fieldManager": self._manager})

    def delete(
        self,
        reference: Reference,
        labels: Mapping[str, str],
        *,
        propagation: Literal["Background", "Foreground"] = "Background",
    ) -> bool:
        """
        Delete an object, and return whether there was one to delete.

        :param labels: that it must have, or it is left alone; so it is when it has another uid
        :param propagation: whether the object goes at once and then what it owns, or after it. A release
            that brings the object back meanwhile would change one that is about to go, hence the default.
        """
        try:
            live = self.get(reference.api_version, reference.kind, reference.name)
        except ManifestError:  # whoever removed the kind removed its objects
            return False
        if live is None:
            return False
        metadata = live["metadata"]
        had = metadata.get("labels") or {}
        if reference.uid not in (None, metadata["uid"]) or any(had.get(k) != v for k, v in labels.items()):
            log.warning("%s: %s is somebody else's and is not deleted", self.where, reference.described)
            return False
        body = {"propagationPolicy": propagation, "preconditions": {"uid": metadata["uid"]}}
        try:
            return self._of_one("DELETE", reference, body) is not None
        except DeployConflictError:  # it was removed, and somebody has made another one
            return False

    def diff(self, objects: Sequence[Mapping[str, Any]], *, take: bool = True) -> Differences:
        """Return what applying objects would change, by asking the cluster; nothing is changed."""
        return [one for obj in objects if (one := self._difference(self._checked(obj), take)).text]

    def _apply(self, obj: dict[str, Any], take: bool, dry_run: bool) -> dict[str, Any]:
        query = {"fieldManager": self._manager, "force": str(take).lower()}
        if dry_run:
            query["dryRun"] = "All"
        reference = reference_of(obj)
        with self._about(reference):
            applied: dict[str, Any] = self.request("PATCH", self._path(reference), obj, _APPLY, query)
            return applied

    def _difference(self, obj: dict[str, Any], take: bool) -> FieldDifference:
        reference = reference_of(obj)
        for _ in range(_TRIES):
            live = self.get(reference.api_version, reference.kind, reference.name)
            if live is None:
                self._apply(obj, take, dry_run=True)  # the cluster may have something to say against it
                return FieldDifference(reference, NEW)
            # Else what a controller writes in between would be taken for something that the release changes.
            seen = {**obj["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
            with suppress(DeployConflictError):
                planned = self._apply({**obj, "metadata": seen}, take, dry_run=True)
                return FieldDifference(reference_of(live), text_of(live, planned, reference.described))
        raise TargetError(f"{self.where}: {reference.described} changes too often to be compared")

    def _checked(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object with its namespace. :raises ManifestError: it cannot be deployed as it is"""
        metadata = obj.get("metadata") or {}
        if not (obj.get("apiVersion") and obj.get("kind") and metadata.get("name")):
            raise ManifestError(
                f"{self.where}: an object needs apiVersion, kind and metadata.name, and has "
                f"{obj.get('apiVersion')!r}, {obj.get('kind')!r} and {metadata.get('name')!r}"
            )
        name = reference_of(obj).described
        if metadata.get("namespace") not in (None, self.namespace):
            raise ManifestError(
                f"{self.where}: {name} names the namespace {metadata['namespace']!r}, but the target's is "
                f"{self.namespace!r}; take `metadata.namespace` out of the manifest"
            )
        read = [field for field in _READ if metadata.get(field)] + (["status"] if obj.get("status") else [])
        if read:
            raise ManifestError(
                f"{self.where}: {name} was read from a cluster: take {', '.join(read)} out of the manifest"
            )
        kept = {field: value for field, value in obj.items() if field != "status"}
        return {**kept, "metadata": {**metadata, "namespace": self.namespace}}
