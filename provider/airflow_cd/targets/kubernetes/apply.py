"""Applies objects to a namespace, remembers which, and prunes those that are no longer wanted."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.kubernetes.objects import (
    ADOPTED,
    WORKLOADS,
    Object,
    Reference,
    is_adopted,
    is_borrowed,
    name_of,
    reference_of,
)

if TYPE_CHECKING:
    from airflow_cd.kubernetes.client import NamespaceClient
    from airflow_cd.targets.kubernetes.desired_state import DesiredState
    from airflow_cd.targets.kubernetes.fencing import FencedWriter

log = logging.getLogger(__name__)

# Manages nothing but this number, which is whatever it was when we gave it up.
SCALE_MANAGER = "airflow-cd-scale"


def left_as_it_is(live: Mapping[str, Any], wanted: Object, manager: str) -> Object | None:
    """
    Return what is to be applied first, by :data:`SCALE_MANAGER`, so that the number of instances stays.

    A field that an application does not mention any more is removed when nobody else manages it, and a
    workload without a number has one instance. Until Kubernetes 1.22, an autoscaler is not even noted as
    managing the number.

    :param live: the workload as the cluster has it
    :param wanted: the workload as it is to be applied
    :param manager: by whom
    :return: ``None`` where there is nothing to be kept
    """
    if wanted["kind"] not in WORKLOADS or "replicas" in wanted["spec"]:
        return None
    number = (live.get("spec") or {}).get("replicas")
    if number is None or not _manages(live, manager):
        return None
    metadata = {name: live["metadata"][name] for name in ("name", "namespace") if name in live["metadata"]}
    return {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "metadata": metadata,
        "spec": {"replicas": number},
    }


def _manages(live: Mapping[str, Any], manager: str) -> bool:
    return any(
        entry.get("manager") == manager
        and entry.get("operation") == "Apply"
        and "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        for entry in live["metadata"].get("managedFields") or []
    )


Inventory = tuple[Reference, ...]
# How often a status may change just then.
_TRIES = 10
# What a person stored outlives the release that asked for the room.
_KEPT = "PersistentVolumeClaim"


class Applier:
    """
    Applies and deletes the objects of one service in one environment, for the holder of its lease.

    :param scaling: the same cluster, as the manager of numbers that are left to others
    :param labels: of all objects; what has not these labels is another owner's, and is not deleted
    """

    def __init__(
        self,
        cluster: NamespaceClient,
        scaling: NamespaceClient,
        writer: FencedWriter,
        labels: Mapping[str, str],
    ) -> None:
        self._cluster, self._scaling, self._writer, self._labels = cluster, scaling, writer, labels

    def put(self, plan: DesiredState, *, take: bool) -> Inventory:
        """
        Apply one stage of a plan, and return what of it is ours.

        :raises DeployConflictError: what is another owner's was changed since it was looked at
        :raises LeaseLostError: another process holds the lease
        """
        self._leave_numbers(plan)
        applied: list[Reference] = []
        for borrowed, some in groupby(plan.objects, is_borrowed):
            if not borrowed:
                applied += map(reference_of, self._writer.apply(list(some), take=take))
                continue
            for one in some:
                self._change_borrowed(one)
        return tuple(applied)

    def remove(self, plan: DesiredState, inventory: Inventory) -> Inventory:
        """Delete what a plan says, as far as it was applied, and return what is left of the inventory."""
        wanted = {(kind, name) for _, kind, name in plan.delete}
        meant = [one for one in inventory if (one.kind, one.name) in wanted]
        gone = [one for one in meant if not self._is_adopted(one)]
        for reference in gone:
            self._writer.delete(reference, self._labels)
        return tuple(one for one in inventory if one not in gone)

    def prune(self, inventory: Inventory, kept: Inventory = ()) -> None:
        """Delete what was applied and is not any more, the last first."""
        keys = {one.key for one in kept}
        for reference in reversed(inventory):
            if reference.key in keys:
                continue
            if reference.kind == _KEPT or self._is_adopted(reference):
                log.warning("%s is left, with what is in it; delete it by hand", reference.described)
            elif self._writer.delete(reference, self._labels):
                log.info("Deleted %s, which is not part of what runs any more", reference.described)

    def _change_borrowed(self, obj: Mapping[str, Any]) -> None:
        """
        Change another owner's object as it was looked at.

        Its controller may write to its status at any moment, above all just after a change. The object is
        another version then, and what was looked at is the same.

        :raises DeployConflictError: the object changed since it was read
        """
        reference, metadata = reference_of(obj), dict(obj["metadata"])
        seen = _looked_at(metadata)
        metadata.pop("generation", None)
        for number in range(1, _TRIES + 1):
            try:
                self._cluster.merge(reference, {**obj, "metadata": metadata})
                break
            except DeployConflictError:
                live = self._cluster.get(reference.api_version, reference.kind, reference.name)
                if live is None or _looked_at(live["metadata"]) != seen or number == _TRIES:
                    raise
                metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
        self._writer.confirm(reference.described)

    def _is_adopted(self, reference: Reference) -> bool:
        return is_adopted(self._cluster.get(reference.api_version, reference.kind, reference.name) or {})

    def _leave_numbers(self, plan: DesiredState) -> None:
        """Where others say how many instances there are, giving up that number must not change it."""
        for one in plan.objects:
            if one["kind"] not in WORKLOADS or "replicas" in one["spec"]:
                continue
            self._writer.apply_seen(self._scaling, partial(self._left_number, one))

    def _left_number(self, wanted: Object) -> tuple[Object, Object] | None:
        live = self._cluster.get(wanted["apiVersion"], wanted["kind"], name_of(wanted))
        kept = live and left_as_it_is(live, wanted, "airflow-cd")
        return (live, kept) if live and kept else None


def _looked_at(metadata: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what is another one when anything but an object's metadata and status was changed."""
    return metadata.get("uid"), metadata.get("generation") or metadata["resourceVersion"]


def planned(plan: DesiredState) -> Inventory:
    """Return what of ours a stage of a plan is about to apply."""
    return tuple(reference_of(one) for one in plan.objects if not is_borrowed(one))


def adopting(objects: Sequence[Mapping[str, Any]], keys: Collection[tuple[str, str, str]]) -> list[Any]:
    """Return the objects, with those marked that existed before and have another owner."""
    found = []
    for obj in objects:
        copy = deepcopy(dict(obj))
        if reference_of(copy).key in keys:
            metadata = copy["metadata"]
            metadata["annotations"] = {**(metadata.get("annotations") or {}), ADOPTED: "true"}
        found.append(copy)
    return found


def merged(inventory: Inventory, applied: Inventory) -> Inventory:
    """Return the inventory with what was applied now."""
    keys = {one.key for one in applied}
    return (*(one for one in inventory if one.key not in keys), *applied)
