"""The objects of a namespace that is kept as declared. The same declaration always makes the same objects."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_cd.model.namespace import Deployer, Limits, Namespace, Network, Rule
from airflow_cd.targets.kubernetes.objects import PREFIX
from airflow_cd.targets.kubernetes.rights import DEPLOYER_RULES, SECRETS_RULE

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
