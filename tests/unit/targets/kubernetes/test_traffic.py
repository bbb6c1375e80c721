from __future__ import annotations

from copy import deepcopy
from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.kubernetes_objects import http_route, objects, side

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.desired_state import check_route
from airflow_cd.targets.kubernetes.traffic import find_route, weighted, without

# What the Gateway API (v1.6, both versions) asks of what is changed of a route here.
_REF = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 253},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "weight": {"type": "integer", "minimum": 0, "maximum": 1000000},
    },
}
_RULE = {
    "type": "object",
    "properties": {"backendRefs": {"type": "array", "maxItems": 16, "items": _REF}},
}
_RULES = {"type": "array", "minItems": 1, "maxItems": 16, "items": _RULE}
_SPEC = {"type": "object", "properties": {"rules": _RULES}}
SCHEMA = {"type": "object", "required": ["spec"], "properties": {"spec": _SPEC}}


def refs_of(route: dict[str, Any], rule: int = 0) -> list[dict[str, Any]]:
    refs: list[dict[str, Any]] = route["spec"]["rules"][rule]["backendRefs"]
    return refs


def parts_of(route: dict[str, Any]) -> dict[str, Fraction]:
    refs = refs_of(route)
    total = sum(ref.get("weight", 1) for ref in refs)
    return {ref["name"]: Fraction(ref.get("weight", 1), total) for ref in refs if total}


def test_weights_are_percentages_and_all_else_stays() -> None:
    route = http_route(refs=[{"name": "web", "port": 80, "filters": [{"type": "X"}]}])
    before = deepcopy(route)
    shared = weighted(route, "web", "web-canary", 15)
    assert refs_of(shared) == [
        {"name": "web", "port": 80, "filters": [{"type": "X"}], "weight": 85},
        {"name": "web-canary", "port": 80, "filters": [{"type": "X"}], "weight": 15},
    ]
    assert shared["spec"]["parentRefs"] == route["spec"]["parentRefs"]
    assert route == before


def test_every_rule_that_refers_to_the_service_is_changed_and_no_other() -> None:
    route = http_route()
    route["spec"]["rules"] += [
        {"backendRefs": [{"name": "other", "port": 80}]},
        {"filters": [{"type": "RequestRedirect"}]},
        {"matches": [{"path": {"value": "/api"}}], "backendRefs": [{"name": "web", "port": 8080}]},
        {"backendRefs": [{"name": "web", "namespace": "elsewhere", "port": 80}]},
        {"backendRefs": [{"name": "web", "group": "x.example", "kind": "Bucket"}]},
    ]
    shared = weighted(route, "web", "web-canary", 50)
    changed = [
        one != other for one, other in zip(shared["spec"]["rules"], route["spec"]["rules"], strict=True)
    ]
    assert changed == [True, False, False, True, False, False]
    assert [ref["port"] for ref in refs_of(shared, 3)] == [8080, 8080]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5), st.integers(0, 300), st.integers(1, 300))
def test_others_in_a_rule_keep_their_part_however_often_it_is_shared(
    weights: list[int], other: int, ours: int
) -> None:
    route = http_route(refs=[{"name": "web", "weight": ours}, {"name": "old", "weight": other}])
    before = parts_of(route)
    for weight in weights:
        route = weighted(route, "web", "web-canary", weight)
        assert weighted(route, "web", "web-canary", weight) == route
        assert len(refs_of(route)) == 3
        after = parts_of(route)
        assert after["old"] == before["old"]
        assert after["web-canary"] == before["web"] * weight / 100
        assert all(0 <= ref["weight"] <= 1_000_000 for ref in refs_of(route))
    assert parts_of(without(route, "web", "web-canary")) == before


def test_a_route_without_canary_is_left_alone() -> None:
    route = http_route(refs=[{"name": "web", "port": 80}])
    assert without(route, "web", "web-canary") == route
    shared = weighted(route, "web", "web-canary", 30)
    assert refs_of(without(shared, "web", "web-canary")) == [{"name": "web", "port": 80, "weight": 100}]


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_the_route_is_that_of_the_manifests_in_either_version(version: str) -> None:
    route = http_route(version=version)
    assert find_route([http_route("other"), route], "web", live=http_route()) is route


def test_of_a_live_route_nothing_but_the_rules_is_ours() -> None:
    live = http_route()
    which = {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 2}
    live["metadata"] |= {**which, "managedFields": []}
    assert find_route([], "web", live) == {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": which,
        "spec": {"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
    }


def test_a_route_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ManifestError, match="no HTTPRoute 'web'"):
        find_route([http_route("other")], "web")
    with pytest.raises(ManifestError, match="version 'v1alpha2'"):
        find_route([http_route(version="v1alpha2")], "web")
    with pytest.raises(ManifestError, match="refers to Service 'shop'"):
        weighted(http_route(), "shop", "shop-canary", 5)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@given(st.integers(0, 100), st.none() | st.integers(0, 5))
def test_what_becomes_of_a_route_fits_its_schema(version: str, weight: int, other: int | None) -> None:
    rest = [] if other is None else [{"name": "old", "port": 80, "weight": other}]
    route = http_route(version=version, refs=[{"name": "web", "port": 80}, *rest])
    shared = weighted(route, "web", "web-canary", weight)
    jsonschema.validate(shared, SCHEMA)
    jsonschema.validate(without(shared, "web", "web-canary"), SCHEMA)


LABELS = {"airflow-cd/service": "shop", "airflow-cd/environment": "production"}


@pytest.mark.parametrize(
    ("metadata", "is_refused"),
    [
        ({"labels": LABELS}, True),
        ({"labels": LABELS, "annotations": {"airflow-cd/adopted": "true"}}, False),
        ({"labels": {**LABELS, "airflow-cd/service": "gateway"}}, False),
        ({}, False),
    ],
    ids=["a-release's", "there-before", "another-service's", "another-owner's"],
)
def test_a_route_that_is_about_to_be_deleted_is_not_used(metadata: dict[str, Any], is_refused: bool) -> None:
    live = http_route()
    live["metadata"].update(metadata, resourceVersion="1")
    settings = KubernetesTargetSettings(namespace="shop", manifests="k8s")
    strategy = StrategyChoice.model_validate({"canary": {"route": "web", "steps": [{"weight": 5}]}})
    check_route(settings, strategy, side(1, content=objects(1, 1, live)), None, LABELS)
    try:
        check_route(settings, strategy, side(1), live, LABELS)
    except ManifestError as error:
        assert is_refused and "it would be deleted" in str(error)
    else:
        assert not is_refused
