"""Requests shared out by an HTTPRoute of the Gateway API, by a real gateway."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.httproutes import GROUP, VERSION, Gateway
from tests.support.places import KubernetesPlace
from tests.support.rollouts_on_cluster import as_deployer, begun, live, packaged, target_of, until

from airflow_cd.exceptions import DeployConflictError, ManifestError
from airflow_cd.kubernetes.permissions import DEPLOYER_RULES
from airflow_cd.model.rollout import Phase, RolloutAnswer
from airflow_cd.targets.kubernetes.rollout_context import RolloutContext

# What the API server writes for a weight that is left out; alone, it is everything.
ALL = 1


def test_a_route_shares_out_exactly(place: KubernetesPlace, cluster_client: Any, gateway: Gateway) -> None:
    place.strategy = {"canary": {"route": "web", "steps": [{"weight": 7}, {"pause": "approval"}]}}
    place.reopen(manifests="k8s", app=None)
    place.deploy(packaged(place, "one", gateway.route(place.service)))
    assert _weights(cluster_client, place) == {place.service: ALL}
    begun(place, packaged(place, "two", gateway.route(place.service)))
    until(place, Phase.AWAITING_DECISION)
    canary = f"{place.service}-canary"
    assert _weights(cluster_client, place) == {place.service: 93, canary: 7}
    gateway.until_shared(one=93, two=7)
    tracks = [live(cluster_client, place, "service", name).spec.selector for name in (place.service, canary)]
    assert [one["airflow-cd/track"] for one in tracks] == ["stable", "canary"]
    until(place, Phase.PROMOTED, RolloutAnswer(promote=True, by="ada"))
    assert _weights(cluster_client, place) == {place.service: ALL}
    gateway.until_shared(two=100)
    assert place.served() == "two"


def test_an_abort_gives_the_route_back_at_once_and_drift_sees_other_weights(
    place: KubernetesPlace, cluster_client: Any, gateway: Gateway
) -> None:
    place.strategy = {"canary": {"route": "web", "steps": [{"weight": 40}, {"pause": "approval"}]}}
    place.reopen(manifests="k8s", app=None)
    place.deploy(packaged(place, "one", gateway.route(place.service)))
    begun(place, packaged(place, "two", gateway.route(place.service)))
    until(place, Phase.AWAITING_DECISION)
    gateway.until_shared(one=60, two=40)
    target_of(place).abort(actor="ada", reason="prices")
    canary = f"{place.service}-canary"
    assert _weights(cluster_client, place).get(canary, 0) == 0, "whatever else takes its time"
    until(place, Phase.ABORTED)
    assert _weights(cluster_client, place) == {place.service: ALL}
    gateway.until_shared(one=100)
    assert target_of(place).drift() == []
    _set_weights(cluster_client, place, {place.service: 1, "others": 99})
    (difference,) = target_of(place).drift()
    assert "HTTPRoute/web" in difference.name and "others" in difference.text
    target_of(place).heal()
    assert _weights(cluster_client, place) == {place.service: ALL}


def test_a_route_that_is_somebody_elses_is_used_and_given_back(
    place: KubernetesPlace, cluster_client: Any, gateway: Gateway, tmp_path: Path
) -> None:
    _create(cluster_client, place, gateway.route(place.service))
    place.strategy = {"canary": {"route": "web", "steps": [{"weight": 10}, {"pause": "approval"}]}}
    place.reopen()
    as_deployer(place, cluster_client, list(DEPLOYER_RULES), tmp_path)
    place.deploy(place.release("one"))
    before = _read(cluster_client, place)
    begun(place, place.release("two"))
    until(place, Phase.AWAITING_DECISION)
    assert _weights(cluster_client, place) == {place.service: 90, f"{place.service}-canary": 10}
    gateway.until_shared(one=90, two=10)
    until(place, Phase.PROMOTED, RolloutAnswer(promote=True, by="ada"))
    assert _weights(cluster_client, place).keys() == {place.service}
    gateway.until_shared(two=100)
    assert (place.served(), target_of(place).drift()) == ("two", [])
    place.target.remove()  # type: ignore[attr-defined]
    after = _read(cluster_client, place)
    for one in (before, after):
        # Its controller says in the status how it is used.
        one.pop("status", None)
        del one["spec"]["rules"], one["metadata"]["managedFields"]
        del one["metadata"]["resourceVersion"], one["metadata"]["generation"]
    assert after == before, "neither labels of ours, nor gone with what is ours"


def test_a_route_that_does_not_lead_here_is_refused_before_anything_changes(
    place: KubernetesPlace, cluster_client: Any, gateway: Gateway
) -> None:
    place.strategy = {"canary": {"route": "web", "steps": [{"weight": 10}, {"pause": "approval"}]}}
    place.reopen()
    one = place.release("one")
    with pytest.raises(ManifestError, match="no HTTPRoute 'web'"):
        place.deploy(one)
    _create(cluster_client, place, gateway.route("another"))
    with pytest.raises(ManifestError, match=f"refers to Service '{place.service}'"):
        place.deploy(one)
    assert place.target.record().generation == 0
    assert live(cluster_client, place, "deployment", place.service) is None


def test_a_route_that_leaves_the_manifests_is_refused_while_it_is_used(
    place: KubernetesPlace, cluster_client: Any, gateway: Gateway
) -> None:
    """It would be deleted when the rollout is over, and the Service be without one."""
    place.strategy = {"canary": {"route": "web", "steps": [{"weight": 10}]}}
    place.reopen(manifests="k8s", app=None)
    place.deploy(packaged(place, "one", gateway.route(place.service)))
    two = packaged(place, "two")
    with pytest.raises(ManifestError, match="the manifests of this release do not have it"):
        place.deploy(two)
    assert place.target.record().generation == 1
    place.strategy = None
    place.reopen(manifests="k8s", app=None)
    place.deploy(two)
    assert place.served() == "two"


def test_what_somebody_changes_of_their_route_meanwhile_is_kept(
    place: KubernetesPlace, cluster_client: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    _create(cluster_client, place, gateway.route(place.service))
    place.strategy = {"canary": {"route": "web", "steps": [{"weight": 10}, {"pause": "approval"}]}}
    place.reopen()
    place.deploy(place.release("one"))
    begun(place, place.release("two"))
    until(place, Phase.AWAITING_DECISION)
    look, changed = RolloutContext.route_of, []  # type: ignore[var-annotated]

    def late(*args: Any) -> Any:
        """A person adds a rule of theirs right after the first look."""
        found = look(*args)
        if not changed:
            changed.append(True)
            _add_rule(cluster_client, place)
        return found

    monkeypatch.setattr(RolloutContext, "route_of", staticmethod(late))
    with suppress(DeployConflictError):
        target_of(place).abort(actor="ada", reason="prices")
    until(place, Phase.ABORTED)
    rules = _read(cluster_client, place)["spec"]["rules"]
    assert changed and [[ref["name"] for ref in rule["backendRefs"]] for rule in rules] == [
        [place.service],
        ["another"],
    ]


def test_what_a_controller_says_of_their_route_meanwhile_is_no_change_of_it(
    place: KubernetesPlace, cluster_client: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Controllers write to the status of a route after each change of it, and then it is changed again."""
    _create(cluster_client, place, gateway.route(place.service))
    place.strategy = {"canary": {"route": "web", "steps": [{"weight": 10}, {"pause": "approval"}]}}
    place.reopen()
    place.deploy(place.release("one"))
    begun(place, place.release("two"))
    until(place, Phase.AWAITING_DECISION)
    look, said = RolloutContext.route_of, []  # type: ignore[var-annotated]

    def late(*args: Any) -> Any:
        """A controller says something right after each look."""
        found = look(*args)
        said.append(f"look {len(said)}")
        _say(cluster_client, place, said[-1])
        return found

    monkeypatch.setattr(RolloutContext, "route_of", staticmethod(late))
    target_of(place).abort(actor="ada", reason="prices")
    assert said and _weights(cluster_client, place).get(f"{place.service}-canary", 0) == 0
    monkeypatch.undo()
    until(place, Phase.ABORTED)
    assert _weights(cluster_client, place).keys() == {place.service}


def _say(client: Any, place: KubernetesPlace, what: str) -> None:
    condition = {
        "type": "Looked",
        "status": "True",
        "reason": "Looked",
        "message": what,
        "lastTransitionTime": "2026-11-27T03:00:00Z",
    }
    parent = {"parentRef": {"name": "g"}, "controllerName": "example.com/test", "conditions": [condition]}
    patch = {"status": {"parents": [parent]}}
    _routes(client).patch_namespaced_custom_object_status(*_which(place), "web", patch)


def _set_weights(client: Any, place: KubernetesPlace, weights: dict[str, int]) -> None:
    refs = [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]
    _patch(client, place, {"spec": {"rules": [{"backendRefs": refs}]}})


def _patch(client: Any, place: KubernetesPlace, patch: dict[str, Any]) -> None:
    _routes(client).patch_namespaced_custom_object(*_which(place), "web", patch)


def _read(client: Any, place: KubernetesPlace) -> dict[str, Any]:
    return dict(_routes(client).get_namespaced_custom_object(*_which(place), "web"))


def _create(client: Any, place: KubernetesPlace, route: dict[str, Any]) -> None:
    _routes(client).create_namespaced_custom_object(*_which(place), route)


def _add_rule(client: Any, place: KubernetesPlace) -> None:
    rules = [*_read(client, place)["spec"]["rules"], {"backendRefs": [{"name": "another", "port": 80}]}]
    _patch(client, place, {"spec": {"rules": rules}})


def _routes(client: Any) -> Any:
    from kubernetes.client import CustomObjectsApi

    return CustomObjectsApi(client)


def _which(place: KubernetesPlace) -> tuple[str, str, str, str]:
    return GROUP, VERSION, place.namespace, "httproutes"


def _weights(client: Any, place: KubernetesPlace) -> dict[str, int | None]:
    refs = _read(client, place)["spec"]["rules"][0]["backendRefs"]
    return {ref["name"]: ref.get("weight") for ref in refs}
