"""What the cluster's roles must allow: to deploy into a namespace, and to keep a cluster as declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_READ = ("get", "list", "watch")
# Nothing is ever replaced as a whole, hence no "update".
_WRITE = (*_READ, "create", "patch", "delete")


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

# A ClusterRole for the DAG of a cluster. Writing Roles takes having what they give, or "escalate"; binding
# them likewise "bind". Whoever has this is an administrator of the cluster in all but name.
KEEPER_RULES: tuple[dict[str, Any], ...] = (
    _rule("", ("namespaces",), ("get", "list", "create", "patch")),
    _rule("", ("serviceaccounts", "resourcequotas", "limitranges", "secrets"), _WRITE),
    _rule("networking.k8s.io", ("networkpolicies",), _WRITE),
    _rule("rbac.authorization.k8s.io", ("roles",), (*_WRITE, "escalate", "bind")),
    _rule("rbac.authorization.k8s.io", ("rolebindings",), _WRITE),
    _rule("", ("nodes", "configmaps"), ("get", "list")),
    # What is asked about API versions: names, labels and managers of objects, never their content.
    _rule("*", ("*",), ("list",)),
    {"nonResourceURLs": ["/metrics", "/version", "/version/", "/api*", "/apis*"], "verbs": ["get"]},
)
