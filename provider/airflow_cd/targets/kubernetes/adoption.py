"""What somebody else has put into a namespace that is kept, and keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.targets.kubernetes.cluster import NamespaceClient
from airflow_cd.targets.kubernetes.objects import ADOPTED, is_adopted, reference_of
from airflow_cd.targets.kubernetes.tenancy import CLUSTER_LABEL, DEFAULT_ACCOUNT

Object = Mapping[str, Any]
APPLY = "application/apply-patch+yaml"
_SECOND_NAME = "airflow-cd-left"


def with_what_is_there(
    cluster: NamespaceClient, obj: dict[str, Any], name: str, gone: Collection[str]
) -> dict[str, Any]:
    """
    Return the object with what others have put there, where it may not be taken away.

    :param gone: names of our Secrets that are not declared any more
    :raises ManifestError: it is a Secret, and somebody else's
    """
    if obj["kind"] not in ("Secret", "ServiceAccount"):
        return obj
    reference = reference_of(obj)
    live = cluster.get(reference.api_version, reference.kind, reference.name)
    if live is None:
        return obj
    ours = labels_on(live).get(CLUSTER_LABEL) == name
    if obj["kind"] == "Secret":
        if not ours:
            raise ManifestError(
                f"{cluster.where}: there is a {reference.described} that was not made from here, and is not "
                "overwritten. Give the pull secret another name, or delete that one."
            )
        return obj
    return _adopted(_with_pull_secrets(obj, live, gone), live, ours)


def _adopted(obj: dict[str, Any], live: Object, ours: bool) -> dict[str, Any]:
    if ours and not is_adopted(live):
        return obj
    return {**obj, "metadata": {**obj["metadata"], "annotations": {ADOPTED: "true"}}}


def _with_pull_secrets(obj: dict[str, Any], live: Object, gone: Collection[str]) -> dict[str, Any]:
    """The list is one value to the API server: those of others are kept by naming them too."""
    declared = [one["name"] for one in obj.get("imagePullSecrets") or ()]
    others = [one for one in _pull_secrets(live, gone) if one not in declared]
    names = [*declared, *others]
    return {**obj, "imagePullSecrets": [{"name": one} for one in names]} if names else obj


def _pull_secrets(live: Object, gone: Collection[str]) -> list[str]:
    return [one["name"] for one in live.get("imagePullSecrets") or () if one["name"] not in gone]


def is_others(live: Object) -> bool:
    """Return whether an object of ours is not ours to delete."""
    if live["kind"] != "ServiceAccount":
        return False
    return live["metadata"]["name"] == DEFAULT_ACCOUNT or is_adopted(live)


def release(cluster: NamespaceClient, live: Object, gone: Collection[str]) -> None:
    """Take off what was set from here, and nothing that others need."""
    reference = reference_of(live)
    bare = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": reference.name}}
    others = [{"name": one} for one in _pull_secrets(live, gone)]
    if others:
        # Whoever set them has lost them to us. In a second name they outlast the first one's end.
        path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/{reference.name}"
        query = {"fieldManager": _SECOND_NAME, "force": "true"}
        with cluster.reported(reference.described):
            cluster.request("PATCH", path, {**bare, "imagePullSecrets": others}, APPLY, query)
    cluster.apply([bare], take=True)


def labels_on(live: Object) -> Mapping[str, str]:
    """Return an object's labels."""
    return live["metadata"].get("labels") or {}
