"""Releases that wait for their approval, and are older than what reached production meanwhile."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.superseding import HEALTH, Candidates
from harness.airflow import RunningAirflow
from harness.waiting import wait_until
from tests.integration.deciding import APPROVE, answer, parked
from tests.integration.services import TestService

pytestmark = [pytest.mark.scheduler, pytest.mark.timeout(900)]

MakeService = Callable[..., TestService]
WAITING = 40


@pytest.fixture
def candidates(airflow: RunningAirflow, tmp_path: Path) -> Iterator[Candidates]:
    # A name of its own: production goes on running what an earlier test brought there.
    made = Candidates(airflow, f"waiting{zlib.crc32(str(tmp_path).encode())}", tmp_path)
    yield made
    made.remove()


def test_older_candidates_are_closed_by_themselves_and_newer_ones_wait(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service()
    runs = []
    for text in ("first", "second", "third"):
        if text != "first":
            hello.commit(text)
        runs.append(parked(hello.run()))
    old, chosen, newer = runs
    answer(chosen, "Approve", airflow.as_user("bob"))
    chosen.wait_for("success")

    old.wait_for("success")
    states = old.states()
    assert (states[APPROVE], states["production.deploy"], states[HEALTH]) == ("skipped",) * 3
    task = airflow.api.task_instances(old.dag_id, old.run_id)[APPROVE]
    assert "is superseded: production runs" in task["note"]
    assert newer.states()[APPROVE] == "awaiting_input"
    assert hello.served() == "second"
    (event,) = airflow.api.asset_events(f"cd/{hello.name}/production/superseded")
    assert list(event["cd_superseded"]["runs"]) == [old.run_id]

    answer(newer, "Approve", airflow.as_user("bob"))
    newer.wait_for("success")
    assert hello.served() == "third"


@pytest.mark.exhaustive
def test_an_unhealthy_release_supersedes_nobody(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service()
    hello.bring_to_production(parked(hello.run()))
    hello.commit("good")
    good = parked(hello.run())
    hello.commit("bad", sick_in="production")
    bad = parked(hello.run())
    answer(bad, "Approve", airflow.as_user("bob"))
    bad.wait_for("failed")
    assert hello.served() == "first"
    answer(good, "Approve", airflow.as_user("bob"))
    good.wait_for("success")
    assert hello.served() == "good"


def test_a_superseded_run_that_is_marked_as_approved_deploys_nothing(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service()
    old = parked(hello.run())
    hello.commit("second")
    new = parked(hello.run())
    answer(new, "Approve", airflow.as_user("bob"))
    new.wait_for("success")
    old.wait_for("success")
    old.mark(APPROVE, "success", airflow.as_user("admin"))
    airflow.api.clear(old.dag_id, old.run_id, "production.deploy")
    old.wait_for_task("production.deploy", "skipped")
    assert "superseded" in old.log("production.deploy")
    assert hello.served() == "second"


@pytest.mark.exhaustive
def test_many_are_closed_at_once(candidates: Candidates, airflow: RunningAirflow) -> None:
    *older, newest = candidates.commits(WAITING + 1)
    waiting = candidates.park(WAITING, older)
    (run,) = candidates.park(1, [newest])
    candidates.deploy(newest)
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for_task(HEALTH, timeout=120)
    wait_until(lambda: candidates.count("skipped") == WAITING, "all are closed", timeout=60)
    for closed in waiting:
        closed.wait_for("success", timeout=120)


@pytest.mark.exhaustive
def test_a_repository_that_is_gone_costs_the_release_nothing(
    candidates: Candidates, airflow: RunningAirflow
) -> None:
    older, newest = candidates.commits(2)
    (old,) = candidates.park(1, [older])
    (run,) = candidates.park(1, [newest])
    candidates.deploy(newest)
    shutil.rmtree(candidates.repository.bare)
    shutil.rmtree(airflow.home / "cd" / "git")
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for_task(HEALTH, timeout=120)
    assert "Cannot tell which waiting releases are superseded" in run.log(HEALTH)
    assert old.states()[APPROVE] == "awaiting_input"
