"""What a health check leaves to its rollback, also when a worker dies between the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped
from tests.support.local_run import LocalRun, local_run

from airflow_cd.sensors.health import HealthCheckSensor


class Watched:
    """A deployed release whose health a file decides, and the tries of the task that watches it."""

    def __init__(self, run: LocalRun, sick: Path) -> None:
        self._run, self._sick = run, sick
        check = {"command": ["test", "!", "-e", str(sick)], "interval": "100ms", "failures": 1}
        self._service = run.service(health=[check])
        run.package(self._service, run.commit("first"))
        self._run.xcoms["deploy"] = run.deploy(self._service)
        self._kept: dict[str, Any] = {}
        self.ti: Any = SimpleNamespace(
            try_number=1,
            max_tries=2,
            xcom_pull=lambda task_ids: run.xcoms.get(task_ids),
            xcom_push=lambda key, value: run.xcoms.update(health=value),
        )

    def be_sick(self) -> None:
        self._sick.touch()

    def judge(self, rollback: str | None = "production.rollback") -> dict[str, Any]:
        sensor = HealthCheckSensor(
            task_id="health",
            service=self._service,
            environment="production",
            deploy_task_id="deploy",
            rollback_task_id=rollback,
        )
        store = SimpleNamespace(get=self._kept.get, set=self._kept.__setitem__)
        return sensor.execute({**self._run.context, "ti": self.ti, "task_state_store": store})  # type: ignore[typeddict-item]

    @property
    def verdict(self) -> dict[str, Any]:
        return dict(self._run.xcoms["health"])


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with local_run(tmp_path, monkeypatch) as run:
        yield Watched(run, tmp_path / "sick")


def test_a_healthy_release_has_its_rollback_skipped(watched: Watched) -> None:
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        watched.judge()
    assert skipped.value.tasks == ["production.rollback"]
    assert watched.verdict["healthy"] is True
    assert [verdict["healthy"] for verdict in watched.verdict["verdicts"].values()] == [True]


def test_where_nothing_is_rolled_back_nothing_is_skipped(watched: Watched) -> None:
    assert watched.judge(rollback=None)["healthy"] is True


def test_an_unhealthy_one_has_not(watched: Watched) -> None:
    watched.be_sick()
    with pytest.raises(AirflowFailException, match="is unhealthy in production"):
        watched.judge()
    assert watched.verdict["healthy"] is False


def test_the_verdict_that_skipped_the_rollback_stands_for_the_next_try(watched: Watched) -> None:
    """It was killed when the rollback was skipped already: an unhealthy one would stay for want of it."""
    with pytest.raises(DownstreamTasksSkipped):
        watched.judge()
    first = watched.verdict
    watched.be_sick()
    watched.ti.try_number = 2
    with pytest.raises(DownstreamTasksSkipped):
        watched.judge()
    assert watched.verdict == first


def test_who_clears_the_task_has_it_judged_anew(watched: Watched) -> None:
    with pytest.raises(DownstreamTasksSkipped):
        watched.judge()
    watched.be_sick()
    watched.ti.try_number, watched.ti.max_tries = 2, 3  # as Airflow counts after a clear of the first try
    with pytest.raises(AirflowFailException, match="is unhealthy in production"):
        watched.judge()
