"""What a namespace is to hold, phase by phase."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.kubernetes_objects import (
    autoscaler,
    config_map,
    deployment,
    digest_of,
    http_route,
    objects,
    service,
    side,
)

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.rollout import Observation, Phase, Plan, Progress
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.desired_state import DesiredState, desired_state, steady_state
from airflow_cd.targets.kubernetes.variants import TRACK, ReleaseVariant, key_of, place_of

SETTINGS = KubernetesTargetSettings(namespace="shop", manifests="k8s")
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
READY = Observation(ready=True)
BLUE_GREEN = StrategyChoice.model_validate({"blue_green": {}})


def canary(*weights: int, route: str | None = None) -> StrategyChoice:
    steps = [{"weight": weight} for weight in weights]
    return StrategyChoice.model_validate({"canary": {"steps": steps, "route": route}})


def course(strategy: StrategyChoice | None, *, fast: bool = False) -> list[Progress]:
    """Return every progress of a rollout in which all goes well."""
    plan = Plan(() if fast or strategy is None else strategy.steps)
    seen = [plan.begin(NOW)]
    while not seen[-1].over:
        seen.append(plan.advance(seen[-1], READY, seen[-1].since + timedelta(days=1)))
    return seen[:-1]


def scale(stage: DesiredState) -> dict[str, int | None]:
    """Return the number of instances by workload."""
    return {
        one["metadata"]["name"]: one["spec"].get("replicas")
        for one in stage.objects
        if one["kind"] == "Deployment"
    }


def of(stage: DesiredState, kind: str, name: str = "web") -> dict[str, Any]:
    return next(one for one in stage.objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


def track(stage: DesiredState, name: str = "web") -> str | None:
    return of(stage, "Service", name)["spec"]["selector"].get(TRACK)  # type: ignore[no-any-return]


def shares(stage: DesiredState) -> dict[str, int]:
    refs = of(stage, "HTTPRoute")["spec"]["rules"][0]["backendRefs"]
    return {ref["name"]: ref.get("weight", 1) for ref in refs}


def release_in(stage: DesiredState, name: str) -> str:
    return of(stage, "Deployment", name)["spec"]["template"]["metadata"]["annotations"]["airflow-cd/version"]  # type: ignore[no-any-return]


def test_a_canary_by_number_grows_before_the_stable_release_shrinks() -> None:
    first, second, promoting = course(strategy := canary(25, 100))
    stages = list(desired_state(SETTINGS, strategy, first, side(2), side(1), fast=False).stages)
    assert [scale(one) for one in stages] == [{"web": 4, "web-canary": 1}, {"web": 3, "web-canary": 1}]
    assert stages[0].gate == [("Deployment", "web-canary")]
    stages = list(desired_state(SETTINGS, strategy, second, side(2), side(1), fast=False).stages)
    assert [scale(one) for one in stages] == [{"web": 3, "web-canary": 4}, {"web": 0, "web-canary": 4}]
    (last,) = desired_state(SETTINGS, strategy, promoting, side(2), side(1), fast=False).stages
    assert scale(last) == {"web": 4, "web-canary": 4} and release_in(last, "web") == "v2"
    assert track(last) is None


def test_a_canary_by_route_gets_requests_when_it_is_ready_for_them() -> None:
    strategy = canary(25, 50, 10, route="web")
    old, new = side(1, content=objects(1, 4, http_route())), side(2, content=objects(2, 4, http_route()))
    phases = [desired_state(SETTINGS, strategy, one, new, old, fast=False) for one in course(strategy)]
    told = [[(scale(stage), shares(stage)) for stage in phase.stages] for phase in phases]
    assert told == [
        [
            ({"web": 4, "web-canary": 1}, {"web": 100, "web-canary": 0}),
            ({"web": 4, "web-canary": 1}, {"web": 75, "web-canary": 25}),
        ],
        [
            ({"web": 4, "web-canary": 2}, {"web": 75, "web-canary": 25}),
            ({"web": 4, "web-canary": 2}, {"web": 50, "web-canary": 50}),
        ],
        [({"web": 4, "web-canary": 1}, {"web": 90, "web-canary": 10})],
        [
            ({"web": 4, "web-canary": 2}, {"web": 90, "web-canary": 10}),
            ({"web": 4, "web-canary": 2}, {"web": 100, "web-canary": 0}),
        ],
    ]


def test_each_release_of_a_canary_by_route_has_a_service_of_its_own() -> None:
    strategy = canary(25, route="web")
    old, new = side(1, content=objects(1, 4, http_route())), side(2, content=objects(2, 4, http_route()))
    stage = desired_state(SETTINGS, strategy, course(strategy)[0], new, old, fast=False)
    assert (track(stage), track(stage, "web-canary")) == ("stable", "canary")


def test_blue_green_switches_only_when_the_new_colour_is_ready() -> None:
    preview, promoting = course(BLUE_GREEN)
    (stage,) = desired_state(
        SETTINGS, BLUE_GREEN, preview, side(2, "green"), side(1, "blue"), fast=False
    ).stages
    assert scale(stage) == {"web-blue": 4, "web-green": 4}
    assert (track(stage), track(stage, "web-preview")) == ("blue", "green")
    first, last = desired_state(
        SETTINGS, BLUE_GREEN, promoting, side(2, "green"), side(1, "blue"), fast=False
    ).stages
    assert (track(first), first.gate, track(last)) == ("blue", [("Deployment", "web-green")], "green")
    assert scale(last) == {"web-blue": 4, "web-green": 4}


@pytest.mark.parametrize(("scaled_down", "left"), [(False, 4), (True, 0)])
def test_the_old_colour_is_kept_until_it_is_given_up(scaled_down: bool, left: int) -> None:
    stage = steady_state(SETTINGS, BLUE_GREEN, side(2, "green"), side(1, "blue"), scaled_down=scaled_down)
    assert scale(stage) == {"web-green": 4, "web-blue": left}
    assert (track(stage), release_in(stage, "web-blue")) == ("green", "v1")
    assert ("v1", "Service", "web-preview") in stage.delete
    assert not any(name.startswith("web-blue") for _, _, name in stage.delete)


def test_a_colour_that_is_scaled_down_is_ready_again_before_it_is_gone_back_to() -> None:
    (progress,) = course(BLUE_GREEN, fast=True)
    first, last = desired_state(
        SETTINGS, BLUE_GREEN, progress, side(1, "blue"), side(2, "green"), fast=True
    ).stages
    assert scale(first) == {"web-blue": 4, "web-green": 4}
    assert (track(first), first.gate, track(last)) == ("green", [("Deployment", "web-blue")], "blue")


def test_from_rolling_to_blue_green_the_old_instances_serve_until_the_new_ones_are_ready() -> None:
    new = side(2, place_of(BLUE_GREEN, "stable"))
    preview, promoting = course(BLUE_GREEN)
    stage = desired_state(SETTINGS, BLUE_GREEN, preview, new, side(1), fast=False)
    assert scale(stage) == {"web": 4, "web-blue": 4} and track(stage) == "stable"
    first, last = desired_state(SETTINGS, BLUE_GREEN, promoting, new, side(1), fast=False).stages
    assert (track(first), track(last), scale(last)) == ("stable", "blue", {"web": 4, "web-blue": 4})


@pytest.mark.parametrize("strategy", [None, canary(50)])
def test_from_blue_green_to_another_strategy_the_colour_serves_until_the_others_are_ready(
    strategy: StrategyChoice | None,
) -> None:
    what = desired_state(SETTINGS, strategy, course(strategy)[-1], side(2), side(1, "blue"), fast=False)
    assert what.gate == [("Deployment", "web")]
    assert track(what) == ("blue" if strategy is None else None)
    assert scale(what)["web-blue"] == (4 if strategy is None else 2)
    assert (track(what.last), scale(what.last)["web"]) == ("stable", 4)
    assert "web-blue" not in scale(
        steady_state(SETTINGS, strategy, side(2), side(1, "blue"), scaled_down=False)
    )


def test_nothing_is_touched_while_an_older_candidate_still_serves() -> None:
    strategy = canary(25, 100)
    first = course(strategy)[0]
    stages = list(
        desired_state(SETTINGS, strategy, first, side(3), side(1), fast=False, occupied=True).stages
    )
    assert [scale(one) for one in stages] == [
        {"web": 4},
        {"web": 4, "web-canary": 1},
        {"web": 3, "web-canary": 1},
    ]
    assert (stages[0].gate, release_in(stages[0], "web")) == ([("Deployment", "web")], "v1")
    assert release_in(stages[1], "web-canary") == "v3"


@pytest.mark.parametrize(
    ("step", "serving", "at_once"),
    [
        (0, None, True),
        (1, None, False),
        (2, None, False),
        (0, 0, False),
        (1, 1, True),
        (2, 2, False),
        (2, 3, True),
    ],
)
def test_what_is_aborted_loses_all_requests_as_soon_as_anything_else_can_take_them(
    step: int, serving: int | None, at_once: bool
) -> None:
    strategy = canary(50, 100)
    progress = course(strategy)[step].aborting("bad", NOW)
    stages = list(
        desired_state(SETTINGS, strategy, progress, side(2), side(1), fast=False, serving=serving).stages
    )
    last = stages[-1]
    assert (track(last), scale(last), release_in(last, "web")) == (
        "stable",
        {"web": 4, "web-canary": 0},
        "v1",
    )
    assert set(last.stable) == {("Deployment", "web"), ("Deployment", "web-canary")}
    assert len(stages) == (1 if at_once else 2)
    if not at_once:
        assert (track(stages[0]), stages[0].gate) == (None, [("Deployment", "web")])
        assert scale(stages[0]) == {"web": 4, "web-canary": 2 if step == 0 else 4}


def test_a_first_release_that_is_aborted_goes_but_not_what_somebody_stored() -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {}}
    progress = course(None)[0].aborting("bad", NOW)
    what = desired_state(SETTINGS, None, progress, side(1, content=objects(1, 4, claim)), None, fast=True)
    assert what.objects == []
    assert what.delete == [
        ("v1", "Service", "web"),
        ("apps/v1", "Deployment", "web"),
        ("v1", "ConfigMap", "settings"),
    ]


def test_a_release_of_which_nothing_can_be_made_can_still_be_aborted() -> None:
    strategy = canary(50)
    progress = course(strategy)[0].aborting("bad", NOW)
    what = desired_state(SETTINGS, strategy, progress, side(2, content=[config_map(2)]), side(1), fast=False)
    assert scale(what.last) == {"web": 4} and release_in(what.last, "web") == "v1"


def test_the_first_release_of_a_colour_gets_requests_when_it_is_ready() -> None:
    (progress,) = course(BLUE_GREEN, fast=True)
    first, last = desired_state(SETTINGS, BLUE_GREEN, progress, side(1, "blue"), None, fast=True).stages
    assert (track(first), first.gate, track(last)) == (None, [("Deployment", "web-blue")], "blue")


def test_what_runs_side_by_side_reads_its_own_configuration() -> None:
    strategy = canary(50)
    stage = desired_state(SETTINGS, strategy, course(strategy)[0], side(2), side(1), fast=False)
    assert of(stage, "ConfigMap", "settings")["data"] == {"RELEASE": "1"}
    assert of(stage, "ConfigMap", "settings-canary")["data"] == {"RELEASE": "2"}
    pods = of(stage, "Deployment", "web-canary")["spec"]["template"]["spec"]
    assert pods["containers"][0]["envFrom"] == [{"configMapRef": {"name": "settings-canary"}}]


def test_configuration_that_did_not_change_is_shared() -> None:
    strategy = canary(50)
    same = [config_map(1), deployment(2), service()]
    stage = desired_state(SETTINGS, strategy, course(strategy)[0], side(2, content=same), side(1), fast=False)
    assert [one["metadata"]["name"] for one in stage.objects if one["kind"] == "ConfigMap"] == ["settings"]


def test_what_only_the_candidate_has_is_there_for_it_and_its_own_workers_wait() -> None:
    worker, queue = deployment(2, 2, "worker"), deployment(2, 1, "queue")
    queue["spec"]["template"]["spec"]["containers"][0]["image"] = "queue:1"
    settings = KubernetesTargetSettings(namespace="shop", manifests="k8s", workload="web")
    strategy = canary(50)
    new = side(2, content=objects(2, 4, worker, queue))
    stage = desired_state(settings, strategy, course(strategy)[0], new, side(1), fast=False)
    assert "queue" in scale(stage) and "worker" not in scale(stage)
    promoted = desired_state(settings, strategy, course(strategy)[-1], new, side(1), fast=False)
    assert ("Deployment", "worker") in promoted.candidate and scale(promoted)["worker"] == 2


def test_pods_say_what_they_are_and_nothing_that_changes_by_itself() -> None:
    stage = steady_state(SETTINGS, None, side(1), None, scaled_down=False)
    metadata = of(stage, "Deployment")["spec"]["template"]["metadata"]
    assert metadata["labels"] == {"app": "web", TRACK: "stable"}
    assert metadata["annotations"] == {"airflow-cd/digest": digest_of(1), "airflow-cd/version": "v1"}
    assert of(stage, "Deployment")["metadata"]["annotations"]["airflow-cd/generation"] == "1"
    assert of(stage, "Deployment")["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    assert of(stage, "Service") == service()


def test_a_service_that_selects_others_selects_both_while_one_replaces_the_other() -> None:
    old = [deployment(1, labels={"app": "web", "tier": "a"}), service(selector={"app": "web", "tier": "a"})]
    new = [deployment(2, labels={"app": "web", "tier": "b"}), service(selector={"app": "web", "tier": "b"})]
    (progress,) = course(None)
    what = desired_state(SETTINGS, None, progress, side(2, content=new), side(1, content=old), fast=False)
    assert of(what, "Service")["spec"]["selector"] == {"app": "web"}
    assert of(what.last, "Service")["spec"]["selector"] == {"app": "web", "tier": "b"}
    back = desired_state(
        SETTINGS, None, progress.aborting("bad", NOW), side(2, content=new), side(1, content=old), fast=False
    )
    assert of(back, "Service")["spec"]["selector"] == {"app": "web"}
    assert of(back.last, "Service") == old[1]


def test_a_workload_that_is_renamed_serves_until_its_successor_is_ready() -> None:
    new = [deployment(2, name="shop"), service(selector={"app": "shop"})]
    what = desired_state(SETTINGS, None, course(None)[0], side(2, content=new), side(1), fast=False)
    assert of(what, "Service")["spec"]["selector"] == {"app": "web"}
    assert scale(what) == {"shop": 4, "web": 4} and what.gate == [("Deployment", "shop")]
    assert of(what.last, "Service")["spec"]["selector"] == {"app": "shop"}


def test_where_an_autoscaler_says_how_many_nobody_else_does() -> None:
    old, new = (side(number, content=objects(number, 3, autoscaler())) for number in (1, 2))
    (progress,) = course(None)
    assert scale(desired_state(SETTINGS, None, progress, new, old, fast=False, replicas=7)) == {"web": None}
    by_route = canary(50, route="web")
    old, new = (side(n, content=objects(n, None, autoscaler(), http_route())) for n in (1, 2))
    stage = desired_state(SETTINGS, by_route, course(by_route)[0], new, old, fast=False, replicas=7)
    assert scale(stage) == {"web": None, "web-canary": 4}
    by_number = canary(50)
    stage = desired_state(SETTINGS, by_number, course(by_number)[0], new, old, fast=False, replicas=7).last
    assert scale(stage) == {"web": 3, "web-canary": 4}
    with pytest.raises(ManifestError, match="HorizontalPodAutoscaler.*blue_green"):
        desired_state(
            SETTINGS,
            BLUE_GREEN,
            course(BLUE_GREEN)[0],
            side(2, "blue", new.objects),  # type: ignore[arg-type]
            old,
            fast=False,
        )


def test_a_rolling_release_may_have_workloads_of_all_kinds() -> None:
    database = deployment(1, 1, "db")
    database["kind"] = "StatefulSet"
    old = side(1, content=objects(1, 4, database, deployment(1, 2, "worker")))
    new = side(2, content=objects(2, 4, database, deployment(2, 2, "worker")))
    (stage,) = desired_state(SETTINGS, None, course(None)[0], new, old, fast=False).stages
    assert set(stage.candidate) == {("Deployment", "web"), ("Deployment", "worker"), ("StatefulSet", "db")}


def test_what_is_in_nobodys_way_comes_first_and_workloads_after_the_way_to_them() -> None:
    stage = desired_state(SETTINGS, BLUE_GREEN, course(BLUE_GREEN)[0], side(2, "blue"), side(1), fast=False)
    kinds = [one["kind"] for one in stage.objects]
    assert kinds == sorted(kinds, key=["ConfigMap", "Service", "Deployment"].index)


@pytest.mark.parametrize(
    ("strategy", "content", "problem"),
    [
        (canary(50), [config_map(2)], "no Deployment"),
        (
            canary(50),
            objects(2, 4, deployment(2, 1, "worker")),
            "Deployment/web, Deployment/worker.*workload:",
        ),
        (BLUE_GREEN, [deployment(2)], "no Service selects"),
        (canary(50, route="web"), objects(2), "no HTTPRoute 'web'"),
        (canary(50, route="web"), objects(2, 4, http_route(refs=[{"name": "x"}])), "refers to Service 'web'"),
        (BLUE_GREEN, objects(2, 4, config_map(2, "settings-blue")), "ConfigMap/settings-blue, a name"),
        (BLUE_GREEN, objects(2, 4, service("web-preview", {"app": "x"})), "Service/web-preview, a name"),
        (BLUE_GREEN, [deployment(2), service("w" * 60)], "at most 55"),
        (canary(50), [deployment(2, labels={"app": "new"})], "does not select the pods of the new release"),
    ],
)
def test_what_a_strategy_cannot_work_with_is_refused(
    strategy: StrategyChoice, content: list[dict[str, Any]], problem: str
) -> None:
    new = side(2, place_of(strategy, "stable"), content)
    with pytest.raises(ManifestError, match=problem):
        desired_state(SETTINGS, strategy, course(strategy)[0], new, side(1), fast=False)


choices = st.one_of(
    st.none(),
    st.lists(st.integers(0, 100), min_size=1, max_size=4).map(lambda weights: canary(*weights)),
    st.lists(st.integers(0, 100), min_size=1, max_size=4).map(lambda weights: canary(*weights, route="web")),
    st.just(BLUE_GREEN),
)


@st.composite
def changes(
    draw: st.DrawFn,
) -> tuple[StrategyChoice | None, Progress, ReleaseVariant, ReleaseVariant, dict[str, Any]]:
    """Draw any progress of any rollout, aborted or not."""
    strategy = draw(choices)
    before = draw(st.sampled_from(["stable", "blue", "green"]))
    fast = draw(st.booleans())
    progress = draw(st.sampled_from(course(strategy, fast=fast)))
    if draw(st.booleans()):
        progress = progress.aborting("bad", NOW)
    old = side(1, before, objects(1, draw(st.integers(0, 6)), http_route()))
    new = side(2, place_of(strategy, before), objects(2, draw(st.integers(0, 6)), http_route()))
    told = {"fast": fast, "occupied": draw(st.booleans()), "serving": draw(st.none() | st.integers(0, 3))}
    return strategy, progress, new, old, told


@given(changes())
def test_the_same_is_wanted_again_and_nothing_is_done_to_what_was_given(
    change: tuple[StrategyChoice | None, Progress, ReleaseVariant, ReleaseVariant, dict[str, Any]],
) -> None:
    arguments: list[Any]
    *arguments, told = change
    given_objects = deepcopy([arguments[2].objects, arguments[3].objects])
    assert desired_state(SETTINGS, *arguments, **told) == desired_state(SETTINGS, *arguments, **told)
    assert [arguments[2].objects, arguments[3].objects] == given_objects


@given(changes())
def test_the_end_is_what_is_settled_but_for_what_settling_clears_away(
    change: tuple[StrategyChoice | None, Progress, ReleaseVariant, ReleaseVariant, dict[str, Any]],
) -> None:
    strategy, progress, new, old, told = change
    last = {
        key_of(one): one for one in desired_state(SETTINGS, strategy, progress, new, old, **told).last.objects
    }
    if progress.phase is Phase.ABORTING:
        end = steady_state(SETTINGS, None, old, None, scaled_down=False)
    elif progress.phase is Phase.PROMOTING:
        end = steady_state(SETTINGS, strategy, new, old, scaled_down=False)
    else:
        return
    settling = {key_of(one): one for one in end.objects}
    assert settling.keys() <= last.keys()
    for key, one in settling.items():
        assert _bare(last[key]) == _bare(one)
    for key in last.keys() - settling.keys():
        if progress.phase is Phase.ABORTING and key[1] == "Deployment":
            assert last[key]["spec"]["replicas"] == 0
        else:
            ours = last[key]["metadata"].get("labels", {}).get(TRACK)
            assert ours in ("canary", "blue", "green") or key[1:] == ("Deployment", "web"), key


def _bare(obj: dict[str, Any]) -> dict[str, Any]:
    """Return an object without what is narrower while more than one release is there."""
    obj = deepcopy(obj)
    if obj["kind"] == "Service":
        obj["spec"]["selector"].pop(TRACK, None)
    if obj["kind"] == "HTTPRoute":
        obj["spec"]["rules"] = []
    return obj


@given(changes())
def test_a_gate_that_was_passed_stays_passed(
    change: tuple[StrategyChoice | None, Progress, ReleaseVariant, ReleaseVariant, dict[str, Any]],
) -> None:
    strategy, progress, new, old, told = change
    stages = list(desired_state(SETTINGS, strategy, progress, new, old, **{**told, "occupied": False}).stages)
    for number, stage in enumerate(stages[:-1]):
        waited = {key_of(one): one for one in stage.gates()}
        assert len(waited) == len(stage.gate)
        for later in stages[number + 1 :]:
            found = {key_of(one): one for one in later.objects}
            assert all(found[key] == one for key, one in waited.items())


@given(st.integers(0, 50), st.lists(st.integers(0, 100), min_size=1, max_size=4))
def test_instances_add_up_to_what_there_was(size: int, weights: list[int]) -> None:
    strategy = canary(*weights)
    for progress in course(strategy)[:-1]:
        old, new = side(1, content=objects(1, size)), side(2, content=objects(2, size))
        what = desired_state(SETTINGS, strategy, progress, new, old, fast=False)
        counts = scale(what.last)
        stable, extra = counts["web"], counts["web-canary"]
        assert stable is not None and extra is not None
        alone = size == 1 and 0 < progress.weight < 100
        assert stable + extra == size + alone
        if size:
            assert (extra > 0) is (progress.weight > 0) and (stable > 0) is (progress.weight < 100)
            assert size < 3 or abs(100 * extra / size - progress.weight) <= 100 / size
