"""What the cluster itself says to the objects of all phases."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from tests.support.kubernetes_objects import http_route, objects, side

from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.rollout import Observation, Plan
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.apply import SCALE_MANAGER, left_as_it_is
from airflow_cd.targets.kubernetes.desired_state import desired_state, steady_state
from airflow_cd.targets.kubernetes.variants import place_of

SETTINGS = KubernetesTargetSettings(namespace="shop", manifests="k8s")
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
STEPS = [{"weight": 30}, {"weight": 100}]


@pytest.mark.parametrize("before", ["stable", "blue"])
@pytest.mark.parametrize(
    "written",
    [None, {"canary": {"steps": STEPS}}, {"canary": {"steps": STEPS, "route": "web"}}, {"blue_green": {}}],
    ids=["rolling", "by_number", "by_route", "blue_green"],
)
def test_every_phase_of_every_strategy_is_taken_by_a_cluster_that_has_what_ran_before(
    cluster: NamespaceClient, written: dict[str, Any] | None, before: str, request: pytest.FixtureRequest
) -> None:
    strategy = None if written is None else StrategyChoice.model_validate(written)
    routes = []
    if strategy is not None and strategy.canary is not None and strategy.canary.route is not None:
        request.getfixturevalue("http_routes")
        routes = [http_route()]
    # Nothing is to be started: what is checked is what the API server says.
    old = side(1, before, objects(1, 0, *routes))
    new = side(2, place_of(strategy, before), objects(2, 0, *routes))
    cluster.apply(steady_state(SETTINGS, None, old, None, scaled_down=False).objects)
    plan = Plan(strategy.steps if strategy else ())
    progress = plan.begin(NOW)
    while not progress.over:
        for one in (progress, progress.aborting("bad", NOW)):
            for stage in desired_state(SETTINGS, strategy, one, new, old, fast=False).stages:
                cluster.validate(stage.objects)
        what = desired_state(SETTINGS, strategy, progress, new, old, fast=False).last
        cluster.apply(what.objects)
        progress = plan.advance(progress, Observation(ready=True), progress.since + timedelta(days=1))
    cluster.apply(steady_state(SETTINGS, strategy, new, old, scaled_down=True).objects)


def test_a_number_of_instances_that_is_left_to_others_stays_what_it_is(cluster: NamespaceClient) -> None:
    (deployment,) = [one for one in objects(1, 0) if one["kind"] == "Deployment"]
    (live,) = cluster.apply([deployment])
    del deployment["spec"]["replicas"]
    kept = left_as_it_is(live, deployment, "airflow-cd")
    assert kept is not None
    NamespaceClient(lambda: cluster.client, cluster.namespace, cluster.where, SCALE_MANAGER).apply([kept])
    (live,) = cluster.apply([deployment])
    assert live["spec"]["replicas"] == 0, "without, it would be 1"
    assert left_as_it_is(live, deployment, "airflow-cd") is None
