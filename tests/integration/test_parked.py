"""Many approvals that wait: on no slot of any kind, in nobody's way, and each with its own answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from benchmarks.parking import APPROVE, Parking
from harness.airflow import RunningAirflow
from harness.waiting import wait_until
from tests.integration.deciding import answer
from tests.integration.services import TestService

pytestmark = [pytest.mark.scheduler, pytest.mark.exhaustive, pytest.mark.timeout(1200)]

MakeService = Callable[..., TestService]
PARKED = 100  # the Airflow of the tests runs four tasks at a time


@pytest.fixture
def parking(airflow: RunningAirflow) -> Iterator[Parking]:
    made = Parking(airflow, "parked")
    yield made
    made.remove()


def test_a_hundred_wait_and_exactly_the_answered_go_on(
    service: MakeService, airflow: RunningAirflow, parking: Parking
) -> None:
    runs = parking.park(PARKED)
    parking.wait_for_slots()
    assert parking.count("deferred") == 0  # no triggerer either

    other = service("deployment")
    other.run().wait_for("success", timeout=300)
    assert other.served() == "first"

    chosen = random.sample(runs, 6)
    for number, run in enumerate(chosen):
        answer(run, "Approve" if number % 2 else "Reject", airflow.as_user("bob"))
    wait_until(
        lambda: parking.answered() == {run.run_id for run in chosen},
        "exactly these have gone on",
        timeout=120,
        explain=lambda: str(parking.answered()),
    )
    assert parking.count("awaiting_input") == PARKED - len(chosen)
    outcomes = [run.states()[APPROVE] for run in chosen]
    assert outcomes == ["failed", "success"] * 3
