from __future__ import annotations

import pytest
from tests.support.kubernetes_objects import deployment, service, side

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.variants import TRACK, deployment_in, place_of, service_beside, slot_name

BLUE_GREEN = StrategyChoice.model_validate({"blue_green": {}})
CANARY = StrategyChoice.model_validate({"canary": {"steps": [{"weight": 5}]}})


@pytest.mark.parametrize(
    ("strategy", "now", "place"),
    [
        (None, None, "stable"),
        (None, "blue", "stable"),
        (CANARY, "green", "stable"),
        (BLUE_GREEN, None, "blue"),
        (BLUE_GREEN, "stable", "blue"),
        (BLUE_GREEN, "blue", "green"),
        (BLUE_GREEN, "green", "blue"),
    ],
)
def test_blue_and_green_take_turns(strategy: StrategyChoice | None, now: str | None, place: str) -> None:
    assert place_of(strategy, now) == place


@pytest.mark.parametrize(("length", "fits"), [(56, True), (57, False)])
def test_a_service_for_a_slot_has_a_name_that_kubernetes_takes(length: int, fits: bool) -> None:
    if fits:
        assert len(slot_name(service("w" * length), "canary")) == 63
        return
    with pytest.raises(ManifestError, match="63 characters; give it a name of at most 56"):
        slot_name(service("w" * length), "canary")


def test_a_deployment_in_a_slot_has_pods_that_no_other_slot_selects() -> None:
    (copied,) = deployment_in(deployment(1), side(1), "canary", 2, own=set())
    labels = {"app": "web", TRACK: "canary"}
    assert copied["metadata"]["name"] == "web-canary"
    assert copied["spec"]["selector"]["matchLabels"] == labels
    assert copied["spec"]["template"]["metadata"]["labels"] == labels
    assert copied["spec"]["replicas"] == 2


def test_a_service_for_a_slot_is_reachable_inside_the_cluster_only() -> None:
    outside = service(
        type="LoadBalancer",
        clusterIP="10.0.0.7",
        clusterIPs=["10.0.0.7"],
        loadBalancerIP="1.2.3.4",
        externalTrafficPolicy="Local",
        sessionAffinity="ClientIP",
    )
    outside["spec"]["ports"][0]["nodePort"] = 30080
    outside["metadata"] |= {"annotations": {"dns": "shop.example"}, "labels": {"app": "web"}}
    beside = service_beside(outside, "preview", "blue")
    assert beside["metadata"] == {"name": "web-preview", "labels": {"app": "web", TRACK: "blue"}}
    assert beside["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "ClientIP",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        "selector": {"app": "web", TRACK: "blue"},
    }
    assert service_beside(service(clusterIP="None"), "canary", "canary")["spec"]["clusterIP"] == "None"
