"""Continuous deployment on a running Airflow: what is wrong stops, what was right comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.services import TestService

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]


def test_a_commit_reaches_production_by_itself(service: MakeService) -> None:
    shout = service("deployment")
    run = shout.run()
    run.wait_for("success")
    assert (shout.served("staging"), shout.served()) == ("first", "first")
    assert "production.approve" not in run.states()
    assert run.xcom("test")["total"] == 1


def test_a_push_starts_a_run_that_says_which_commits_it_takes(service: MakeService) -> None:
    shout = service("deployment")
    shout.watch(poll_interval="200ms")
    Run.of_commit(shout.airflow.api, shout.dag_id, shout.head).wait_for("success")
    sha = shout.commit("pushed")
    run = Run.of_commit(shout.airflow.api, shout.dag_id, sha)
    run.wait_for("success")
    assert shout.served() == "pushed"
    event = shout.airflow.api.triggering_events(shout.dag_id, run.run_id)[0]["extra"]["payload"]
    assert [commit["subject"] for commit in event["commits"]] == ["say pushed"]
    assert "say pushed (Ada)" in run.log("build")


def test_a_failing_test_stops_the_pipeline_and_is_named(service: MakeService) -> None:
    shout = service("deployment")
    run = shout.run(shout.commit("broken", tests_pass=False))
    run.wait_for("failed")
    states = run.states()
    assert (states["test"], states["package"]) == ("failed", "upstream_failed")
    assert "1 of 2 tests failed: t::bad" in run.log("test")
    assert run.xcom("test")["failures"] == ["t::bad"]
    assert shout.record("staging").current is None


def test_an_unhealthy_staging_stops_before_production(service: MakeService) -> None:
    shout = service("deployment")
    run = shout.run(shout.commit("sick", sick_in="staging"))
    run.wait_for("failed")
    states = run.states()
    assert (states["staging.health"], states["production.deploy"]) == ("failed", "upstream_failed")
    assert "HTTP 503, expected 200" in run.log("staging.health")
    assert run.xcom("staging.health")["healthy"] is False
    assert shout.record().current is None


def test_an_unhealthy_production_is_rolled_back_and_the_run_fails(service: MakeService) -> None:
    shout = service("deployment")
    shout.run().wait_for("success")
    good = shout.record().current
    bad = shout.run(shout.commit("sick", sick_in="production"))
    bad.wait_for("failed")

    states = bad.states()
    assert (states["production.health"], states["production.rollback"]) == ("failed", "success")
    assert bad.xcom("production.rollback")["verified"] is True
    assert shout.served() == "first"
    record = shout.record()
    assert record.current is not None and good is not None
    assert record.current.release == good.release
    assert record.current.rolled_back_from == bad.xcom("production.deploy")["digest"]

    # The mended commit goes out as usual.
    shout.run(shout.commit("mended")).wait_for("success")
    assert shout.served() == "mended"


def test_a_first_release_that_is_unhealthy_fails_loudly(service: MakeService) -> None:
    shout = service("deployment")
    run = shout.run(shout.commit("sick", sick_in="production"))
    run.wait_for("failed")
    assert run.states()["production.rollback"] == "failed"
    assert "to go back to" in run.log("production.rollback")


def test_a_cleared_run_reuses_the_build_and_deploys_nothing_twice(
    service: MakeService, airflow: RunningAirflow
) -> None:
    shout = service("deployment")
    run = shout.run()
    run.wait_for("success")
    digest, generation = run.xcom("package")["digest"], shout.record().generation
    airflow.api.clear(shout.dag_id, run.run_id, "build", downstream=True)
    wait_until(lambda: run.state != "success", "the run starts again", timeout=60)
    run.wait_for("success")
    assert run.xcom("build")["reused"] is True
    assert run.xcom("package")["digest"] == digest
    assert shout.record().generation == generation


def test_two_commits_at_once_end_with_the_newer_one(service: MakeService) -> None:
    shout = service("deployment")
    older, newer = shout.head, shout.commit("newer")
    runs = [shout.run(older), shout.run(newer)]
    for run in runs:
        wait_until(
            lambda run=run: run.state in ("success", "failed"),  # type: ignore[misc]
            "the run ends",
            timeout=120,
            explain=run.explain,
        )
    assert runs[1].state == "success", runs[1].explain()
    assert shout.served() == "newer"


def test_a_revision_that_is_not_a_full_sha_is_refused(service: MakeService) -> None:
    shout = service("deployment")
    with pytest.raises(Exception, match="revision|400|422"):
        Run.triggered(shout.airflow.api, shout.dag_id, {"revision": "main; reboot"})


def test_a_broken_service_is_shown_and_the_others_run(service: MakeService) -> None:
    shout = service("deployment")
    shout.add_broken_neighbour()
    errors = wait_until(shout.airflow.api.import_errors, "the error is shown", timeout=60)
    assert any("neighbour" in error["stack_trace"] and "buld" in error["stack_trace"] for error in errors)
    assert {error["filename"] for error in errors} == {f"{shout.name}.yaml"}
    shout.run().wait_for("success")
    assert shout.served() == "first"
