"""The objects of a service that has no manifests: a Deployment, a Service, and its secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from airflow_cd.targets.kubernetes.records import labels_of

if TYPE_CHECKING:
    from airflow_cd.model.kubernetes import App, Resources
    from airflow_cd.model.release import Release

Object = dict[str, Any]

# What a Service may be called.
_LONGEST_NAME = 63
# As long as strategies' suffixes (``-preview``) still fit behind it.
_LONGEST_OF_OURS = _LONGEST_NAME - 8
_CONTAINER = "app"


def objects_of_app(app: App, *, service: str, environment: str, release: Release) -> list[Object]:
    """
    Return the Deployment and the Service of a release.

    While an instance is taken out, it goes on serving for ``stop_after``: the cluster tells it to end at the
    same moment at which it begins to tell everybody else not to send requests there any more. This is done
    by the program ``sleep`` of the image; an image that has none is told to end at once.
    """
    name = name_of_app(service)
    labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": f"{name}.{environment}"[:63].rstrip("-_."),
    }
    return [
        _object(
            "apps/v1", "Deployment", name, labels, _deployment(app, service, environment, release, labels)
        ),
        _object("v1", "Service", name, labels, _service(app, labels)),
    ]


def secret_of_app(app: App, *, service: str, environment: str, secret: Callable[[str], str]) -> Object | None:
    """
    Return the Secret with what the service is told of Airflow connections, if there is anything.

    :param secret: returns the password of a connection
    """
    if not app.secrets:
        return None
    values = {variable: secret(conn_id) for variable, conn_id in app.secrets.items()}
    made = _object("v1", "Secret", _secret_name(service, environment), {}, {})
    del made["spec"]
    return {**made, "type": "Opaque", "stringData": values}


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


def _deployment(app: App, service: str, environment: str, release: Release, labels: dict[str, str]) -> Object:
    stop, grace = (int(one.total_seconds()) for one in (app.stop_after, app.grace))
    pods: Object = {
        "containers": [_container(app, service, environment, release, stop)],
        "terminationGracePeriodSeconds": stop + max(grace, 1),
        "automountServiceAccountToken": app.service_account is not None,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    }
    if app.service_account is not None:
        pods["serviceAccountName"] = app.service_account
    return {
        "replicas": app.replicas,
        "selector": {"matchLabels": labels},
        # Nothing that serves is taken away before something else does.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "template": {"metadata": {"labels": dict(labels)}, "spec": pods},
    }


def _container(app: App, service: str, environment: str, release: Release, stop: int) -> Object:
    told = {
        **app.env,
        "PORT": str(app.port),
        "HOST": app.env.get("HOST", "0.0.0.0"),
        "CD_SERVICE": service,
        "CD_ENVIRONMENT": environment,
        "CD_VERSION": release.version,
        "CD_REVISION": release.revision.sha,
        "CD_RELEASE": release.digest,
    }
    secrets = _secret_name(service, environment)
    env: list[Object] = [{"name": name, "value": value} for name, value in told.items()]
    env += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secrets, "key": name}}} for name in app.secrets
    ]
    probe = (
        {"httpGet": {"path": app.ready, "port": app.port}} if app.ready else {"tcpSocket": {"port": app.port}}
    )
    container: Object = {
        "name": _CONTAINER,
        "image": release.pull_spec,
        "imagePullPolicy": "IfNotPresent",
        "env": env,
        "ports": [{"name": "http", "containerPort": app.port, "protocol": "TCP"}],
        "readinessProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 5},
        "securityContext": {"allowPrivilegeEscalation": False},
        "resources": _resources(app.resources),
    }
    if app.command is not None:
        container["args"] = list(app.command)
    if stop:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(stop)]}}}
    return container


def _service(app: App, labels: dict[str, str]) -> Object:
    port = {"name": "http", "port": app.service_port, "targetPort": app.port, "protocol": "TCP"}
    return {"type": app.service_type, "selector": dict(labels), "ports": [port]}


def _resources(resources: Resources) -> Object:
    requests = {"cpu": resources.cpu, "memory": resources.memory}
    limits = {"cpu": resources.cpu_limit, "memory": resources.memory_limit}
    given = {
        kind: {name: value for name, value in values.items() if value is not None}
        for kind, values in (("requests", requests), ("limits", limits))
    }
    return {kind: values for kind, values in given.items() if values}


def _object(api_version: str, kind: str, name: str, labels: dict[str, str], spec: Object) -> Object:
    metadata = {"name": name, "labels": dict(labels)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _secret_name(service: str, environment: str) -> str:
    return f"{name_of_app(service)}.{environment.replace('_', '-').strip('-')}.secrets"


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
