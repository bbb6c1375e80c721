"""What is on board of a train, and what stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped
from tests.support.local_run import LocalRun, local_run

from airflow_cd.model.service import Service
from airflow_cd.releases.adapters import open_target
from airflow_cd.targets.record import Hold
from airflow_cd.trains.select import MarkReadyOperator, SelectReleaseOperator, ready_release


class Member:
    """A train's member: what its pipeline makes ready, and what a train would take."""

    def __init__(self, run: LocalRun) -> None:
        self._run, self.pushed = run, dict[str, Any]()
        self.service: Service = run.service().model_copy(update={"train": "nightly"})

    def commit(self, text: str) -> dict[str, Any]:
        return self._run.package(self.service, self._run.commit(text))

    def make_ready(self, ref: dict[str, Any], train: str = "board") -> None:
        self._run.xcoms["package"] = ref
        ready = MarkReadyOperator(task_id="ready", production_task_id="approve", service=self.service)
        ready.execute(self._context(train=train))

    def board(self, *hold: str) -> str:
        """Return the digest on board, or why there is none."""
        try:
            context = self._context(hold=list(hold))
            return str(
                SelectReleaseOperator(task_id="board", service=self.service).execute(context)["digest"]
            )
        except AirflowSkipException as skipped:
            assert self.pushed["absent"] == str(skipped)
            return str(skipped)

    def deploy(self, ref: dict[str, Any]) -> None:
        self._run.xcoms["package"] = ref
        self._run.deploy(self.service)

    def go_back(self, ref: dict[str, Any], hold: Hold | None = None) -> None:
        target = open_target(self.service, self.service.production)
        target.rollback(bad=ref["digest"], actor="x/y", reason="bad", hold=hold)

    def _context(self, **params: Any) -> Any:
        ti = SimpleNamespace(
            xcom_pull=lambda task_ids: self._run.xcoms.get(task_ids),
            xcom_push=lambda key, value: self.pushed.update({key: value}),
        )
        return {**self._run.context, "params": params, "ti": ti}


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Member]:
    with local_run(tmp_path, monkeypatch) as run:
        yield Member(run)


def make_ready(member: Member, ref: dict[str, Any]) -> None:
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        member.make_ready(ref)
    assert skipped.value.tasks == ["approve"]


def test_the_newest_that_was_made_ready_boards(member: Member) -> None:
    assert member.board() == "nothing is ready"
    first, second = member.commit("first"), member.commit("second")
    make_ready(member, second)
    make_ready(member, first)  # its pipeline was the slower one
    assert member.pushed["return_value"]["ready"] is False
    assert member.board() == second["digest"]
    make_ready(member, third := member.commit("third"))
    assert member.board() == third["digest"]
    assert member.board("other", member.service.name) == "held for this departure"


def test_a_hotfix_is_not_made_ready(member: Member) -> None:
    member.make_ready(member.commit("first"), train="bypass")
    assert ready_release(member.service) is None


def test_what_production_runs_already_or_is_ahead_of_stays_behind(member: Member) -> None:
    first, second = member.commit("first"), member.commit("second")
    make_ready(member, first)
    member.deploy(first)
    assert member.board() == f"nothing new: production runs {first['version']}"
    member.deploy(second)
    assert member.board() == f"production runs {second['version']}, which is newer"


def test_what_was_rolled_back_stays_behind_and_so_does_all_while_held(member: Member) -> None:
    first, second = member.commit("first"), member.commit("second")
    member.deploy(first)
    make_ready(member, second)
    member.deploy(second)
    member.go_back(second)
    assert member.board() == f"{second['version']} was rolled back in production"

    third = member.commit("third")
    member.deploy(third)
    member.go_back(third, hold=Hold(by="bob", since="2026-01-01T00:00:00Z", reason="prices"))
    make_ready(member, member.commit("fourth"))
    assert member.board() == "production is held since bob rolled it back"
