"""Release trains on a running Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.api import ApiError
from harness.runs import Run
from tests.integration.deciding import answer, wait_until_noted
from tests.integration.mailing import by_mail
from tests.integration.test_decide import decide, refused
from tests.integration.trains import TestTrain
from tests.support.mail_server import MailServer

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
        pytest.param("service", {"a": "first", "b": "second", "c": "second"}, marks=pytest.mark.exhaustive),
        ("dependents", {"a": "first", "b": "first", "c": "second"}),
        pytest.param("train", {"a": "first", "b": "first", "c": "first"}, marks=pytest.mark.exhaustive),
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


def test_each_member_is_asked_about_alone(
    train: MakeTrain, airflow: RunningAirflow, mails: MailServer
) -> None:
    subject = "{{ cd.event }} {{ (cd.on_board if cd.on_board is defined else cd.outcomes) | length }}"
    nightly = train(
        *"abc",
        pipeline="delivery",
        order=B_AFTER_A,
        approve="service",
        notify=[by_mail("train_departed", "train_arrived", subject=subject, text="{{ cd.train }}")],
    )
    nightly.ready("first")
    run = nightly.depart()
    asked = {name: f"{nightly.members[name].name}.approve" for name in "abc"}
    for task_id in asked.values():
        run.wait_for_task(task_id, "awaiting_input", timeout=200)
        wait_until_noted(run, task_id)
    note = airflow.api.dag_run(run.dag_id, run.run_id)["note"]
    assert f"{nightly.members['a'].name}: nothing -> " in note
    (event,) = airflow.api.asset_events(f"cd/train/{nightly.name}")
    assert set(nightly.told(event["on_board"])) == set("abc")
    assert mails.subjects() == ["train_departed 3"]

    answer(run, "Reject", airflow.as_user("bob"), asked["a"])
    command = ("--train", "--member", nightly.members["c"].name)
    done = decide(airflow, "approve", nightly.name, *command)
    assert done.returncode == 0, done.stderr
    answer(run, "Approve", airflow.as_user("bob"), asked["b"])
    run.wait_for("failed", timeout=400)
    assert nightly.served() == {"a": "", "b": "", "c": "first"}  # b goes after a
    outcomes = nightly.told(run.xcom("arrive"))
    assert outcomes == {"a": "stayed behind", "b": "stayed behind", "c": "arrived"}
    assert mails.subjects() == ["train_departed 3", "train_arrived 3"]


@pytest.mark.exhaustive
def test_a_train_by_the_command_line(train: MakeTrain, airflow: RunningAirflow) -> None:
    long = {"healthy_after": 20, "interval": "1s"}
    nightly = train("a", "b", pipeline="delivery", order=B_AFTER_A, health=long)
    nightly.ready("first")
    a, b = (nightly.members[name].name for name in "ab")
    listed = airflow.run("cd", "trains", "--file", str(nightly.file))
    assert listed.returncode == 0, listed.stderr
    assert nightly.name in listed.stdout and a in listed.stdout

    def waiting() -> Run:
        (found,) = (
            Run(airflow.api, nightly.dag_id, one["dag_run_id"])
            for one in airflow.api.dag_runs(nightly.dag_id)
            if one["state"] in ("queued", "running")
        )
        found.wait_for_task("approve", "awaiting_input", timeout=200)
        wait_until_noted(found, "approve")
        return found

    assert decide(airflow, "depart", nightly.name, "--hold", b).returncode == 0
    rejected = waiting()
    assert "held for this departure" in rejected.question("approve")["body"]
    cancelled = decide(airflow, "cancel", nightly.name, "--reason", "not tonight")
    assert "is rejected: nothing is deployed" in cancelled.stdout, cancelled.stderr
    rejected.wait_for("failed", timeout=200)
    assert "rejected by bob: not tonight" in rejected.log("approve")
    assert "is under way" in refused(decide(airflow, "cancel", nightly.name))

    # What is being deployed arrives; what is to follow it does not begin.
    assert decide(airflow, "depart", nightly.name).returncode == 0
    run = waiting()
    assert decide(airflow, "approve", nightly.name, "--train").returncode == 0
    run.wait_for_task(f"{a}.deploy", timeout=200)
    done = decide(airflow, "cancel", nightly.name, "--reason", "enough")
    assert "members that are not deployed yet stay behind" in done.stdout, done.stderr
    run.wait_for("failed", timeout=300)
    assert nightly.told(run.xcom("arrive")) == {"a": "arrived", "b": "stayed behind"}
    assert "the train was cancelled: enough" in run.log(f"{b}.deploy")
    assert nightly.served() == {"a": "first", "b": ""}
