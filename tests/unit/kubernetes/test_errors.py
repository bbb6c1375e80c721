"""What is made of an API server's words (those of 1.34) about objects that are not valid."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_cd.exceptions import ManifestError, TargetError
from airflow_cd.hooks.kubernetes import _Retry
from airflow_cd.kubernetes.errors import translate_api_error

if TYPE_CHECKING:
    from kubernetes.client import ApiException

TYPED = "failed to create typed patch object (shop/web; apps/v1, Kind=Deployment): "
CONVERTED = (
    "failed to convert new object (shop/web; apps/v1, Kind=Deployment) to proper version: unable to convert "
    "unstructured object to apps/v1, Kind=Deployment: "
)


def failure(message: str, code: int = 500) -> ApiException:
    """Return the error of a request that the server answers with a failure of its own."""
    from kubernetes.client import ApiException

    error = ApiException(status=code, reason="Internal Server Error")
    error.body = json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": code})
    return error


def said(message: str, what: str = "Deployment/web") -> TargetError:
    return translate_api_error(failure(message), "web in production", "shop", what)


SCHEMA = [
    (".spec.replica: field not declared in schema", "spec.replica: field not declared in schema"),
    (
        '.spec.template.spec.containers[name="web"].imag: field not declared in schema',
        'spec.template.spec.containers[name="web"].imag: field not declared in schema',
    ),
    (
        '.spec.ports: duplicate entries for key [port=80,protocol="TCP"]',
        'spec.ports: duplicate entries for key [port=80,protocol="TCP"]',
    ),
    (
        ".spec.replicas: expected numeric (int or float), got string",
        "spec.replicas: expected numeric (int or float), got string",
    ),
    (
        ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        "metadata.labels.a: expected string, got 1",
    ),
    (".spec.template.spec: expected map, got &{x}", "spec.template.spec: expected map, got x"),
    (
        ".spec.replicas: expected numeric (int or float), got map[string]interface {}",
        "spec.replicas: expected numeric (int or float), got a map",
    ),
    (
        "errors:\n  .spec.replica: field not declared in schema\n  .spec.foo: field not declared in schema",
        "spec.replica: field not declared in schema\n  spec.foo: field not declared in schema",
    ),
]


@pytest.mark.parametrize(("message", "shown"), SCHEMA)
def test_a_field_that_the_schema_does_not_have_is_the_manifests_mistake(message: str, shown: str) -> None:
    problem = said(f"{TYPED}{message}")
    assert type(problem) is ManifestError
    assert str(problem) == (
        f"web in production: Deployment/web is refused:\n  {shown}\n"
        "Correct the manifest. `kubectl explain deployment --api-version=apps/v1` lists the fields that the "
        "cluster knows."
    )


def test_the_core_group_has_no_name() -> None:
    typed = TYPED.replace("apps/v1, Kind=Deployment", "/v1, Kind=Service")
    problem = said(f"{typed}.spec.a: field not declared in schema", "Service/web")
    assert "`kubectl explain service --api-version=v1`" in str(problem)


@pytest.mark.parametrize(
    "why",
    [
        "json: cannot unmarshal bool into Go value of type int32",
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    ],
)
def test_a_value_that_cannot_be_read_is_the_manifests_mistake(why: str) -> None:
    problem = said(f"{CONVERTED}{why}")
    assert type(problem) is ManifestError
    assert str(problem) == f"web in production: Deployment/web is refused:\n  a value cannot be read: {why}"


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (".stringdata: field not declared in schema", "stringdata"),
        (".data.password: expected string, got &value.valueUnstructured{Value:5678}", "data.password"),
        (".stringData: expected map, got &{5678\n  .x5678: y}", "stringData"),
    ],
)
def test_of_a_secret_only_the_field_is_shown(message: str, fields: str) -> None:
    problem = said(
        f"failed to create typed patch object (shop/login; /v1, Kind=Secret): {message}", "Secret/login"
    )
    assert str(problem) == (
        f"web in production: Secret/login is refused: {fields} is not valid. Why is not shown: it may be "
        "secret."
    )


@pytest.mark.parametrize("message", [f"{TYPED}{SCHEMA[0][0]}", f"{CONVERTED}cannot convert float64 to int32"])
def test_it_is_not_asked_again(message: str) -> None:
    """The same code as for a server that fails, which is asked again."""
    again = _Retry("PATCH")
    outcome = lambda text: SimpleNamespace(outcome=SimpleNamespace(exception=lambda: failure(text)))  # noqa: E731
    assert not again(outcome(message))  # type: ignore[no-untyped-call]
    assert again(outcome("etcdserver: leader changed"))  # type: ignore[no-untyped-call]


def test_a_server_that_fails_is_named_as_such() -> None:
    problem = said("etcdserver: leader changed")
    assert type(problem) is TargetError and "the cluster failed (500): etcdserver" in str(problem)
