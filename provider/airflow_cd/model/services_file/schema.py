"""
The JSON schema of services files, for editors.

``python -m airflow_cd.model.services_file.schema`` writes ``airflow_cd/model/services.schema.json``,
which ships with the package.
Nothing imports this module while DAG files are parsed, so reading the docstrings costs nothing there.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from airflow_cd.model.base import format_duration
from airflow_cd.model.cluster import Cluster
from airflow_cd.model.retention import Maintenance
from airflow_cd.model.service import Service
from airflow_cd.model.train import Train
from airflow_cd.model.window import Freeze

FILE = Path(__file__).parent.with_name("services.schema.json")
_REFERENCE = "#/$defs/{model}"
_ROOTS: tuple[type[BaseModel], ...] = (Service, Train, Freeze, Cluster, Maintenance)
# What `defaults` may give need not be written in every service.
_FROM_DEFAULTS = ("Service", "SourceSettings")
_PARAM = re.compile(r"^:param (\w+):\s*(.*?)(?=^:|\Z)", re.MULTILINE | re.DOTALL)
# Keys whose value can be one word instead of a mapping.
_WORDS = {
    ("Service", "runner"): ["subprocess"],
    ("Environment", "strategy"): ["rolling"],
    ("Environment", "drift"): ["report", "heal"],
}
_LOCAL_TARGET = {"local": {"command": ["python", "src/app.py"], "port": 8101}}
_ENVIRONMENT = {"name": "production", "target": _LOCAL_TARGET}
_SOURCE = {"repository": "https://git.example/hello.git"}
_SERVICE = {
    "name": "hello",
    "pipeline": "delivery",
    "source": _SOURCE,
    "environments": [_ENVIRONMENT],
}
_TRAIN = {"name": "nightly", "schedule": "0 2 * * *"}
_FREEZE = {"start": "2026-12-24", "end": "2027-01-01", "reason": "Christmas"}
_WINDOW = {"deny": "0 18 * * FRI", "duration": "62h", "timezone": "Europe/Berlin"}
_CHECK = {"http": "/healthz", "interval": "1s", "healthy_after": 3, "timeout": "60s"}
_NOTIFICATION = {
    "events": ["deployed", "rolled_back"],
    "notifier": "airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier",
    "kwargs": {"slack_webhook_conn_id": "slack", "text": "{{ cd.event }}: {{ cd.service }}"},
}
_HTTP_QUERY = {"url": "https://stats.example/${service}", "json": "$.failed"}
_PROMETHEUS_QUERY = {
    "query": 'sum(rate(errors_total{app="${service}"}[1m]))',
    "url": "http://prometheus:9090",
}
_ANALYSIS = {"prometheus": _PROMETHEUS_QUERY, "success": "< 0.01"}
_RULE = {
    "api_groups": ["networking.k8s.io"],
    "resources": ["networkpolicies"],
    "verbs": ["get", "list", "create", "patch", "delete"],
}
_SUITE = {"commands": [["python", "-m", "pytest", "--junitxml=report.xml"]], "junit": "report.xml"}
_BUILD = [["python", "-m", "compileall", "-q", "src"]]
_CANARY = {"steps": [{"weight": 10}, {"pause": "5m"}, {"analysis": "error-rate"}, {"weight": 50}]}
_AMOUNTS = {"cpu": "500m", "memory": "256Mi"}
# Values of keys that mean the same in every model, and below them of keys of one model. Enumerations and
# booleans are not here: their values are the examples.
_EXAMPLES: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "conn_id": "registry",
    "context": "shop-eu",
    "owner": "team-shop",
    "notify": [_NOTIFICATION],
    "env": {"LOG_LEVEL": "info"},
    "timeout": "10m",
    "command": ["python", "src/app.py"],
    "ready": "/healthz",
    "keep": 3,
    "drain": "30s",
    "start_timeout": "2m",
    "url": "https://hello.example",
    "engine": "ssh://deploy@docker.example",
    "memory": "512m",
    "cpus": 1.5,
    "image": "python:3.12-slim",
    "user": "1000:1000",
    "service_account": "deployer",
    "image_pull_secrets": ["regcred"],
    "approval": {"approvers": ["alice", "bob"], "expires_after": "3d"},
    "headers": {"X-Scope-OrgID": "shop"},
    "Analysis.http": _HTTP_QUERY,
    "Analysis.prometheus": _PROMETHEUS_QUERY,
    "Analysis.success": "< 0.01",
    "Analysis.failure": ">= 0.05",
    "Analysis.interval": "30s",
    "Analysis.count": 10,
    "Analysis.failure_limit": 1,
    "Analysis.inconclusive_limit": 1,
    "Analysis.error_limit": 2,
    "Analysis.initial_delay": "1m",
    "AppSettings.port": 8000,
    "AppSettings.replicas": 3,
    "AppSettings.service_port": 8080,
    "AppSettings.secrets": {"DATABASE_PASSWORD": "shop_database"},
    "AppSettings.alive": "/alive",
    "AppSettings.annotations": {"prometheus.io/scrape": "true"},
    "AppSettings.resources": {"cpu": "100m", "memory": "128Mi", "memory_limit": "256Mi"},
    "AppSettings.stop_after": "10s",
    "AppSettings.grace": "1m",
    "Approval.approvers": ["alice", "bob"],
    "Approval.expires_after": "3d",
    "Approval.identities": {"alice@shop.example": "alice"},
    "Approval.override": "deny",
    "ArchiveSettings.include": ["src/**", "requirements.txt"],
    "ArchiveSettings.exclude": ["**/*.log"],
    "BlueGreenSettings.analysis": ["error-rate"],
    "BlueGreenSettings.scale_down_delay": "5m",
    "BuildSettings.commands": _BUILD,
    "CanarySettings.steps": _CANARY["steps"],
    "CanarySettings.route": "hello",
    "Cluster.name": "shop-eu",
    "Cluster.schedule": "0 * * * *",
    "Cluster.namespaces": [{"name": "shop", "deployer": {"service_account": "deployer"}}],
    "Cluster.conn_id": "kubernetes_default",
    "Cluster.unready_after": "10m",
    "Cluster.certificates_warn": "14d",
    "Cluster.upgrade_to": "1.32",
    "Deployer.namespace": "airflow",
    "Deployer.extra_rules": [_RULE],
    "DockerRunnerSettings.processes": 512,
    "DockerTargetSettings.port": 8112,
    "DockerTargetSettings.container_port": 8000,
    "DockerTargetSettings.host": "0.0.0.0",
    "DockerTargetSettings.url": "http://host.docker.internal:8112",
    "DockerTargetSettings.secrets": {"database_password": "shop_database"},
    "DockerTargetSettings.volumes": [{"source": "hello-data", "target": "/var/lib/hello"}],
    "DockerTargetSettings.networks": ["databases"],
    "DockerTargetSettings.stop_timeout": "30s",
    "DockerTargetSettings.front": "caddy:2",
    "DriftSettings.schedule": "0 * * * *",
    "Environment.name": "production",
    "Environment.target": _LOCAL_TARGET,
    "Environment.health": [_CHECK],
    "Environment.monitor": {"rollback": True, "bake_time": "1h"},
    "Environment.strategy": {"canary": _CANARY},
    "Environment.windows": [_WINDOW],
    "Environment.window_approvers": ["carol"],
    "Environment.verify": {"conn_ids": ["release_signing"]},
    "Environment.drift": "heal",
    "Freeze.start": "2026-12-24",
    "Freeze.end": "2027-01-01",
    "Freeze.reason": "Christmas",
    "Freeze.environments": ["production"],
    "HealthCheck.http": "/healthz",
    "HealthCheck.status": 204,
    "HealthCheck.body": "ok",
    "HealthCheck.latency": "500ms",
    "HealthCheck.tcp": 5432,
    "HealthCheck.command": ["python", "check.py"],
    "HealthCheck.interval": "1s",
    "HealthCheck.sample_timeout": "2s",
    "HealthCheck.healthy_after": 5,
    "HealthCheck.failures": 1,
    "HealthCheck.window": "30s",
    "HttpQuery.url": "https://stats.example/${service}/${version}",
    "HttpQuery.json": "$.checkout.failed",
    "HttpQuery.conn_id": "stats",
    "HttpQuery.timeout": "5s",
    "ImageSettings.repository": "registry.example/shop/greet",
    "ImageSettings.dockerfile": "docker/Dockerfile",
    "ImageSettings.context": "app",
    "ImageSettings.stage": "runtime",
    "ImageSettings.args": {"PYTHON": "3.12"},
    "ImageSettings.registry_url": "http://registry:5000",
    "KubernetesRunnerSettings.namespace": "builds",
    "KubernetesRunnerSettings.conn_id": "kubernetes_default",
    "KubernetesRunnerSettings.memory": "1g",
    "KubernetesRunnerSettings.node_selector": {"pool": "builds"},
    "KubernetesRunnerSettings.helper": "busybox:1.36",
    "KubernetesTargetSettings.namespace": "shop",
    "KubernetesTargetSettings.manifests": "k8s/production",
    "KubernetesTargetSettings.app": {"replicas": 3, "ready": "/healthz"},
    "KubernetesTargetSettings.conn_id": "kubernetes_default",
    "KubernetesTargetSettings.workload": "hello",
    "KubernetesTargetSettings.service": "hello",
    "KubernetesTargetSettings.progress_deadline": "5m",
    "Limits.default": _AMOUNTS,
    "Limits.default_request": {"cpu": "100m", "memory": "128Mi"},
    "Limits.max": {"cpu": "2", "memory": "2Gi"},
    "Limits.min": {"cpu": "10m", "memory": "16Mi"},
    "LocalTargetSettings.port": 8101,
    "LocalTargetSettings.host": "0.0.0.0",
    "Maintenance.schedule": "30 4 * * *",
    "MonitorSettings.bake_time": "2h",
    "MonitorSettings.interval": "10s",
    "MonitorSettings.failures": 3,
    "MonitorSettings.window": "1m",
    "Namespace.name": "shop",
    "Namespace.labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    "Namespace.deployer": {"service_account": "deployer"},
    "Namespace.service_accounts": ["web"],
    "Namespace.quota": {"requests.cpu": "4", "limits.memory": "8Gi", "pods": 50},
    "Namespace.limits": {"default": _AMOUNTS},
    "Namespace.network": {"ingress": "namespace", "from_namespaces": ["ingress-nginx"]},
    "Namespace.pull_secrets": [{"name": "regcred", "conn_id": "registry"}],
    "Network.from_namespaces": ["ingress-nginx"],
    "Network.to_namespaces": ["databases"],
    "NotificationSettings.events": _NOTIFICATION["events"],
    "NotificationSettings.notifier": _NOTIFICATION["notifier"],
    "NotificationSettings.kwargs": _NOTIFICATION["kwargs"],
    "NotificationSettings.environments": ["production"],
    "Order.after": ["hello"],
    "Order.service": "shop",
    "PackageSettings.archive": {"include": ["src/**"]},
    "PackageSettings.image": {"repository": "registry.example/shop/greet", "conn_id": "registry"},
    "PrometheusQuery.query": _PROMETHEUS_QUERY["query"],
    "PrometheusQuery.url": _PROMETHEUS_QUERY["url"],
    "PrometheusQuery.conn_id": "prometheus",
    "PrometheusQuery.timeout": "5s",
    "PullSecret.name": "regcred",
    "Resources.cpu": "100m",
    "Resources.memory": "128Mi",
    "Resources.cpu_limit": "1",
    "Resources.memory_limit": "256Mi",
    "Retention.keep": 50,
    "Retention.younger_than": "90d",
    "Rule.api_groups": _RULE["api_groups"],
    "Rule.resources": _RULE["resources"],
    "Rule.verbs": _RULE["verbs"],
    "Rule.resource_names": ["allow-web"],
    "RunnerChoice.docker": {"image": "python:3.12-slim"},
    "RunnerChoice.kubernetes": {"image": "python:3.12-slim", "namespace": "builds"},
    "Service.name": "hello",
    "Service.source": _SOURCE,
    "Service.runner": {"docker": {"image": "python:3.12-slim", "memory": "1g"}},
    "Service.build": _BUILD,
    "Service.test": {"unit": _SUITE},
    "Service.package": {"archive": {"include": ["src/**"]}},
    "Service.signing": {"conn_id": "release_signing"},
    "Service.environments": [_ENVIRONMENT],
    "Service.analyses": {"error-rate": _ANALYSIS},
    "Service.artifacts": "file:///var/lib/airflow-cd/artifacts",
    "Service.retention": {"keep": 50, "younger_than": "90d"},
    "Service.train": "nightly",
    "Service.freezes": [_FREEZE],
    "Service.tags": ["shop"],
    "SigningSettings.conn_id": "release_signing",
    "SourceSettings.repository": _SOURCE["repository"],
    "SourceSettings.branch": "release",
    "SourceSettings.path": "services/hello",
    "SourceSettings.poll_interval": "1m",
    "SourceSettings.conn_id": "git",
    "CanaryStep.weight": 10,
    "CanaryStep.pause": "5m",
    "CanaryStep.analysis": ["error-rate"],
    "StrategyChoice.canary": _CANARY,
    "StrategyChoice.blue_green": {"promotion": "approval"},
    "TargetChoice.local": _LOCAL_TARGET["local"],
    "TargetChoice.docker": {"port": 8112, "ready": "/healthz"},
    "TargetChoice.kubernetes": {"namespace": "shop", "app": {"replicas": 3}},
    "TestSuite.commands": _SUITE["commands"],
    "TestSuite.junit": "report.xml",
    "Train.name": "nightly",
    "Train.schedule": "0 2 * * *",
    "Train.order": [{"after": ["hello"], "service": "shop"}],
    "Train.max_parallel": 2,
    "VerificationSettings.conn_ids": ["release_signing"],
    "VolumeSettings.source": "hello-data",
    "VolumeSettings.target": "/var/lib/hello",
    "Window.allow": "0 9 * * MON-THU",
    "Window.deny": _WINDOW["deny"],
    "Window.duration": "8h",
}


def services_schema() -> dict[str, Any]:
    """Return the schema of a whole services file (JSON Schema 2020-12)."""
    _, generated = models_json_schema([(model, "validation") for model in _ROOTS], ref_template=_REFERENCE)
    definitions: dict[str, Any] = generated["$defs"]
    for model in _models():
        if model.__name__ in definitions:
            _explain(definitions[model.__name__], model)
    for name in _FROM_DEFAULTS:
        required = definitions[name].pop("required", None) or ()
        for key in required:
            if (name, key) != ("Service", "name"):
                definitions[name]["properties"][key]["description"] += "; required, here or in `defaults`"
    definitions["BuildSettings"] = _with_short_form(definitions["BuildSettings"])
    for (name, key), words in _WORDS.items():
        _allow_words(definitions[name]["properties"][key], words)
    _allow_one_name(definitions["CanaryStep"]["properties"]["analysis"])
    _allow_one_name(definitions["BlueGreenSettings"]["properties"]["analysis"])
    definitions["HealthCheck"]["oneOf"] = [{"required": [kind]} for kind in ("http", "tcp", "command")]
    definitions["Window"]["oneOf"] = [{"required": [kind]} for kind in ("allow", "deny")]
    defaults = {**definitions["Service"], "title": "Defaults", **_defaults_key()}
    definitions["Service"]["required"] = ["name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Services of airflow-provider-cd",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "defaults": defaults,
            "services": _list_of(
                "Service", "the services; each gets a pipeline and a rollback DAG", _SERVICE
            ),
            "trains": _list_of("Train", "release trains; each is a DAG", _TRAIN),
            "freezes": _list_of("Freeze", "dates on which no service is deployed", _FREEZE),
            "clusters": _list_of("Cluster", "Kubernetes clusters; each is a DAG", {"name": "shop-eu"}),
            "maintenance": {
                "anyOf": [{"$ref": _REFERENCE.format(model="Maintenance")}, {"type": "null"}],
                "description": "the DAG that removes what no service keeps; without this key there is none",
                "default": None,
                "examples": [{"schedule": "30 4 * * *", "timezone": "Europe/Berlin"}],
            },
        },
        "$defs": definitions,
    }


def _defaults_key() -> dict[str, Any]:
    return {
        "description": "Merged under every service: mappings are merged, everything else is replaced.",
        "default": {},
        "examples": [{"pipeline": "delivery", "source": {"branch": "main"}}],
    }


def _list_of(model: str, description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"$ref": _REFERENCE.format(model=model)},
        "description": description,
        "default": [],
        "examples": [[example]],
    }


def _models() -> list[type[BaseModel]]:
    """Return the models of a services file: the roots, and what their fields are made of."""
    found: dict[type[BaseModel], None] = {}
    waiting = list(_ROOTS)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            for field in model.model_fields.values():
                waiting += _models_in(field.annotation)
    return list(found)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _explain(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """Give every key its description, its default as people write it, and an example."""
    documentation = inspect.cleandoc(model.__doc__ or "").replace("``None``", "``null``")
    described = {name: " ".join(text.split()) for name, text in _PARAM.findall(documentation)}
    summary = documentation.partition(":param ")[0].strip()
    definition.pop("description", None)
    if summary:
        definition["description"] = summary
    for name, field in model.model_fields.items():
        key = field.alias or name
        written = definition["properties"][key]
        if name in described:
            written["description"] = described[name]
        if not field.is_required():
            written["default"] = _default(field, written)
        examples = _examples(f"{model.__name__}.{key}", key, written)
        if examples:
            written["examples"] = examples


def _default(field: FieldInfo, written: dict[str, Any]) -> Any:
    if isinstance(field.default, timedelta):
        return format_duration(field.default)
    return written.get("default", {} if field.default_factory else None)


def _examples(place: str, key: str, written: dict[str, Any]) -> list[Any]:
    for name in (place, key):
        if name in _EXAMPLES:
            return [_EXAMPLES[name]]
    if written.get("type") == "boolean":
        return [not written.get("default", False)]
    return list(written.get("enum", ()))


def _with_short_form(build: dict[str, Any]) -> dict[str, Any]:
    """A list of commands alone stands for ``{commands: ...}``."""
    return {"anyOf": [build, build["properties"]["commands"]]}


def _allow_words(written: dict[str, Any], words: list[str]) -> None:
    """Let a word stand for a mapping; a default of ``None`` is the first word where it means the same."""
    kinds = [kind for kind in written.pop("anyOf", []) if "$ref" in kind or kind.get("type") == "null"]
    written["anyOf"] = [{"enum": words}, *kinds]
    if words[0] in ("subprocess", "rolling"):
        written["default"] = words[0]


def _allow_one_name(written: dict[str, Any]) -> None:
    """A name alone stands for a list with this name."""
    kinds = written.pop("anyOf", None) or [{key: written.pop(key) for key in ("type", "items")}]
    written["anyOf"] = [kinds[0]["items"], *kinds]


def written() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(services_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
