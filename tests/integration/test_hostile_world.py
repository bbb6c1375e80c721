"""A world that fails: history rewritten, a git host that is gone, a disk that is full."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.airflow import RunningAirflow
from tests.integration.deciding import APPROVE, answer, parked
from tests.integration.services import TestService
from tests.integration.test_rollback import roll_back
from tests.support.small_disk import mounted

pytestmark = [pytest.mark.scheduler, pytest.mark.exhaustive]

MakeService = Callable[..., TestService]


def test_history_may_be_rewritten_and_the_git_host_may_vanish(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service()
    first = parked(hello.run())
    first.mark(APPROVE, "success")
    candidate_sha = hello.commit("second")
    candidate = parked(hello.run())
    first.wait_for("success")

    # The candidate's commit is force-pushed away, and this machine's mirror is lost.
    hello.repository.git("reset", "-q", "--hard", "HEAD~1")
    hello.commit("instead")
    hello.repository.forget(candidate_sha)
    shutil.rmtree(airflow.home / "cd" / "git")
    answer(candidate, "Approve", airflow.as_user("bob"))
    candidate.wait_for("success")
    # The release is in the store, and the approval is for its digest.
    assert hello.served() == "second"
    current = hello.record().current
    assert current is not None and current.approval == "approved by bob"
    log = candidate.log("production.deploy")
    assert "Cannot tell whether" in log
    assert f"has no commit {candidate_sha}" in log

    # Nobody needs git to go back.
    away = Path(f"{hello.repository.bare}.away")
    hello.repository.bare.rename(away)
    shutil.rmtree(airflow.home / "cd" / "git")
    roll_back(hello).wait_for("success")
    assert hello.served() == "first"

    # A run that meets the outage goes on when the host is back.
    run = hello.run()
    run.wait_for_task("build", "up_for_retry")
    assert "git" in run.log("build", 1)
    away.rename(hello.repository.bare)
    run.wait_for_task("package", timeout=120)


def test_a_full_disk_is_said_and_the_retry_succeeds_once_there_is_room(
    service: MakeService, tmp_path: Path
) -> None:
    with mounted(tmp_path / "small", "2m") as disk:
        store = disk.path / "artifacts"
        hello = service("deployment", artifacts=store.as_uri())
        disk.fill()
        run = hello.run()
        run.wait_for_task("build", "up_for_retry")
        log = run.log("build", 1)
        assert "the disk is full" in log
        assert store.as_uri() in log
        assert "make room there" in log
        assert disk.files() == set()
        disk.make_room()
        run.wait_for("success")
        assert hello.served() == "first"
