"""One night: thirty services by one train, two of them bad, and the scheduler dies at departure."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from tests.integration.deciding import answer, wait_until_noted
from tests.integration.fleet import Fleet

pytestmark = [pytest.mark.scheduler, pytest.mark.exhaustive, pytest.mark.timeout(1500)]


def test_thirty_services_two_bad_ones_and_no_scheduler_at_departure(
    airflow: RunningAirflow, tmp_path: Path
) -> None:
    night = Fleet(airflow, "night", tmp_path, (10, 10, 10), approval={"approvers": ["bob"]})
    first, second, third = night.layers
    bad = {first[3], second[5]}
    behind = {second[3], third[3], third[5]}
    night.deploy(night.release("first"))
    night.make_ready(night.release("second", sick=sorted(bad)))

    run = Run.triggered(airflow.api, night.dag_id)
    run.wait_for_task("approve", "awaiting_input", timeout=300)
    wait_until_noted(run, "approve")
    answer(run, "Approve", airflow.as_user("bob"), "approve")
    airflow.kill("scheduler")
    airflow.restart("scheduler")
    run.wait_for("failed", timeout=900)

    arrived = set(night.names) - bad - behind
    outcomes = run.xcom("arrive")
    assert isinstance(outcomes, dict)
    assert {one for one in outcomes if outcomes[one] == "arrived"} == arrived
    assert {one for one in outcomes if outcomes[one] == "rolled back"} == bad
    assert {one for one in outcomes if outcomes[one] == "stayed behind"} == behind
    for one in night.names:
        _expect(night, one, changes=1 if one in arrived else 2 if one in bad else 0)
    tasks = airflow.api.task_instances(run.dag_id, run.run_id)
    for rule in night.order:
        (before,), after = rule["after"], rule["service"]
        if after in arrived:
            assert tasks[f"{before}.health"]["end_date"] <= tasks[f"{after}.deploy"]["start_date"]


def _expect(night: Fleet, one: str, changes: int) -> None:
    """:param changes: 0: stayed behind, 1: arrived, 2: was rolled back"""
    record = night.record(one)
    assert record.current is not None
    # The first release is generation 1: what the scheduler's death made run again deployed nothing again.
    assert (one, record.generation) == (one, 1 + changes)
    assert night.served(one) == ("second" if changes == 1 else "first")
    assert night.history(one) == ["deployed", "rolled back"][:changes]
