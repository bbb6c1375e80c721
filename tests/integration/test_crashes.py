"""Workers that die, on a running Airflow: their tasks' retries end right, and leave nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from demo.airflow import RunningAirflow
from tests.integration.trapped import TrappedService

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]

MakeService = Callable[..., TrappedService]


def test_workers_that_die_in_the_middle_of_their_work(trapped: MakeService) -> None:
    shout = trapped("deployment")
    places = ["build", "test", "package.execute.begins", "app.production", "production.health.execute.begins"]
    places = ["build", "test"]
    traps = [shout.trap(place) for place in places]
    run = shout.run()
    for trap in traps:
        shout.kill_worker_in(trap, run)
    run.wait_for("success")
    for environment in ("staging", "production"):
        shout.expect_one_deployment(run, "first", environment)


def test_workers_that_die_when_their_work_is_done_but_nobody_knows(trapped: MakeService) -> None:
    shout = trapped("deployment")
    tasks = ["build", "test", "package", "staging.deploy", "staging.health", "production.deploy"]
    places = [f"{task}.execute.ended" for task in tasks]
    traps = [shout.trap(place) for place in places]
    run = shout.run()
    for trap in traps:
        shout.kill_worker_in(trap, run)
    run.wait_for("success")
    for environment in ("staging", "production"):
        shout.expect_one_deployment(run, "first", environment)
