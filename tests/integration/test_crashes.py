"""
Workers that die, on a running Airflow: their tasks' retries end right, and leave nothing behind.

A dead worker is missed after seconds, so the journeys to production, one service each, are made side by side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from harness.airflow import RunningAirflow
from tests.integration.deciding import APPROVE, answer
from tests.integration.services import made
from tests.integration.trapped import TrappedService

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.exhaustive,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]

MakeService = Callable[..., TrappedService]
Journey = Callable[[MakeService], None]
ONE = ("production",)


def in_the_middle_of_their_work(make: MakeService) -> None:
    shout = make("deployment", environments=ONE)
    shout.run().wait_for("success")
    shout.commit("second")
    health = "production.health"
    places = ["build", "test", "package.execute.begins", f"{health}.execute.begins", f"{health}.success"]
    *traps, watching, judged = [shout.trap(place) for place in places]
    run = shout.run()
    for trap in traps:
        shout.kill_worker_in(trap, run)
    shout.kill_worker_starting("production", run)
    shout.kill_worker_draining("production", run)
    shout.kill_worker_in(watching, run)
    shout.kill_worker_in(judged, run)
    run.wait_for("success")
    shout.expect_one_deployment(run, "second", generation=2)
    # The rollback was skipped before that last kill: a verdict that differs would come too late.
    assert "A try of this task that was killed found it healthy" in run.log(health, 3)
    assert run.states()["production.rollback"] == "skipped"
    assert [one.release.revision.subject for one in shout.record().previous] == ["say first"]


def when_their_work_is_done_but_nobody_knows(make: MakeService) -> None:
    hello = make("delivery", environments=ONE)
    bob = hello.airflow.as_user("bob")
    # The approval's is done when it has asked, and not yet parked.
    before = [hello.trap(f"{task}.execute.ended") for task in ("build", "test", "package", APPROVE)]
    after = ("deploy.execute", "health.execute", "health.resume_execution")
    run = hello.run()
    for trap in before:
        hello.kill_worker_in(trap, run)
    traps = [hello.trap(f"production.{place}.ended") for place in after]
    # The killed try, and the one that parked.
    hello.airflow.wait_until_noted(run.run_id, APPROVE, 2, timeout=90)
    answer(run, "Approve", bob)
    for trap in traps:
        hello.kill_worker_in(trap, run)
    run.wait_for("success")
    hello.expect_one_deployment(run, "first")


def when_they_take_an_answer(make: MakeService) -> None:
    """It is asked for again then: no answer counts that is not on record."""
    hello = make("delivery", environments=ONE)
    bob, alice = hello.airflow.as_user("bob"), hello.airflow.as_user("alice")
    trap = hello.trap(f"{APPROVE}.resume_execution.ended")
    run = hello.run()
    run.wait_for_task(APPROVE, "awaiting_input", timeout=90)
    hello.airflow.wait_until_noted(run.run_id, APPROVE)
    run.answer(APPROVE, "Approve", bob)
    hello.kill_worker_in(trap, run)
    hello.airflow.wait_until_noted(run.run_id, APPROVE, 3, timeout=90)
    answer(run, "Approve", alice)
    run.wait_for("success")
    hello.expect_one_deployment(run, "first")
    current = hello.record().current
    assert current is not None and current.approval == "approved by alice"


def when_they_roll_back(make: MakeService) -> None:
    shout = make("deployment", environments=ONE)
    shout.run().wait_for("success")
    good = shout.record().current
    places = ["health.resume_execution.ended", "rollback.resume_execution.ended"]
    verdict, verified = [shout.trap(f"production.{place}") for place in places]
    run = shout.run(shout.commit("sick", sick_in="production"))
    shout.kill_worker_in(verdict, run)
    shout.kill_worker_starting("production", run)
    shout.kill_worker_draining("production", run)
    shout.kill_worker_in(verified, run)
    run.wait_for("failed")
    assert run.states()["production.rollback"] == "success", run.explain()
    record = shout.record()
    assert good is not None and record.current is not None
    assert (record.generation, record.current.release, record.previous) == (3, good.release, ())
    assert shout.served() == "first"
    shout.expect_nothing_left()


JOURNEYS = [
    in_the_middle_of_their_work,
    when_their_work_is_done_but_nobody_knows,
    when_they_roll_back,
    when_they_take_an_answer,
]


@pytest.fixture(scope="module")
def under_way(
    airflow: RunningAirflow, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Journey, Future[None]]]:
    """Start all journeys, no more at a time than Airflow has slots for."""
    folder = tmp_path_factory.mktemp("crashes")
    with made(TrappedService, airflow, folder, "crashes") as make, ThreadPoolExecutor(3) as pool:
        yield {journey: pool.submit(journey, make) for journey in JOURNEYS}


@pytest.mark.parametrize("journey", JOURNEYS, ids=[journey.__name__ for journey in JOURNEYS])
def test_workers_die(journey: Journey, under_way: dict[Journey, Future[None]]) -> None:
    under_way[journey].result()
