"""The pods of a service that has no manifests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_cd.model.kubernetes import AppSettings

Object = dict[str, Any]

CONTAINER, PORT = "app", "http"
# As long as rollouts wait for something to move, if nothing else is said (``progress_deadline``).
_START_SECONDS = 600


def pods_of_app(
    app: AppSettings, *, image: str, told: dict[str, str], secret: str, can_sleep: bool
) -> Object:
    """
    Return the spec of the pods.

    :param told: variables that settings cannot change
    :param secret: name of the Secret with the values of ``app.secrets``
    :param can_sleep: whether every node of the cluster can wait before it tells a container to end
    """
    pods: Object = {
        "containers": [_container(app, image, told, secret, can_sleep)],
        # The wait before it is told to end counts as well. 0 would be to kill it at once.
        "terminationGracePeriodSeconds": _seconds(app.stop_after) + max(_seconds(app.grace), 1),
        "automountServiceAccountToken": app.service_account is not None,
        # Variables of all Services in the namespace, under names that others choose.
        "enableServiceLinks": False,
        "securityContext": _security_of_pod(app),
    }
    if app.service_account is not None:
        pods["serviceAccountName"] = app.service_account
    if app.image_pull_secrets:
        pods["imagePullSecrets"] = [{"name": name} for name in app.image_pull_secrets]
    return pods


def _container(app: AppSettings, image: str, told: dict[str, str], secret: str, can_sleep: bool) -> Object:
    container: Object = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": _env(app, told, secret),
        "ports": [{"name": PORT, "containerPort": app.port, "protocol": "TCP"}],
        "readinessProbe": {**_probe(app.ready), "periodSeconds": 1, "timeoutSeconds": 5},
        "securityContext": {"allowPrivilegeEscalation": False},
        "resources": _resources(app),
    }
    if app.command is not None:
        container["args"] = [_literal(one) for one in app.command]
    if app.user is not None:
        # What another user than root has lost already.
        container["securityContext"]["capabilities"] = {"drop": ["ALL"]}
    if app.alive is not None:
        alive = {**_probe(app.alive), "timeoutSeconds": 5}
        container["livenessProbe"] = alive
        container["startupProbe"] = {**alive, "periodSeconds": 1, "failureThreshold": _START_SECONDS}
    if stop := _seconds(app.stop_after):
        container["lifecycle"] = {"preStop": _wait(stop, can_sleep)}
    return container


def _wait(seconds: int, can_sleep: bool) -> Object:
    """
    Return what keeps an instance serving while it is taken out of the Service.

    The cluster tells it to end at the moment at which it begins to tell everybody else to leave it alone.
    """
    return {"sleep": {"seconds": seconds}} if can_sleep else {"exec": {"command": ["sleep", str(seconds)]}}


def _env(app: AppSettings, told: dict[str, str], secret: str) -> list[Object]:
    plain = {**app.env, **told}
    env: list[Object] = [{"name": name, "value": _literal(value)} for name, value in plain.items()]
    secrets = [name for name in app.secrets if name not in told]
    return env + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}} for name in secrets
    ]


def _literal(text: str) -> str:
    """Return a text in which Kubernetes finds no ``$(VARIABLE)`` to replace."""
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def _probe(path: str | None) -> Object:
    return {"tcpSocket": {"port": PORT}} if path is None else {"httpGet": {"path": path, "port": PORT}}


def _security_of_pod(app: AppSettings) -> Object:
    security: Object = {"seccompProfile": {"type": "RuntimeDefault"}}
    if app.user is not None:
        user, _, group = app.user.partition(":")
        security.update(runAsNonRoot=True, runAsUser=int(user))
        security.update({"runAsGroup": int(group)} if group else {})
    return security


def _resources(app: AppSettings) -> Object:
    given = app.resources
    requests = {"cpu": given.cpu, "memory": given.memory}
    limits = {"cpu": given.cpu_limit, "memory": given.memory_limit}
    found = {
        kind: {name: value for name, value in values.items() if value is not None}
        for kind, values in (("requests", requests), ("limits", limits))
    }
    return {kind: values for kind, values in found.items() if values}


def _seconds(duration: timedelta) -> int:
    """Return a duration in whole seconds, which is all Kubernetes knows; no shorter than it was meant."""
    return math.ceil(duration.total_seconds())
