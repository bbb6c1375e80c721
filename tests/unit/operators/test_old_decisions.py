"""What a person started long ago does not count against what a person decided since."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput
from tests.support.local_run import LocalRun, local_run
from tests.unit.operators.test_approval_binding import (
    Questions,
    approve,
    ask,
    delivered,
    deploy,
    questions,
    run,
)

from airflow_cd.model.service import Service
from airflow_cd.releases.adapters import open_target
from airflow_cd.targets.record import Hold

__all__ = ["questions", "run"]


def held(run: LocalRun) -> tuple[Service, Hold]:
    """Roll the second release back to the first, by hand, and package a third one."""
    service = run.service()
    for text in ("one", "two"):
        run.package(service, run.commit(text))
        run.deploy(service)
    bad = run.record(service).current
    assert bad is not None
    hold = Hold(by="carol", since=datetime.now(timezone.utc), reason="CVE")
    open_target(service, service.production).rollback(bad=bad.release.digest, actor="carol", hold=hold)
    run.package(service, run.commit("three"))
    return service, hold


def test_a_manual_run_of_january_does_not_lift_a_hold_of_june(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_run(tmp_path, monkeypatch) as run:
        service, hold = held(run)
        run.run_after = hold.since - timedelta(days=150)
        with pytest.raises(AirflowSkipException, match="held since carol"):
            run.deploy(service)
        assert run.served() == "one"
        run.run_after = None  # triggered now
        run.deploy(service)
        assert run.served() == "three"


def test_a_program_that_triggers_a_run_does_not_lift_a_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of `LocalRun` is triggered by admin."""
    with local_run(tmp_path, monkeypatch) as run:
        service, _ = held(run)
        monkeypatch.setenv("AIRFLOW__CD__MACHINE_USERS", "backstage, Admin")
        with pytest.raises(AirflowSkipException, match="held since carol"):
            run.deploy(service)
        monkeypatch.setenv("AIRFLOW__CD__MACHINE_USERS", "backstage")
        run.deploy(service)
        assert run.served() == "three"


def test_a_programs_answer_is_no_approval_unless_it_is_listed(
    run: LocalRun, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CD__MACHINE_USERS", "ci-bot")
    service = delivered(run)
    asked = ask(run, service)
    with pytest.raises(TaskAwaitingInput):
        approve(run, service, asked, "ci-bot")
    with pytest.raises(AirflowFailException, match="override: deny"):
        deploy(run, service)
    listed = delivered(run, approval={"approvers": ["ci-bot"], "override": "deny"})
    approve(run, listed, asked, "ci-bot")
    deploy(run, listed)
    assert run.served() == "one"


def test_a_run_made_again_under_the_same_id_inherits_no_decision(run: LocalRun, questions: Questions) -> None:
    service = delivered(run)
    approve(run, service, ask(run, service), "zoe")
    # The run was deleted, and another one of its id triggered in an hour.
    run.run_after = datetime.now(timezone.utc) + timedelta(hours=1)
    with pytest.raises(AirflowFailException, match="override: deny"):
        deploy(run, service)
    assert run.record(service).current is None
