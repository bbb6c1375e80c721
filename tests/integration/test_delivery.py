"""Continuous delivery on a running Airflow: nothing reaches production without a decision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness.airflow import RunningAirflow
from harness.api import ApiError
from harness.runs import Run
from tests.integration.deciding import APPROVE, answer, logs, parked, wait_until_asked_again
from tests.integration.services import TestService

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]


def test_an_approvers_answer_lets_the_release_in(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"approvers": ["bob"]})
    run = parked(hello.run())
    assert hello.served("staging") == "first"
    question = run.question(APPROVE)
    assert hello.head[:8] in question["body"]
    assert "unit: 1 passed of 1" in question["body"]
    assert hello.record().current is None

    with pytest.raises(ApiError, match="403"):
        run.answer(APPROVE, "Approve", airflow.as_user("eve"))
    answer(run, "Approve", airflow.as_user("bob"), reason="looks good")
    run.wait_for("success")

    assert hello.served() == "first"
    current = hello.record().current
    assert current is not None
    assert (current.release.revision.sha, current.approval) == (hello.head, "approved by bob")
    decision = run.xcom(APPROVE)
    assert (decision["outcome"], decision["by"], decision["reason"]) == ("approved", "bob", "looks good")
    assert decision["digest"] == run.xcom("package")["digest"] == run.xcom("production.deploy")["digest"]
    assert run.states()["production.rollback"] == "skipped"
    links = run.links("production.deploy")
    assert links["Service"] == f"http://127.0.0.1:{hello.ports['production']}"
    assert links["Approval"].endswith(f"{APPROVE}/required_actions")  # type: ignore[union-attr]


def test_marking_the_task_is_an_approval_on_record(service: MakeService) -> None:
    hello = service()
    run = parked(hello.run())
    run.mark(APPROVE, "success")
    run.wait_for("success")
    assert hello.served() == "first"
    current = hello.record().current
    assert current is not None and current.approval == "override"


def test_the_command_line_approves_as_the_user_it_logs_in(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service(approval={"approvers": ["bob"]})
    run = parked(hello.run())
    options = ("--api-url", airflow.url, "--reason", "by hand")

    refused = airflow.run(
        "cd", "approve", hello.name, "--user", "eve", *options, AIRFLOW_CD_PASSWORD=airflow.password("eve")
    )
    assert refused.returncode != 0
    assert "403" in refused.stderr
    password = {"AIRFLOW_CD_PASSWORD": airflow.password("bob")}
    approved = airflow.run("cd", "approve", hello.name, "--user", "bob", *options, **password)  # type: ignore[arg-type]
    assert approved.returncode == 0, approved.stderr
    assert f"Approve: Deploy {hello.name}" in approved.stdout
    run.wait_for("success")
    current = hello.record().current
    assert current is not None and current.approval == "approved by bob"


def test_a_rejected_release_stays_out(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service()
    run = parked(hello.run())
    answer(run, "Reject", airflow.as_user("bob"), reason="not on a Friday")
    run.wait_for("failed")
    states = run.states()
    assert (states[APPROVE], states["production.deploy"]) == ("failed", "upstream_failed")
    assert run.xcom(APPROVE, "decision")["outcome"] == "rejected"
    assert "rejected by bob: not on a Friday" in run.log(APPROVE)
    assert hello.record().current is None


def test_a_release_nobody_decides_on_expires(service: MakeService) -> None:
    hello = service(approval={"expires_after": "1s"})
    run = hello.run()
    run.wait_for("failed")
    assert run.xcom(APPROVE, "decision")["outcome"] == "expired"
    assert hello.record().current is None


def test_the_author_is_asked_in_vain(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service()
    hello.commit("by alice", author="Alice", email="alice@example.org")
    run = parked(hello.run())
    airflow.wait_until_noted(run.run_id, APPROVE)
    run.answer(APPROVE, "Approve", airflow.as_user("alice"))
    # The answer is taken, found wanting, and the question is asked again.
    wait_until_asked_again(run)
    assert hello.record().current is None
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("success")
    # In whichever try Airflow took the first answer.
    assert "is the author of a commit" in logs(run, APPROVE)
    current = hello.record().current
    assert current is not None and current.approval == "approved by bob"


def test_a_listed_author_cannot_answer_at_all(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"approvers": ["alice", "bob"]})
    hello.commit("by alice", author="Alice", email="alice@example.org")
    run = parked(hello.run())
    with pytest.raises(ApiError, match="403"):
        run.answer(APPROVE, "Approve", airflow.as_user("alice"))
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("success")


def test_a_marked_task_is_no_approval_where_overrides_are_denied(service: MakeService) -> None:
    hello = service(approval={"override": "deny"})
    run = parked(hello.run())
    run.mark(APPROVE, "success")
    run.wait_for("failed")
    assert "override: deny" in run.log("production.deploy")
    assert run.states()["production.rollback"] == "upstream_failed"
    assert hello.record().current is None


def test_a_candidate_older_than_what_runs_is_superseded_when_it_is_answered(
    service: MakeService, airflow: RunningAirflow
) -> None:
    """Usually it is closed before, by the pipeline that deployed the newer one; this one came another way."""
    hello = service()
    old = parked(hello.run())
    hello.commit("second")
    hello.bring_to_production(parked(hello.run()))

    answer(old, "Approve", airflow.as_user("bob"))
    old.wait_for("success")
    states = old.states()
    assert (states[APPROVE], states["production.deploy"]) == ("skipped", "skipped")
    assert old.xcom(APPROVE, "decision")["outcome"] == "superseded"
    assert hello.served() == "second"


@pytest.mark.exhaustive
def test_waiting_takes_no_slot(service: MakeService) -> None:
    """Three times as many approvals wait as this Airflow can run tasks; the next run passes them."""
    hello = service()
    for _ in range(12):
        hello.run()
    for run in [
        Run(hello.airflow.api, hello.dag_id, r["dag_run_id"])
        for r in hello.airflow.api.dag_runs(hello.dag_id)
    ]:
        parked(run)
    other = service("deployment")
    other.run().wait_for("success")
    assert other.served() == "first"
