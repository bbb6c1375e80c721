"""A rollout whose deployment is not there any more is aborted by ``rollback``, on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from tests.support.images import Registry
from tests.support.places import KubernetesPlace

from airflow_cd.model.release import Release
from airflow_cd.model.rollout import Phase
from airflow_cd.model.service import Service
from airflow_cd.operators.rollback import RollbackOperator
from airflow_cd.releases import notifications
from airflow_cd.targets.base import ProgressiveTarget

STEPS = {"canary": {"steps": [{"weight": 50}, {"pause": "approval"}]}}


class AsksPlace(KubernetesPlace):
    strategy = STEPS


@pytest.fixture
def place(
    tmp_path: Path, engine: Any, registry: Registry, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KubernetesPlace]:
    monkeypatch.setenv("AIRFLOW__CD__DATA_DIR", str(tmp_path / "airflow-data"))
    one = AsksPlace(tmp_path, engine, registry, namespace)
    one.deploy(one.release("one"))
    yield one
    one.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the notifications."""
    events: list[str] = []
    monkeypatch.setattr(
        notifications, "notify", lambda context, service, environment, event, *_: events.append(event)
    )
    return events


def begun(place: KubernetesPlace, release: Release, run_id: str, over: str | None = None) -> str:
    """Begin a rollout as the task ``deploy`` of a run does, and return its token."""
    target = place.target
    assert isinstance(target, ProgressiveTarget)
    expected, actor = target.record().generation, f"hello_deployment/{run_id}"
    record = target.begin(release, place.store, expected=expected, over=over, actor=actor)
    assert record.rollout is not None
    return record.rollout.token


def rollback(place: KubernetesPlace, run_id: str) -> dict[str, Any]:
    """Return what the task ``rollback`` of a run returns whose ``deploy`` failed."""
    service = Service.model_validate(
        {
            "name": place.service,
            "pipeline": "deployment",
            "source": {"repository": "https://git.example.com/hello"},
            "package": {"image": {"repository": place.repository}},
            "environments": [place.environment.model_dump()],
        }
    )
    operator = RollbackOperator(
        task_id="rollback", service=service, environment="production", health_task_id="health"
    )
    states = {run_id: {"health": "upstream_failed"}}
    ti = SimpleNamespace(xcom_pull=lambda task_ids: None, get_task_states=lambda **_: states)
    run = SimpleNamespace(
        dag_id="hello_deployment", run_id=run_id, run_type="manual", triggering_user_name="admin"
    )
    return operator.execute({"ti": ti, "dag_run": run})  # type: ignore[typeddict-item]


def test_what_was_left_behind_is_aborted_and_told(place: KubernetesPlace, told: list[str]) -> None:
    begun(place, place.release("two"), "run-1")
    assert rollback(place, "run-1")["version"] == "one"
    record = place.target.record()
    assert record.rollout is None and record.aborted is not None
    assert (place.served(), told) == ("one", ["aborted"])


def test_a_worker_killed_after_the_abort_is_made_up_for(place: KubernetesPlace, told: list[str]) -> None:
    token = begun(place, place.release("two"), "run-1")
    first = rollback(place, "run-1")
    told.clear()
    assert rollback(place, "run-1") == first, "its retry does not skip itself"
    aborted = place.target.record().aborted
    assert (aborted and aborted.token, told) == (token, ["aborted"])


def test_another_runs_rollout_is_left_alone(place: KubernetesPlace, told: list[str]) -> None:
    two, three = place.release("two"), place.release("three")
    first = begun(place, two, "run-1")
    theirs = begun(place, three, "run-2", over=first)
    with pytest.raises(AirflowSkipException, match="nothing to roll back"):
        rollback(place, "run-1")
    rollout = place.target.record().rollout
    assert (rollout and rollout.token, told) == (theirs, [])


def test_one_that_comes_in_between_is_left_alone(
    place: KubernetesPlace, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same digest once more, by another run, between this one's look and its abort."""
    two, three = place.release("two"), place.release("three")
    first = begun(place, two, "run-1")
    target, theirs = place.target, []
    abort = type(target).abort  # type: ignore[attr-defined]

    def late(self: Any, **how: Any) -> Any:
        between = begun(place, three, "run-2", over=first)
        theirs.append(begun(place, two, "run-3", over=between))
        return abort(self, **how)

    monkeypatch.setattr(type(target), "abort", late)
    with pytest.raises(AirflowSkipException, match="took its place"):
        rollback(place, "run-1")
    rollout = place.target.record().rollout
    assert rollout is not None and rollout.progress.phase is Phase.SHIFTING_TRAFFIC
    assert (rollout.token, told) == (theirs[0], [])
