"""The objects of a service without manifests: a Deployment, a Service, and its Secrets."""

from __future__ import annotations

import hashlib
import json
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.objects import PREFIX
from airflow_cd.targets.kubernetes.state_store import labels_of, object_name

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_cd.model.kubernetes import AppSettings
    from airflow_cd.model.release import Release

Object = dict[str, Any]

CONTAINER, PORT = "app", "http"
# As long as rollouts wait for something to move, if nothing else is said (``progress_deadline``).
_START_SECONDS = 600


def pods_of_app(
    app: AppSettings, *, image: str, variables: dict[str, str], secret: str, can_sleep: bool
) -> Object:
    """
    Return the spec of the pods.

    :param variables: variables that settings cannot change
    :param secret: name of the Secret with the values of ``app.secrets``
    :param can_sleep: whether every node of the cluster can wait before it tells a container to end
    """
    pods: Object = {
        "containers": [_container(app, image, variables, secret, can_sleep)],
        # The wait before SIGTERM counts as well. 0 would be to kill it at once.
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


def _container(
    app: AppSettings, image: str, variables: dict[str, str], secret: str, can_sleep: bool
) -> Object:
    container: Object = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": _env(app, variables, secret),
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


def _env(app: AppSettings, variables: dict[str, str], secret: str) -> list[Object]:
    plain = {**app.env, **variables}
    env: list[Object] = [{"name": name, "value": _literal(value)} for name, value in plain.items()]
    secrets = [name for name in app.secrets if name not in variables]
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


# What a Service may be called.
_LONGEST_NAME = 63
# As long as strategies' suffixes (``-preview``) still fit behind it.
_LONGEST_OF_OURS = _LONGEST_NAME - 8


def objects_of_app(
    app: AppSettings, *, service: str, environment: str, release: Release, can_sleep: bool = False
) -> list[Object]:
    """
    Return the Deployment and the Service of a release.

    While an instance is taken out, it goes on serving for ``stop_after``. Its node waits by itself where it
    can, and by the program ``sleep`` of the image otherwise: an image without it receives SIGTERM at
    once.

    :param can_sleep: whether every node of the cluster can wait by itself (``preStop: {sleep: ...}``)
    :raises ManifestError: the release is no image
    """
    if release.image is None:
        raise ManifestError(
            f"{release.version} is no image, and Kubernetes runs images only; package it again"
        )
    name = name_of_app(service)
    labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": f"{name}.{environment}"[:63].rstrip("-_."),
    }
    variables = {
        "PORT": str(app.port),
        "HOST": app.env.get("HOST", "0.0.0.0"),
        "CD_SERVICE": service,
        "CD_ENVIRONMENT": environment,
        "CD_VERSION": release.version,
        "CD_REVISION": release.revision.sha,
        "CD_RELEASE": release.digest,
    }
    pods = pods_of_app(
        app,
        image=release.pull_spec,
        variables=variables,
        secret=_secret_name(app, service, environment),
        can_sleep=can_sleep,
    )
    return [
        _object("apps/v1", "Deployment", name, labels, _deployment(app, labels, pods)),
        _object("v1", "Service", name, labels, _service(app, labels)),
    ]


def secret_of_app(
    app: AppSettings, *, service: str, environment: str, secret: Callable[[str], str]
) -> Object | None:
    """
    Return the Secret with the values of Airflow connections, or ``None`` if the service uses none.

    Releases with other connections or other variables have a Secret of their own: each can be
    gone back to.

    :param secret: returns the password of a connection
    """
    if not app.secrets:
        return None
    values = {name: b64encode(secret(conn_id).encode()).decode() for name, conn_id in app.secrets.items()}
    metadata = {"name": _secret_name(app, service, environment), "labels": {f"{PREFIX}holds": "secrets"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": values}


def labelled(objects: Sequence[Mapping[str, Any]], *, service: str, environment: str) -> list[Object]:
    """Return the objects, and the pods they make, with the labels that say whose they are."""
    labels, found = labels_of(service, environment), []
    for obj in objects:
        copy = deepcopy(dict(obj))
        for metadata in (copy["metadata"], *_pod_metadata(copy)):
            metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        found.append(copy)
    return found


def name_of_app(service: str) -> str:
    """Return what a service's objects are called, which must not have underscores. Names stay different."""
    plain = service.replace("_", "-").strip("-")
    if plain == service and len(plain) <= _LONGEST_OF_OURS:
        return plain
    return f"{plain[: _LONGEST_OF_OURS - 9].rstrip('-')}-{hashlib.sha256(service.encode()).hexdigest()[:8]}"


def _deployment(app: AppSettings, labels: dict[str, str], pods: Object) -> Object:
    metadata: Object = {"labels": dict(labels)}
    if app.annotations:
        metadata["annotations"] = dict(app.annotations)
    return {
        "replicas": app.replicas,
        "selector": {"matchLabels": labels},
        # Nothing that serves is taken away before something else does.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "template": {"metadata": metadata, "spec": pods},
    }


def _service(app: AppSettings, labels: dict[str, str]) -> Object:
    # By its name: releases that run side by side may listen on different ports.
    port = {"name": "http", "port": app.service_port, "targetPort": PORT, "protocol": "TCP"}
    return {"type": app.service_type, "selector": dict(labels), "ports": [port]}


def _object(api_version: str, kind: str, name: str, labels: dict[str, str], spec: Object) -> Object:
    metadata = {"name": name, "labels": dict(labels)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _secret_name(app: AppSettings, service: str, environment: str) -> str:
    variables = json.dumps(app.secrets, sort_keys=True).encode()
    return f"{object_name(service, environment)}.secrets.{hashlib.sha256(variables).hexdigest()[:8]}"


def _pod_metadata(obj: Object) -> list[Object]:
    """Return the metadata of the pods that an object makes."""
    spec = obj.get("spec")
    if obj["kind"] == "CronJob" and isinstance(spec, dict):
        spec = (spec.get("jobTemplate") or {}).get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if not isinstance(template, dict) or "spec" not in template:
        return []
    if not isinstance(template.get("metadata"), dict):
        template["metadata"] = {}
    return [template["metadata"]]
