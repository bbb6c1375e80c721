"""Parts of Airflow that are killed and come back while a release waits for people or for its health."""

from __future__ import annotations

import sys
from collections.abc import Callable

import psutil
import pytest
from harness.airflow import RunningAirflow
from tests.integration.deciding import APPROVE, answer
from tests.integration.trapped import TrappedService

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.exhaustive,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]

MakeService = Callable[..., TrappedService]
# Each has an environment of its name, which the release enters while that component is away.
COMPONENTS = ("scheduler", "triggerer", "api-server")


def crash(airflow: RunningAirflow, component: str) -> None:
    airflow.kill(component)
    airflow.restart(component)


def test_every_component_is_killed_while_it_is_waited(trapped: MakeService, airflow: RunningAirflow) -> None:
    hello = trapped("delivery", environments=COMPONENTS, asks=True)
    run = hello.run()
    for component in COMPONENTS:
        approve, health = f"{component}.approve", f"{component}.health"
        run.wait_for_task(approve, "awaiting_input", timeout=90)
        airflow.wait_until_noted(run.run_id, approve)
        crash(airflow, component)
        assert run.states()[approve] == "awaiting_input"
        assert hello.record(component).current is None
        with hello.undecided():
            answer(run, "Approve", airflow.as_user("bob"), approve)
            run.wait_for_task(health, "deferred", timeout=90)
            crash(airflow, component)
            assert run.states()[health] == "deferred"
        run.wait_for_task(health, timeout=90)
    run.wait_for("success")
    for component in COMPONENTS:
        hello.expect_one_deployment(run, "first", component)
        current = hello.record(component).current
        assert current is not None and current.approval == "approved by bob"


def test_the_scheduler_dies_between_the_approval_and_the_deployment(
    trapped: MakeService, airflow: RunningAirflow
) -> None:
    hello = trapped("delivery", environments=("production",))
    trap = hello.trap(f"{APPROVE}.resume_execution.ended")
    run = hello.run()
    run.wait_for_task(APPROVE, "awaiting_input", timeout=90)
    airflow.wait_until_noted(run.run_id, APPROVE)
    run.answer(APPROVE, "Approve", airflow.as_user("bob"))
    trap.caught(explain=run.explain)
    scheduler = airflow.components["scheduler"].pid
    # Only the scheduler itself stands still; the worker goes on and reports the approval.
    psutil.Process(scheduler).suspend()
    trap.remove()
    run.wait_for_task(APPROVE)
    assert run.states()["production.deploy"] in (None, "scheduled")
    crash(airflow, "scheduler")
    run.wait_for("success")
    hello.expect_one_deployment(run, "first")
    current = hello.record().current
    assert current is not None and current.approval == "approved by bob"
