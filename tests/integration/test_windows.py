"""Windows and freezes on a running Airflow: what waits says why, and who let it in before is on record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.api import ApiError
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.deciding import DEPLOY, answer, wait_until_noted
from tests.integration.services import TestService

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]
NOW = "Deploy now"


def freeze(ends_in: timedelta, reason: str = "the fair") -> dict[str, Any]:
    """Return a freeze that holds since yesterday."""
    now = datetime.now(timezone.utc)
    start, end = now - timedelta(days=1), now + ends_in
    moments = {"start": f"{start:%Y-%m-%d}", "end": f"{end:%Y-%m-%dT%H:%M:%S}"}
    return {**moments, "reason": reason, "environments": ["production"]}


def test_a_freeze_holds_until_its_end_and_tells_why(service: MakeService, airflow: RunningAirflow) -> None:
    frozen = freeze(timedelta(days=3))
    hello = service("deployment", freezes=[frozen])
    run = hello.run()
    run.wait_for_task(DEPLOY, "deferred", timeout=120)
    assert hello.served("staging") == "first"  # it names production alone
    told = run.xcom(DEPLOY, "closed")
    assert isinstance(told, dict) and told["reason"].endswith(": the fair")
    assert told["opens_at"] == f"{frozen['end']}+00:00"
    assert "the fair. Waiting until it opens at" in run.log(DEPLOY)
    file = airflow.dags_folder / f"{hello.name}.yaml"
    status = airflow.run("cd", "status", "--file", str(file), COLUMNS="300")
    assert "closed: frozen until" in status.stdout and "the fair; it opens at" in status.stdout
    assert hello.record().current is None

    # It is to end sooner: a waiting task checks again when cleared, and goes on by itself at the new end.
    sooner = freeze(timedelta(seconds=30))
    hello.change(freezes=[sooner])
    airflow.wait_until_noted(run.run_id, DEPLOY)
    airflow.api.clear(hello.dag_id, run.run_id, DEPLOY, downstream=True)
    run.wait_for("success", timeout=240)
    current = hello.record().current
    assert current is not None and current.approval is None
    assert current.deployed_at >= datetime.fromisoformat(f"{sooner['end']}+00:00")


def test_where_it_is_not_to_wait_it_fails(service: MakeService) -> None:
    hello = service("deployment", freezes=[freeze(timedelta(days=3))], when_closed="fail")
    run = hello.run()
    run.wait_for("failed", timeout=180)
    assert "frozen until" in run.log(DEPLOY) and "the fair; it opens at" in run.log(DEPLOY)
    assert run.states()["production.rollback"] == "upstream_failed"
    assert hello.record().current is None


def test_a_named_approver_overrides_and_is_on_record(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service("deployment", freezes=[freeze(timedelta(days=3))], window_approvers=["bob"])
    run = hello.run()
    run.wait_for_task(DEPLOY, "awaiting_input", timeout=120)
    wait_until_noted(run, DEPLOY)
    question = run.question(DEPLOY)
    assert "the fair; it opens at" in question["body"]
    assert [user["id"] for user in question["assigned_users"]] == ["bob"]
    with pytest.raises(ApiError, match="403"):
        run.answer(DEPLOY, NOW, airflow.as_user("eve"))
    airflow.wait_until_noted(run.run_id, DEPLOY)
    options = ("--api-url", airflow.url, "--user", "bob", "--reason", "customers are waiting")
    password = {"AIRFLOW_CD_PASSWORD": airflow.password("bob")}
    done = airflow.run("cd", "override", hello.name, *options, **password)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    answer(run, NOW, airflow.as_user("bob"), DEPLOY, reason="customers are waiting")
    run.wait_for("success", timeout=180)

    recorded = "window override by bob: customers are waiting"
    current = hello.record().current
    assert current is not None and current.approval == recorded
    (event,) = wait_until(hello.history, "the change is in the history", timeout=120)
    assert event["approval"] == recorded
    assert hello.served() == "first"


def test_an_override_is_for_one_run_and_ends_with_the_freeze(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service("deployment", freezes=[freeze(timedelta(days=3))], window_approvers=["bob"])
    first = overridden(hello, airflow)
    hello.commit("second")
    second = hello.run()
    second.wait_for_task(DEPLOY, "awaiting_input", timeout=120)
    assert hello.served() == "first"
    # The freeze is lifted: a waiting task checks again when cleared.
    hello.change(freezes=[])
    airflow.wait_until_noted(second.run_id, DEPLOY)
    airflow.api.clear(hello.dag_id, second.run_id, DEPLOY, downstream=True)
    second.wait_for("success", timeout=180)
    assert hello.served() == "second"
    current = hello.record().current
    assert current is not None and current.approval is None
    assert first.state == "success"


@pytest.mark.exhaustive
def test_nobody_has_to_answer(service: MakeService) -> None:
    """Where a person may override, the opening still comes by itself."""
    hello = service("deployment", freezes=[freeze(timedelta(seconds=90))], window_approvers=["bob"])
    run = hello.run()
    run.wait_for_task(DEPLOY, "awaiting_input", timeout=120)
    wait_until_noted(run, DEPLOY)
    run.wait_for("success", timeout=240)
    current = hello.record().current
    assert current is not None and current.approval is None


def overridden(hello: TestService, airflow: RunningAirflow) -> Run:
    run = hello.run()
    run.wait_for_task(DEPLOY, "awaiting_input", timeout=120)
    wait_until_noted(run, DEPLOY)
    answer(run, NOW, airflow.as_user("bob"), DEPLOY)
    run.wait_for("success", timeout=180)
    return run
