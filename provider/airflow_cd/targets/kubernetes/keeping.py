"""Makes a namespace what it is declared to be. Doing it again, or after half of it, comes to the same."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_cd.exceptions import TargetError
from airflow_cd.model.namespace import Namespace
from airflow_cd.targets.kubernetes.adoption import APPLY, is_others, labels_on, release, with_what_is_there
from airflow_cd.targets.kubernetes.cluster import NamespaceClient
from airflow_cd.targets.kubernetes.differences import NEW, text_of
from airflow_cd.targets.kubernetes.objects import reference_of
from airflow_cd.targets.kubernetes.tenancy import (
    CLUSTER_LABEL,
    KEPT_KINDS,
    NAME_LABEL,
    RegistryLogin,
    namespace_object,
    namespace_objects,
)

log = logging.getLogger(__name__)

Object = Mapping[str, Any]
_MANAGER = "airflow-cd"


class Kept(NamedTuple):
    """
    What was done about a namespace, by names such as ``Role/airflow-cd-deployer``.

    :param let_go: what left the declaration, and stays since somebody else had made it
    """

    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    let_go: tuple[str, ...] = ()


def reconcile_namespace(
    cluster: NamespaceClient, namespace: Namespace, name: str, logins: Mapping[str, RegistryLogin]
) -> Kept:
    """
    Make the namespace what it is declared to be.

    What would change is in the log, as the API server itself says in a dry run, before anything is changed.

    :param cluster: of the namespace
    :param name: of the cluster, in the services file
    :param logins: of pull secrets, by ``conn_id``
    :raises TargetError: the namespace is another cluster entry's, or is being deleted
    :raises ManifestError: the cluster does not take an object; or a Secret is there that is not ours
    :raises AccessDeniedError: the cluster's roles forbid it; names the missing rule
    """
    created, changed = _keep_namespace(cluster, namespace, name)
    desired = namespace_objects(namespace, name, logins)
    left = _left(cluster, desired, name)
    gone = {one["metadata"]["name"] for one in left if one["kind"] == "Secret"}
    desired = [with_what_is_there(cluster, obj, name, gone) for obj in desired]
    differences = {one.reference.key: one for one in cluster.diff(desired, take=True)}
    new = {key for key, one in differences.items() if one.text == NEW}
    # Those that are there went through a dry run to be compared.
    cluster.validate([obj for obj in desired if reference_of(obj).key in new], take=True)
    for one in differences.values():
        _tell(one.reference.described, one.text)
    todo = [obj for obj in desired if reference_of(obj).key in differences]
    cluster.apply(todo, take=True)
    deleted, let_go = _prune(cluster, left, name)
    names = {key: one.reference.described for key, one in differences.items()}
    return Kept(
        created=(*created, *(names[key] for key in names if key in new)),
        changed=(*changed, *(names[key] for key in names if key not in new)),
        deleted=tuple(deleted),
        let_go=tuple(let_go),
    )


def undeclared(cluster: NamespaceClient, name: str, declared: Collection[str]) -> list[str]:
    """Return the namespaces that were kept for this cluster, are there, and are not declared any more."""
    with cluster.reported("Namespaces"):
        query = {"labelSelector": f"{CLUSTER_LABEL}={name}"}
        found = cluster.request("GET", "/api/v1/namespaces", query=query)
    return sorted({one["metadata"]["name"] for one in found["items"]} - set(declared))


def unselectable(cluster: NamespaceClient, namespaces: Collection[str]) -> list[str]:
    """Return those that are not there, or lack the label by which network policies select them."""
    found = {name: _namespace(cluster, name) for name in sorted(set(namespaces))}
    return [name for name, one in found.items() if one is None or labels_on(one).get(NAME_LABEL) != name]


def _keep_namespace(
    cluster: NamespaceClient, namespace: Namespace, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what was created and what was changed."""
    live = _namespace(cluster, namespace.name)
    described = f"Namespace/{namespace.name}"
    if live is not None:
        _refuse(live, name, cluster.where)
    desired = namespace_object(namespace, name)
    planned = _apply_namespace(cluster, desired, dry_run=True)
    difference = NEW if live is None else text_of(live, planned, described)
    if not difference:
        return (), ()
    _tell(described, difference)
    _apply_namespace(cluster, desired, dry_run=False)
    return ((described,), ()) if live is None else ((), (described,))


def _refuse(live: Object, name: str, where: str) -> None:
    owner = labels_on(live).get(CLUSTER_LABEL)
    if owner not in (None, name):
        raise TargetError(
            f"{where}: the namespace is kept for the cluster entry {owner!r}. Remove it from one of the two; "
            f"to move it, take its label {CLUSTER_LABEL} off first"
        )
    if live.get("status", {}).get("phase") == "Terminating":
        raise TargetError(f"{where}: the namespace is being deleted. It is made anew once it is gone.")


def _namespace(cluster: NamespaceClient, name: str) -> Any:
    from kubernetes.client import ApiException

    with cluster.reported(f"Namespace/{name}"):
        try:
            return cluster.request("GET", f"/api/v1/namespaces/{name}")
        except ApiException as error:
            if error.status == 404:
                return None
            raise


def _apply_namespace(cluster: NamespaceClient, desired: Object, dry_run: bool) -> Any:
    name = desired["metadata"]["name"]
    query = {"fieldManager": _MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
    with cluster.reported(f"Namespace/{name}"):
        return cluster.request("PATCH", f"/api/v1/namespaces/{name}", desired, APPLY, query)


def _left(cluster: NamespaceClient, desired: Sequence[Object], name: str) -> list[dict[str, Any]]:
    """Return our own objects that are not declared any more."""
    wanted = {reference_of(obj).key for obj in desired}
    labels = {CLUSTER_LABEL: name}
    found = [one for api_version, kind in KEPT_KINDS for one in cluster.list(api_version, kind, labels)]
    return [one for one in found if reference_of(one).key not in wanted]


def _prune(cluster: NamespaceClient, left: Sequence[Object], name: str) -> tuple[list[str], list[str]]:
    """Return what was deleted, and what was let go."""
    deleted, let_go = [], []
    gone = {one["metadata"]["name"] for one in left if one["kind"] == "Secret"}
    for one in left:
        reference = reference_of(one)
        if is_others(one):
            log.info("%s: %s is not declared any more, and is left", cluster.where, reference.described)
            release(cluster, one, gone)
            let_go.append(reference.described)
        else:
            log.info("%s: %s is not declared any more, and is deleted", cluster.where, reference.described)
            if cluster.delete(reference, {CLUSTER_LABEL: name}):
                deleted.append(reference.described)
    return deleted, let_go


def _tell(described: str, difference: str) -> None:
    if difference == NEW:
        log.info("%s is made", described)
    else:
        log.info("%s is put right:\n%s", described, difference)
