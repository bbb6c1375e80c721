"""What an approval is bound to, and for how long, on a running Airflow."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from harness.airflow import RunningAirflow
from harness.api import AirflowApi, ApiError
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.deciding import (
    APPROVE,
    DEPLOY,
    answer,
    is_asking,
    logs,
    parked,
    wait_until_asked_again,
)
from tests.integration.services import TestService

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]
OTHER_PACKAGE = {"archive": {"include": ["src/**", "tests.xml"]}}


def test_an_answer_after_the_expiry_is_refused(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"expires_after": "2s"})
    run = hello.run()
    run.wait_for("failed")
    decision = run.xcom(APPROVE, "decision")
    assert isinstance(decision, dict)
    assert (decision["outcome"], decision["by"]) == ("expired", None)
    assert "nobody decided within 2s" in decision["reason"]
    assert decision["reason"] in run.log(APPROVE)
    with pytest.raises(ApiError, match="409"):
        run.answer(APPROVE, "Approve", airflow.as_user("bob"))
    question = run.question(APPROVE)
    assert (question["chosen_options"], question["responded_by_user"]) == (["Expired"], None)
    assert run.states()[DEPLOY] == "upstream_failed"
    assert hello.record().current is None


def test_authors_of_any_change_since_production_may_not_approve(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service(approval={"approvers": ["alice", "bob"]})
    first = parked(hello.run())
    answer(first, "Approve", airflow.as_user("bob"))
    first.wait_for("success")
    hello.commit("by alice", author="Alice", email="alice@example.org")
    hello.commit("by ada on top")
    run = parked(hello.run())
    with pytest.raises(ApiError, match="403"):
        run.answer(APPROVE, "Approve", airflow.as_user("alice"))
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("success")
    assert hello.served() == "by ada on top"


def test_a_user_whose_name_looks_like_a_listed_one_is_somebody_else(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service(approval={"approvers": ["bob"]})
    run = parked(hello.run())
    with pytest.raises(ApiError, match="403"):
        run.answer(APPROVE, "Approve", airflow.as_user("Bob"))
    assert is_asking(run)


def test_an_approval_counts_for_its_digest_alone(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"override": "deny"}, package={"archive": {"include": ["src/**"]}})
    run = parked(hello.run())
    hello.redefine(windows=[freeze(hours=2)])
    answer(run, "Approve", airflow.as_user("bob"))
    held(run)

    # Another digest: the approval is not for that.
    approved = package_again(hello, run, OTHER_PACKAGE)
    airflow.api.clear(hello.dag_id, run.run_id, DEPLOY)
    hello.redefine(windows=None)
    airflow.api.clear(hello.dag_id, run.run_id, DEPLOY)
    run.wait_for("failed")
    assert f"of {approved}, but manifest" in run.log(DEPLOY)
    assert hello.record().current is None

    # Asked again, Airflow would show the words about the first digest: nobody is asked that.
    airflow.api.clear(hello.dag_id, run.run_id, APPROVE, downstream=True)
    wait_until(lambda: run.states()[APPROVE] == "failed", "no question", timeout=60, explain=run.explain)
    assert "still shows the question about sha256:" in run.log(APPROVE)

    # In a run of its own it is asked properly.
    again = parked(hello.run())
    assert package_of(again) in again.question(APPROVE)["body"]
    answer(again, "Approve", airflow.as_user("bob"))
    again.wait_for("success")
    assert hello.record().current.release.digest == package_of(again) != approved  # type: ignore[union-attr]


def test_an_approval_still_counts_for_the_same_digest(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"override": "deny"})
    run = parked(hello.run())
    hello.redefine(windows=[freeze(hours=2)])
    answer(run, "Approve", airflow.as_user("bob"))
    held(run)
    approved = package_again(hello, run, None)
    hello.redefine(windows=None)
    airflow.api.clear(hello.dag_id, run.run_id, DEPLOY)
    run.wait_for("success")
    current = hello.record().current
    assert current is not None
    assert (current.release.digest, current.approval) == (approved, "approved by bob")


def test_the_answer_is_to_the_digest_that_was_shown(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service()
    run = parked(hello.run())
    shown = package_again(hello, run, OTHER_PACKAGE)
    assert shown in run.question(APPROVE)["body"]
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("failed")
    assert "still shows the question about sha256:" in run.log(APPROVE)
    assert hello.record().current is None


@pytest.mark.exhaustive
def test_a_freeze_between_approval_and_deployment_holds_it(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service()
    run = parked(hello.run())
    hello.redefine(windows=[freeze(seconds=30)])
    opens = datetime.now(timezone.utc) + timedelta(seconds=29)
    answer(run, "Approve", airflow.as_user("bob"))
    held(run)
    assert "cannot be deployed to now" in run.log(DEPLOY)
    assert hello.record().current is None
    run.wait_for("success")
    current = hello.record().current
    assert current is not None and current.approval == "approved by bob"
    assert current.deployed_at >= opens


@pytest.mark.exhaustive
def test_of_two_answers_at_once_one_counts(service: MakeService, airflow: RunningAirflow) -> None:
    """
    Airflow 3.3.2 may take both (200), on PostgreSQL too, and then shows the later one's.

    What was decided, what is deployed and what the record tells agree all the same.
    """
    hello = service()
    run = parked(hello.run())
    airflow.wait_until_noted(run.run_id, APPROVE)
    answers = [(airflow.as_user("alice"), "Reject"), (airflow.as_user("bob"), "Approve")]
    for user, _ in answers:
        user.dag_run(run.dag_id, run.run_id)  # logged in

    def decide(answer: tuple[AirflowApi, str]) -> int:
        try:
            run.answer(APPROVE, answer[1], answer[0])
        except ApiError as error:
            return error.status
        return 200

    with ThreadPoolExecutor() as pool:
        statuses = sorted(pool.map(decide, answers))
    assert statuses in ([200, 409], [200, 200])
    wait_until(lambda: run.state in ("success", "failed"), "the run ends", timeout=90, explain=run.explain)
    current = hello.record().current
    if run.state == "success":
        decision = run.xcom(APPROVE)
        assert isinstance(decision, dict) and decision["by"] == "bob"
        assert current is not None and current.approval == "approved by bob"
        assert hello.record().generation == 1
    else:
        decision = run.xcom(APPROVE, "decision")
        assert isinstance(decision, dict) and (decision["outcome"], decision["by"]) == ("rejected", "alice")
        assert current is None


@pytest.mark.exhaustive
def test_clearing_the_approval_of_what_runs_asks_nobody(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service(approval={"override": "deny"})
    run = parked(hello.run())
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("success")
    before = hello.record()
    airflow.api.clear(hello.dag_id, run.run_id, APPROVE, downstream=True)
    wait_until(lambda: run.state != "success", "the run starts again", timeout=60)
    run.wait_for("success")
    decision = run.xcom(APPROVE)
    assert isinstance(decision, dict) and decision["outcome"] == "not needed"
    assert hello.record() == before


@pytest.mark.exhaustive
def test_clearing_the_approval_of_what_waits_withdraws_it(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service(approval={"override": "deny"})
    run = parked(hello.run())
    hello.redefine(windows=[freeze(hours=2)])
    answer(run, "Approve", airflow.as_user("bob"))
    held(run)
    airflow.api.clear(hello.dag_id, run.run_id, APPROVE, downstream=True)
    wait_until_asked_again(run)
    hello.redefine(windows=None)
    # The earlier approval is not what a mark falls back to.
    run.mark(APPROVE, "success", airflow.as_user("eve"))
    run.wait_for("failed")
    assert "override: deny" in logs(run, DEPLOY)
    assert hello.record().current is None


def package_again(hello: TestService, run: Run, package: object) -> str:
    """Package the run's revision once more, and return the digest that it had before."""
    before = package_of(run)
    hello.redefine(package=package)
    tries = run.api.task_instances(run.dag_id, run.run_id)["package"]["try_number"]
    run.api.clear(run.dag_id, run.run_id, "package")

    def packaged() -> bool:
        task = run.api.task_instances(run.dag_id, run.run_id)["package"]
        return bool(task["state"] == "success" and task["try_number"] > tries)

    wait_until(packaged, "it is packaged again", timeout=60, explain=run.explain)
    assert (package_of(run) == before) == (package is None)
    return before


def package_of(run: Run) -> str:
    package = run.xcom("package")
    assert isinstance(package, dict)
    return str(package["digest"])


def held(run: Run) -> None:
    run.wait_for_task(DEPLOY, "deferred", timeout=60)


def freeze(**for_: float) -> dict[str, str]:
    """Return a window that is closed now, and opens after that time."""
    now = datetime.now(timezone.utc)
    start = (now - timedelta(minutes=1)).replace(second=0, microsecond=0)
    seconds = (now - start + timedelta(**for_)).total_seconds()
    cron = f"{start.minute} {start.hour} {start.day} {start.month} *"
    return {"deny": cron, "duration": f"{seconds:.0f}s", "timezone": "UTC"}
