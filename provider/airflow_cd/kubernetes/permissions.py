"""The permissions that a cluster must grant: to deploy into a namespace, and to manage a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_cd.kubernetes.objects import group_of
from airflow_cd.kubernetes.removed_apis import REMOVALS

_READ = ("get", "list", "watch")
# Nothing is ever replaced as a whole, hence no "update".
_WRITE = (*_READ, "create", "patch", "delete")
_KEEP = ("get", "list", "create", "patch", "delete")


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


# The target: a service's objects, its records (ConfigMaps) and its lock (Lease); why pods do not get ready.
# NetworkPolicies, Roles and RoleBindings are not among them: who may write those could undo what keeps the
# namespace apart. Who needs them has `extra_rules`.
DEPLOYER_RULES: tuple[dict[str, Any], ...] = (
    _rule("", ("configmaps", "services", "serviceaccounts", "persistentvolumeclaims"), _WRITE),
    _rule("", ("pods", "events", "resourcequotas"), _READ),
    _rule("", ("pods/log",), ("get",)),
    _rule("apps", ("deployments", "statefulsets", "daemonsets"), _WRITE),
    _rule("apps", ("replicasets", "controllerrevisions"), _READ),
    _rule("autoscaling", ("horizontalpodautoscalers",), _WRITE),
    _rule("batch", ("jobs", "cronjobs"), _WRITE),
    _rule("coordination.k8s.io", ("leases",), ("get", "list", "create", "patch", "delete")),
    _rule("gateway.networking.k8s.io", ("httproutes",), _WRITE),
    _rule("networking.k8s.io", ("ingresses",), _WRITE),
    _rule("policy", ("poddisruptionbudgets",), _WRITE),
)
# Only with `app: {secrets: ...}`: RBAC cannot tell a service's own Secrets from all others.
SECRETS_RULE = _rule("", ("secrets",), _WRITE)


def _listing() -> tuple[dict[str, Any], ...]:
    """What is asked about API versions: names, labels and managers of objects, never their content."""
    groups: dict[str, set[str]] = {}
    for removal in REMOVALS:
        for api_version in filter(None, (removal.api_version, removal.instead)):
            groups.setdefault(group_of(api_version), set()).add(removal.resource)
    return tuple(_rule(group, sorted(groups[group]), ("list",)) for group in sorted(groups))


# For the DAG of a cluster. Writing Roles takes having what they give, or "escalate"; binding them likewise
# "bind". An account with this role is in effect an administrator of the cluster.
KEEPER_RULES: tuple[dict[str, Any], ...] = (
    _rule("", ("namespaces",), ("get", "list", "create", "patch")),
    _rule("", ("serviceaccounts", "resourcequotas", "limitranges", "secrets"), _KEEP),
    _rule("networking.k8s.io", ("networkpolicies",), _KEEP),
    _rule("rbac.authorization.k8s.io", ("roles",), (*_KEEP, "escalate", "bind")),
    _rule("rbac.authorization.k8s.io", ("rolebindings",), _KEEP),
    _rule("", ("nodes", "configmaps"), ("list",)),
    *_listing(),
    {"nonResourceURLs": ["/metrics", "/version", "/api", "/api/*", "/apis", "/apis/*"], "verbs": ["get"]},
)


def keeper_role(name: str = "airflow-cd-keeper") -> dict[str, Any]:
    """Return the ClusterRole that the connection of a cluster's DAG needs."""
    metadata = {"name": name}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": metadata,
        "rules": [dict(rule) for rule in KEEPER_RULES],
    }


if __name__ == "__main__":
    import yaml

    print(yaml.safe_dump(keeper_role(), sort_keys=False), end="")
