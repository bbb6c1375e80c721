"""Release trains on a running Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.airflow import RunningAirflow
from demo.api import ApiError
from tests.integration.deciding import answer, wait_until_noted
from tests.integration.trains import TestTrain

pytestmark = [pytest.mark.scheduler, pytest.mark.timeout(1200)]

MakeTrain = Callable[..., TestTrain]
B_AFTER_A = [{"after": ["a"], "service": "b"}]


@pytest.fixture
def train(airflow: RunningAirflow, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeTrain]:
    made: list[TestTrain] = []

    def make(*members: str, **options: Any) -> TestTrain:
        made.append(TestTrain(airflow, tmp_path, request.node.name, list(members), **options))
        return made[-1]

    yield make
    for one in made:
        one.remove()


def test_what_is_ready_departs_when_somebody_lets_it(train: MakeTrain, airflow: RunningAirflow) -> None:
    nightly = train("a", "b", "c", pipeline="delivery", order=B_AFTER_A, approval={"approvers": ["bob"]})
    nightly.ready("first")
    assert nightly.served() == {"a": "", "b": "", "c": ""}  # no pipeline goes there by itself

    run = nightly.depart("c")
    run.wait_for_task("approve", "awaiting_input", timeout=200)
    wait_until_noted(run, "approve")
    question = run.question("approve")
    assert "with 2 releases" in question["subject"]
    assert "held for this departure" in question["body"] and "say first" in question["body"]
    with pytest.raises(ApiError, match="403"):
        run.answer("approve", "Approve", airflow.as_user("eve"))
    # What gets ready after boarding catches the next train.
    late = nightly.members["a"].commit("late")
    nightly.members["a"].run(late).wait_for("success", timeout=300)
    answer(run, "Approve", airflow.as_user("bob"), "approve")
    run.wait_for("success", timeout=400)

    assert nightly.served() == {"a": "first", "b": "first", "c": ""}
    assert nightly.told(run.xcom("arrive")) == {"a": "arrived", "b": "arrived", "c": "not on board"}
    current = nightly.members["a"].record().current
    assert current is not None
    assert (current.approval, current.actor) == ("approved by bob", f"{run.dag_id}/{run.run_id}")
    tasks = run.api.task_instances(run.dag_id, run.run_id)
    a, b = (nightly.members[name].name for name in "ab")
    assert tasks[f"{a}.health"]["end_date"] <= tasks[f"{b}.deploy"]["start_date"]

    rejected = nightly.depart()
    rejected.wait_for_task("approve", "awaiting_input", timeout=200)
    wait_until_noted(rejected, "approve")
    answer(rejected, "Reject", airflow.as_user("bob"), "approve")
    rejected.wait_for("failed", timeout=200)
    assert nightly.served() == {"a": "first", "b": "first", "c": ""}


@pytest.mark.parametrize(
    ("on_failure", "serves"),
    [
        ("service", {"a": "first", "b": "second", "c": "second"}),
        ("dependents", {"a": "first", "b": "first", "c": "second"}),
        ("train", {"a": "first", "b": "first", "c": "first"}),
    ],
)
def test_when_one_turns_out_unhealthy(train: MakeTrain, on_failure: str, serves: dict[str, str]) -> None:
    nightly = train("a", "b", "c", order=B_AFTER_A, on_failure=on_failure)
    nightly.ready("first")
    run = nightly.depart()
    run.wait_for("success", timeout=400)
    assert nightly.told(run.xcom("arrive")) == dict.fromkeys("abc", "arrived")

    nothing = nightly.depart()
    nothing.wait_for("success", timeout=200)
    assert nightly.told(nothing.xcom("arrive")) == dict.fromkeys("abc", "not on board")

    nightly.ready("second")
    bad = nightly.members["a"]
    bad.fall_ill("second")
    run = nightly.depart()
    run.wait_for("failed", timeout=400)
    assert nightly.served() == serves
    assert nightly.told(run.xcom("arrive"))["a"] == "rolled back"


def test_a_hotfix_goes_around_the_train_with_an_approval_of_its_own(
    train: MakeTrain, airflow: RunningAirflow
) -> None:
    nightly = train("a", on_failure="service")
    hotfix = nightly.members["a"]
    run = type(hotfix.run()).triggered(
        airflow.api, hotfix.dag_id, {"revision": hotfix.head, "train": "bypass"}
    )
    run.wait_for_task("production.approve", "awaiting_input", timeout=200)
    wait_until_noted(run, "production.approve")
    assert hotfix.record().current is None
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("success", timeout=200)
    assert hotfix.served() == "first"
