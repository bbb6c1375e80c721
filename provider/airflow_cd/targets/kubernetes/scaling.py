"""Leaving the number of a workload's instances to somebody else, without changing it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_cd.targets.kubernetes.workload import WORKLOADS, Object

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
