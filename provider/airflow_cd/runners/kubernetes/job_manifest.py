"""The Job of a command, as it is given to the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cd.runners.workspace import BASE_ENVIRONMENT, MOUNT, WORKSPACE, ids_of

if TYPE_CHECKING:
    from airflow_cd.model.runner import KubernetesRunnerSettings as Settings

# The containers of a pod: one takes the workspace in, before the command; one keeps it until it was fetched.
RECEIVE, HOLD, COMMAND = "receive", "hold", "command"
# Files in the volume that say how far it is.
FILLED, FETCHED = f"{MOUNT}/.filled", f"{MOUNT}/.fetched"
JOB, NUMBER, UNTIL = "airflow-cd/job", "airflow-cd/number", "airflow-cd/until"
# What nobody comes back for: how long its workspace is held, which costs what the command asked for, and how
# long the rest is kept, which costs nothing.
_HELD_SECONDS, _KEPT_SECONDS = 3600, 24 * 3600

_RECEIVE = f"""
until [ -e {FILLED} ]; do
    [ "$(date +%s)" -lt "$1" ] || exit 1
    sleep 0.2
done
"""
_HOLD = f"""
until [ -e {FETCHED} ] || [ "$(date +%s)" -ge "$1" ]; do
    sleep 1
done
"""
# What a tar, and a loop, need; said since some namespaces want every container to say it.
_HELPER_RESOURCES = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
}
# Else clusters that make themselves smaller may end a command to move it.
_LEFT_ALONE = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}


class Command(NamedTuple):
    """
    What runs in a pod.

    :param number: which of the job's commands it is, from 0
    :param timeout: seconds
    """

    number: int
    argv: Sequence[str]
    env: Mapping[str, str]
    timeout: float


def job_of(settings: Settings, name: str, command: Command) -> dict[str, Any]:
    """
    Return the Job of a command.

    :param name: of the runner's job
    """
    labels = {JOB: name, NUMBER: str(command.number)}
    now = int(time.time())
    # A retry waits for it as long again.
    ends = int(2 * settings.start_timeout.total_seconds() + 2 * command.timeout)
    until = {UNTIL: str(now + ends + _KEPT_SECONDS)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{name}-{command.number}", "labels": {**labels, **until}},
        "spec": {
            "backoffLimit": 0,
            # The pod ends by itself before that.
            "activeDeadlineSeconds": ends + 2 * _HELD_SECONDS,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "template": {
                "metadata": {"labels": labels, "annotations": _LEFT_ALONE},
                "spec": _pod_of(settings, command, now + ends + _HELD_SECONDS),
            },
        },
    }


def _pod_of(settings: Settings, command: Command, end: int) -> dict[str, Any]:
    user, group = ids_of(settings.user)
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The one that holds can end the command and keep the workspace; orphans are collected.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": 1,
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
        "nodeSelector": dict(settings.node_selector),
        "securityContext": {
            "runAsUser": user,
            "runAsGroup": group,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "cd", "emptyDir": {}}],
        "initContainers": [_helper(settings, RECEIVE, _RECEIVE, end)],
        # In this order, so that what the command leaves is held however short it is.
        "containers": [_helper(settings, HOLD, _HOLD, end), _command(settings, command)],
    }
    return {key: value for key, value in spec.items() if value not in (None, [], {})}


def _helper(settings: Settings, name: str, script: str, end: int) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.helper,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", literal(script), name, str(end)],
        "resources": _HELPER_RESOURCES,
        **_COMMON,
    }


def _command(settings: Settings, command: Command) -> dict[str, Any]:
    environment = {**BASE_ENVIRONMENT, **command.env}
    limits = {
        "memory": f"{settings.memory[:-1]}{_UNITS[settings.memory[-1]]}" if settings.memory else None,
        "cpu": f"{settings.cpus * 1000:.0f}m" if settings.cpus else None,
    }
    limits = {kind: limit for kind, limit in limits.items() if limit is not None}
    return {
        "name": COMMAND,
        "image": settings.image,
        "imagePullPolicy": "Always" if settings.pull == "always" else "IfNotPresent",
        "command": [literal(argument) for argument in command.argv],
        "env": [{"name": name, "value": literal(value)} for name, value in environment.items()],
        "workingDir": WORKSPACE,
        "resources": {"limits": limits, "requests": limits},
        **_COMMON,
    }


_UNITS = {"k": "Ki", "m": "Mi", "g": "Gi"}
_COMMON: dict[str, Any] = {
    "securityContext": _RESTRICTED,
    "volumeMounts": [{"name": "cd", "mountPath": MOUNT}],
}


def literal(text: str) -> str:
    """Return what Kubernetes makes this text of, which puts variables in for ``$(NAME)``."""
    return text.replace("$", "$$")
