"""Going around the question, in every way Airflow offers: what is recorded is what happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness.airflow import RunningAirflow
from harness.api import AirflowApi, ApiError
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.deciding import (
    APPROVE,
    DEPLOY,
    HEALTH,
    answer,
    forge_xcom,
    mark_group,
    mark_in_bulk,
    mark_run,
    parked,
    parked_again,
)
from tests.integration.services import TestService

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]
Mark = Callable[[Run, str, str, AirflowApi], None]
ONE_BY_ONE: list[Mark] = [Run.mark, mark_in_bulk]
DENY = {"approvers": ["bob"], "override": "deny"}


@pytest.mark.parametrize("mark", ONE_BY_ONE)
def test_a_mark_is_no_approval_where_it_is_denied(
    service: MakeService, airflow: RunningAirflow, mark: Mark
) -> None:
    hello = service(approval=DENY)
    run = parked(hello.run())
    with pytest.raises(ApiError, match="403"):
        run.answer(APPROVE, "Approve", airflow.as_user("eve"))
    mark(run, APPROVE, "success", airflow.as_user("eve"))
    run.wait_for("failed")
    assert "override: deny" in run.log(DEPLOY)
    assert hello.record().current is None
    # The way back: clear the approval, and let a person answer who may.
    airflow.api.clear(hello.dag_id, run.run_id, APPROVE, downstream=True)
    parked_again(run)
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("success")
    assert approval_of(hello) == "approved by bob"


@pytest.mark.parametrize("mark", ONE_BY_ONE)
def test_a_mark_counts_as_an_override_where_it_is_allowed(
    service: MakeService, airflow: RunningAirflow, mark: Mark
) -> None:
    hello = service(approval={"approvers": ["bob"], "override": "allow"})
    run = parked(hello.run())
    mark(run, APPROVE, "success", airflow.as_user("eve"))
    run.wait_for("success")
    assert (hello.served(), approval_of(hello)) == ("first", "override")


@pytest.mark.exhaustive
def test_marking_the_task_group_deploys_nothing(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval=DENY)
    run = parked(hello.run())
    mark_group(run, "production", "success", airflow.as_user("eve"))
    ended(run)
    assert hello.record().current is None


@pytest.mark.exhaustive
def test_marking_the_run_deploys_nothing(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval=DENY)
    run = parked(hello.run())
    mark_run(run, "success", airflow.as_user("eve"))
    ended(run)
    assert hello.record().current is None


@pytest.mark.parametrize("policy", ["allow", "deny"])
def test_marking_the_deployment_is_noticed(
    service: MakeService, airflow: RunningAirflow, policy: str
) -> None:
    hello = service(approval={"approvers": ["bob"], "override": policy})
    first = parked(hello.run())
    answer(first, "Approve", airflow.as_user("bob"))
    first.wait_for("success")
    hello.commit("second")
    run = parked(hello.run())
    run.mark(DEPLOY, "success", airflow.as_user("eve"))
    run.wait_for_task(HEALTH, "failed", timeout=90)
    assert f"{DEPLOY} left no result" in run.log(HEALTH)
    assert hello.served() == "first"


@pytest.mark.exhaustive
@pytest.mark.parametrize("policy", ["allow", "deny"])
def test_a_forged_decision_is_none(service: MakeService, airflow: RunningAirflow, policy: str) -> None:
    hello = service(approval={"approvers": ["bob"], "override": policy})
    run = parked(hello.run())
    eve = airflow.as_user("eve")
    forge_xcom(run, APPROVE, approval_by("bob", run.xcom("package")), eve)
    run.mark(APPROVE, "success", eve)
    if policy == "deny":
        run.wait_for("failed")
        assert "override: deny" in run.log(DEPLOY)
        assert hello.record().current is None
    else:
        run.wait_for("success")
        assert approval_of(hello) == "override"


@pytest.mark.exhaustive
def test_a_rejection_cannot_be_forged_into_an_approval(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval=DENY)
    run = parked(hello.run())
    answer(run, "Reject", airflow.as_user("bob"))
    run.wait_for("failed")
    eve = airflow.as_user("eve")
    forge_xcom(run, APPROVE, approval_by("bob", run.xcom("package")), eve)
    run.mark(APPROVE, "success", eve)  # which also clears what had failed after it
    wait_until(lambda: run.states()[DEPLOY] == "failed", "deploy fails", timeout=90, explain=run.explain)
    assert "rejected" in run.log(DEPLOY)
    assert hello.record().current is None


@pytest.mark.exhaustive
def test_overriding_a_rejection_is_told_as_that(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"approvers": ["bob"], "override": "allow"})
    run = parked(hello.run())
    answer(run, "Reject", airflow.as_user("bob"))
    run.wait_for("failed")
    run.mark(APPROVE, "success", airflow.as_user("eve"))  # which also clears what had failed after it
    wait_until(lambda: hello.record().current, "it is deployed", timeout=90, explain=run.explain)
    assert approval_of(hello) == "override (rejected by bob)"


@pytest.mark.exhaustive
def test_a_rejection_after_the_mark_changes_nothing(service: MakeService, airflow: RunningAirflow) -> None:
    """Airflow takes the answer and shows it; the mark came first, and that is what the record tells."""
    hello = service(approval={"approvers": ["bob"], "override": "allow"})
    run = parked(hello.run())
    run.mark(APPROVE, "success", airflow.as_user("eve"))
    run.answer(APPROVE, "Reject", airflow.as_user("bob"), reason="too late")
    run.wait_for("success")
    assert (hello.served(), approval_of(hello)) == ("first", "override")
    assert "Approval: override" in run.log(DEPLOY)
    assert run.xcom(APPROVE) is None and run.xcom(APPROVE, "decision") is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("state", ["failed", "skipped"])
def test_an_approval_after_such_a_mark_deploys_nothing(
    service: MakeService, airflow: RunningAirflow, state: str
) -> None:
    hello = service()
    run = parked(hello.run())
    run.mark(APPROVE, state)
    run.answer(APPROVE, "Approve", airflow.as_user("bob"))
    ended(run)
    assert run.states()[DEPLOY] == {"failed": "upstream_failed", "skipped": "skipped"}[state]
    assert hello.record().current is None


def approval_by(user: str, package: object) -> dict[str, object]:
    assert isinstance(package, dict)
    return {
        "outcome": "approved",
        "digest": package["digest"],
        "by": user,
        "at": "2026-01-01T00:00:00Z",
        "reason": None,
    }


def approval_of(service: TestService) -> str | None:
    current = service.record().current
    assert current is not None
    return current.approval


def ended(run: Run) -> None:
    wait_until(lambda: run.state in ("success", "failed"), "the run ends", timeout=60, explain=run.explain)
