"""Workers that die, on a running Airflow: their tasks' retries end right, and leave nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from demo.airflow import RunningAirflow
from demo.runs import Run
from tests.integration.answers import APPROVE, answer
from tests.integration.trapped import TrappedService

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]

MakeService = Callable[..., TrappedService]
ONE = ("production",)


def kill_at(service: TrappedService, run: Run, *places: str) -> None:
    for trap in [service.trap(place) for place in places]:
        service.kill_worker_in(trap, run)


def test_workers_die_in_the_middle_of_their_work(trapped: MakeService) -> None:
    shout = trapped("deployment", environments=ONE)
    shout.run().wait_for("success")
    shout.commit("second")
    places = ["build", "test", "package.execute.begins"]
    traps = [shout.trap(place) for place in places]
    run = shout.run()
    for trap in traps:
        shout.kill_worker_in(trap, run)
    shout.kill_worker_starting("production", run)
    shout.kill_worker_draining("production", run)
    kill_at(shout, run, "production.health.execute.begins")
    run.wait_for("success")
    shout.expect_one_deployment(run, "second", generation=2)
    assert [one.release.revision.subject for one in shout.record().previous] == ["say first"]


def test_workers_die_when_their_work_is_done_but_nobody_knows(
    trapped: MakeService, airflow: RunningAirflow
) -> None:
    hello = trapped("delivery", environments=ONE)
    before = ["build", "test", "package", APPROVE]
    after = ["deploy.execute", "health.execute", "health.resume_execution"]
    traps = [hello.trap(f"{task}.execute.ended") for task in before]
    run = hello.run()
    for trap in traps:
        hello.kill_worker_in(trap, run)
    traps = [hello.trap(f"production.{task}.ended") for task in after]
    answer(run, "Approve", airflow.as_user("bob"))
    for trap in traps:
        hello.kill_worker_in(trap, run)
    run.wait_for("success")
    hello.expect_one_deployment(run, "first")


def test_workers_die_while_they_take_an_answer(trapped: MakeService, airflow: RunningAirflow) -> None:
    """It is asked again then: no answer counts that is not on record."""
    hello = trapped("delivery", environments=ONE)
    trap = hello.trap(f"{APPROVE}.resume_execution.ended")
    run = hello.run()
    run.wait_for_task(APPROVE, "awaiting_input", timeout=90)
    airflow.wait_until_noted(run.run_id, APPROVE)
    run.answer(APPROVE, "Approve", airflow.as_user("bob"))
    hello.kill_worker_in(trap, run)
    answer(run, "Approve", airflow.as_user("alice"))
    run.wait_for("success")
    hello.expect_one_deployment(run, "first")
    current = hello.record().current
    assert current is not None and current.approval == "approved by alice"


def test_workers_die_while_they_roll_back(trapped: MakeService) -> None:
    shout = trapped("deployment", environments=ONE)
    shout.run().wait_for("success")
    good = shout.record().current
    traps = [shout.trap("production.health.resume_execution.ended")]
    run = shout.run(shout.commit("sick", sick_in="production"))
    for trap in traps:
        shout.kill_worker_in(trap, run)
    shout.kill_worker_starting("production", run)
    shout.kill_worker_draining("production", run)
    kill_at(shout, run, "production.rollback.resume_execution.ended")
    run.wait_for("failed")
    assert run.states()["production.rollback"] == "success", run.explain()
    record = shout.record()
    assert good is not None and record.current is not None
    assert (record.generation, record.current.release, record.previous) == (3, good.release, ())
    assert shout.served() == "first"
    shout.expect_nothing_left()
