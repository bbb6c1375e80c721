"""Reconciles the namespaces of a cluster with their declaration, and leaves objects of other owners alone."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_cd.exceptions import ManifestError, TargetError
from airflow_cd.kubernetes.client import NEW, NamespaceClient, text_of
from airflow_cd.kubernetes.objects import ADOPTED, PREFIX, is_adopted, reference_of
from airflow_cd.kubernetes.permissions import DEPLOYER_RULES, SECRETS_RULE
from airflow_cd.model.cluster import Deployer, Limits, Namespace, Network, Rule

log = logging.getLogger(__name__)

# On all that is kept: which cluster of a services file it is for.
CLUSTER_LABEL = f"{PREFIX}cluster"
# Since 1.21 the API server itself puts it on every namespace.
NAME_LABEL = "kubernetes.io/metadata.name"
DEFAULT_ACCOUNT = "default"
# What a Role, a quota and so on are called; there is one of each.
_NAME = "airflow-cd"
DEPLOYER_ROLE = f"{_NAME}-deployer"
_PULL_SECRET = "kubernetes.io/dockerconfigjson"
_DNS = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
# Where NodeLocal DNSCache listens.
_NODE_LOCAL_DNS = "169.254.20.10/32"

# All kinds that are made here, each with its apiVersion.
KEPT_KINDS = (
    ("v1", "ServiceAccount"),
    ("v1", "Secret"),
    ("v1", "ResourceQuota"),
    ("v1", "LimitRange"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)


class RegistryLogin(NamedTuple):
    """A registry, and who logs in there. It is never shown."""

    registry: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.registry!r}, ...)"


def namespace_object(namespace: Namespace, cluster: str) -> dict[str, Any]:
    """Return the Namespace itself."""
    labels = {**namespace.labels, NAME_LABEL: namespace.name}
    return _object("v1", "Namespace", namespace.name, cluster, labels=labels)


def namespace_objects(
    namespace: Namespace, cluster: str, logins: Mapping[str, RegistryLogin]
) -> list[dict[str, Any]]:
    """
    Return what is kept in a namespace, in the order in which it is needed.

    :param cluster: name of the cluster in the services file
    :param logins: of the namespace's pull secrets, by ``conn_id``
    """
    objects = [pull_secret(secret.name, cluster, logins[secret.conn_id]) for secret in namespace.pull_secrets]
    objects += _service_accounts(namespace, cluster)
    if namespace.deployer is not None:
        objects += _deployer(namespace.deployer, namespace.name, cluster)
    if namespace.quota:
        hard = dict(sorted(namespace.quota.items()))
        objects.append(_object("v1", "ResourceQuota", _NAME, cluster, spec={"hard": hard}))
    if namespace.limits is not None:
        objects.append(
            _object("v1", "LimitRange", _NAME, cluster, spec={"limits": [_limits(namespace.limits)]})
        )
    return objects + _policies(namespace.network, cluster)


def pull_secret(name: str, cluster: str, login: RegistryLogin) -> dict[str, Any]:
    """Return the Secret that lets images be pulled from a registry."""
    token = auth_of(login)
    entry = {"username": login.user, "password": login.password, "auth": token}
    config = json.dumps({"auths": {login.registry: entry}}, sort_keys=True)
    data = {".dockerconfigjson": base64.b64encode(config.encode()).decode()}
    return _object("v1", "Secret", name, cluster, type=_PULL_SECRET, data=data)


def auth_of(login: RegistryLogin) -> str:
    """Return user and password as a registry's configuration has them, which is as secret as they are."""
    return base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def rules_of(deployer: Deployer) -> list[dict[str, Any]]:
    """Return what a deployer may do in the namespace."""
    rules = [dict(rule) for rule in DEPLOYER_RULES]
    if deployer.secrets:
        rules.append(dict(SECRETS_RULE))
    return rules + [_rule(rule) for rule in deployer.extra_rules]


def _rule(rule: Rule) -> dict[str, Any]:
    made: dict[str, Any] = {
        "apiGroups": list(rule.api_groups),
        "resources": list(rule.resources),
        "verbs": list(rule.verbs),
    }
    return {**made, "resourceNames": list(rule.resource_names)} if rule.resource_names else made


def _service_accounts(namespace: Namespace, cluster: str) -> list[dict[str, Any]]:
    deployer = namespace.deployer
    names = list(namespace.service_accounts)
    if deployer is not None and deployer.namespace in (None, namespace.name):
        names.append(deployer.service_account)
    if namespace.pull_secrets:
        names.append(DEFAULT_ACCOUNT)
    pull = [{"name": secret.name} for secret in namespace.pull_secrets]
    more: dict[str, Any] = {"imagePullSecrets": pull} if pull else {}
    return [_object("v1", "ServiceAccount", name, cluster, **more) for name in dict.fromkeys(names)]


def _deployer(deployer: Deployer, namespace: str, cluster: str) -> list[dict[str, Any]]:
    rbac = "rbac.authorization.k8s.io"
    subject = {
        "kind": "ServiceAccount",
        "name": deployer.service_account,
        "namespace": deployer.namespace or namespace,
    }
    role = {"apiGroup": rbac, "kind": "Role", "name": DEPLOYER_ROLE}
    return [
        _object(f"{rbac}/v1", "Role", DEPLOYER_ROLE, cluster, rules=rules_of(deployer)),
        _object(f"{rbac}/v1", "RoleBinding", DEPLOYER_ROLE, cluster, roleRef=role, subjects=[subject]),
    ]


def _limits(limits: Limits) -> dict[str, Any]:
    given = {
        "default": limits.default,
        "defaultRequest": limits.default_request,
        "max": limits.max,
        "min": limits.min,
    }
    return {"type": "Container", **{name: dict(values) for name, values in given.items() if values}}


def _policies(network: Network, cluster: str) -> list[dict[str, Any]]:
    """One policy for each reason; together they allow what any of them allows."""
    closed = [
        direction
        for direction, choice in (("Ingress", network.ingress), ("Egress", network.egress))
        if choice != "open"
    ]
    if not closed:
        return []
    here: list[dict[str, Any]] = [{"podSelector": {}}]
    found = [_policy("deny", cluster, closed)]
    if network.ingress == "namespace":
        found.append(_policy("from-namespace", cluster, ["Ingress"], ingress=[{"from": here}]))
    if network.from_namespaces:
        allowed = [{"from": _peers(network.from_namespaces)}]
        found.append(_policy("from-others", cluster, ["Ingress"], ingress=allowed))
    if network.egress == "namespace":
        found.append(_policy("to-namespace", cluster, ["Egress"], egress=[{"to": here}]))
        # To the cluster's DNS wherever it runs, and not out of the cluster.
        dns = [{"namespaceSelector": {}}, {"ipBlock": {"cidr": _NODE_LOCAL_DNS}}]
        found.append(_policy("to-dns", cluster, ["Egress"], egress=[{"to": dns, "ports": _DNS}]))
    if network.to_namespaces:
        allowed = [{"to": _peers(network.to_namespaces)}]
        found.append(_policy("to-others", cluster, ["Egress"], egress=allowed))
    return found


def _peers(namespaces: Sequence[str]) -> list[dict[str, Any]]:
    return [{"namespaceSelector": {"matchLabels": {NAME_LABEL: name}}} for name in namespaces]


def _policy(name: str, cluster: str, types: Sequence[str], **rules: Any) -> dict[str, Any]:
    spec = {"podSelector": {}, "policyTypes": list(types), **rules}
    return _object("networking.k8s.io/v1", "NetworkPolicy", f"{_NAME}-{name}", cluster, spec=spec)


def _object(
    api_version: str,
    kind: str,
    name: str,
    cluster: str,
    labels: Mapping[str, str] | None = None,
    **content: Any,
) -> dict[str, Any]:
    metadata = {"name": name, "labels": {**(labels or {}), CLUSTER_LABEL: cluster}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


Object = Mapping[str, Any]
APPLY = "application/apply-patch+yaml"
_SECOND_NAME = "airflow-cd-left"


def with_what_is_there(
    cluster: NamespaceClient, obj: dict[str, Any], name: str, gone: Collection[str]
) -> dict[str, Any]:
    """
    Return the object with what others have put there, where it cannot be taken away.

    :param gone: names of our Secrets that are not declared any more
    :raises ManifestError: it is a Secret of another owner
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
        # Their former manager has lost them to this one. In a second name they outlast the first one's end.
        path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/{reference.name}"
        query = {"fieldManager": _SECOND_NAME, "force": "true"}
        with cluster.reported(reference.described):
            cluster.request("PATCH", path, {**bare, "imagePullSecrets": others}, APPLY, query)
    cluster.apply([bare], take=True)


def labels_on(live: Object) -> Mapping[str, str]:
    """Return an object's labels."""
    return live["metadata"].get("labels") or {}


_MANAGER = "airflow-cd"


class Kept(NamedTuple):
    """
    What was done about a namespace, by names such as ``Role/airflow-cd-deployer``.

    :param let_go: what left the declaration, and stays since it existed before with another owner
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
        raise TargetError(f"{where}: the namespace is being deleted. It is created again once it is gone.")


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
