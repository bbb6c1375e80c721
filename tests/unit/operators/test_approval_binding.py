"""An approval is of one release manifest: what an XCom says meanwhile changes neither question nor answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput
from airflow.sdk.execution_time import task_runner
from tests.support.local_run import LocalRun, local_run
from tests.support.signing_keys import connect, new_key, private_pem

from airflow_cd.exceptions import ArtifactError
from airflow_cd.model.service import Service
from airflow_cd.operators.deploy import DeployOperator
from airflow_cd.sensors.approval import ApprovalSensor
from airflow_cd.stores.filesystem import FilesystemStore

AUTHOR = "ada"


class Questions:
    """What Airflow keeps: the first question of a task."""

    def __init__(self) -> None:
        self.first: Any = None

    def send(self, payload: Any) -> Any:
        self.first = self.first or payload
        return self.first


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    kept = Questions()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", kept, raising=False)
    return kept


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, questions: Questions) -> Iterator[LocalRun]:
    with local_run(tmp_path, monkeypatch) as one:
        one.package(delivered(one), one.commit("one"))
        yield one


def delivered(run: LocalRun, signing: str | None = None, **production: Any) -> Service:
    """Return the service with an approval before production."""
    definition = run.service(signing).model_dump(mode="json")
    approval = {"self_approval": False, "override": "deny"}
    definition["environments"][0].update({"approval": approval, **production})
    return Service.model_validate({**definition, "pipeline": "delivery"})


def context_of(run: LocalRun) -> Any:
    ti = SimpleNamespace(
        id="0195d1f3-0000-7000-8000-000000000000",
        dag_id="hello_delivery",
        run_id=run.run_id,
        task_id="approve",
        xcom_pull=lambda task_ids, key="return_value": run.xcoms.get(task_ids),
        xcom_push=lambda key, value: None,
    )
    return {**run.context, "ti": ti}


def ask(run: LocalRun, service: Service) -> dict[str, Any]:
    """Ask for an approval, and return what Airflow resumes the task with."""
    sensor = ApprovalSensor(task_id="approve", service=service, environment="production")
    with pytest.raises(TaskAwaitingInput) as parked:
        sensor.execute(context_of(run))
    return dict(parked.value.kwargs or {})


def approve(run: LocalRun, service: Service, asked: dict[str, Any], by: str) -> Any:
    sensor = ApprovalSensor(task_id="approve", service=service, environment="production")
    event = {
        "chosen_options": ["Approve"],
        "responded_by_user": {"id": by, "name": by},
        "responded_at": "2026-01-02T00:00:00Z",
        "params_input": {},
    }
    return sensor.execute_complete(context_of(run), event, **asked)


def deploy(run: LocalRun, service: Service) -> Any:
    operator = DeployOperator(
        task_id="deploy", service=service, environment="production", approval_task_id="approve"
    )
    return operator.execute(context_of(run))


def forged(run: LocalRun, store: FilesystemStore, **changes: Any) -> dict[str, Any]:
    """Store a manifest about the same digest that says something else, and return a reference to it."""
    manifest = json.loads(run.store.get_bytes(run.xcoms["package"]["manifest"]))
    manifest.update(changes)
    if "revision" not in changes:
        manifest["revision"]["author_email"] = "mallory@elsewhere.example"
    return {
        **run.xcoms["package"],
        "manifest": store.put_bytes(json.dumps(manifest).encode()),
        "store": store.url,
    }


def test_what_was_shown_is_deployed(run: LocalRun) -> None:
    service = delivered(run)
    approve(run, service, ask(run, service), "bob")
    deploy(run, service)
    current = run.record(service).current
    assert run.served() == "one" and current is not None and current.approval == "approved by bob"


def test_a_manifest_in_another_store_is_never_read(run: LocalRun, tmp_path: Path) -> None:
    service = delivered(run)
    run.xcoms["package"] = forged(run, FilesystemStore((tmp_path / "elsewhere").as_uri()))
    sensor = ApprovalSensor(task_id="approve", service=service, environment="production")
    with pytest.raises(ArtifactError, match="the manifest of hello"):
        sensor.execute(context_of(run))


def test_a_manifest_that_is_swapped_while_the_approver_reads_is_not_approved(run: LocalRun) -> None:
    service = delivered(run)
    true = run.xcoms["package"]
    asked = ask(run, service)
    run.xcoms["package"] = forged(run, run.store)
    with pytest.raises(AirflowFailException, match="by now"):
        approve(run, service, asked, "bob")
    run.xcoms["package"] = true
    with pytest.raises(AirflowFailException, match="override: deny"):
        deploy(run, service)
    assert run.record(service).current is None


def test_a_forged_manifest_that_was_approved_does_not_let_the_true_one_in(run: LocalRun) -> None:
    """The author swaps the manifest for one that names another author, approves it, and swaps it back."""
    service = delivered(run)
    true = run.xcoms["package"]
    run.xcoms["package"] = forged(run, run.store)
    asked = ask(run, service)
    with pytest.raises(TaskAwaitingInput):  # git names the author, whatever the manifest says
        approve(run, service, asked, AUTHOR)
    approve(run, service, asked, "bob")
    run.xcoms["package"] = true
    with pytest.raises(AirflowFailException, match="the approval was given for manifest sha256:"):
        deploy(run, service)
    assert run.record(service).current is None


def test_a_manifest_that_is_swapped_after_the_approval_is_refused(run: LocalRun) -> None:
    """As with Kubernetes objects, which the manifest names: the image's digest stays the same."""
    service = delivered(run)
    approve(run, service, ask(run, service), "bob")
    run.xcoms["package"] = forged(run, run.store, manifests={"production": "sha256:" + "e" * 64})
    with pytest.raises(AirflowFailException, match="the approval was given for manifest sha256:"):
        deploy(run, service)
    assert run.record(service).current is None


def test_the_question_of_another_manifest_is_not_asked_again(run: LocalRun) -> None:
    """Airflow goes on showing the first question of a task, whose text looks the same here."""
    service = delivered(run)
    ask(run, service)
    run.xcoms["package"] = forged(run, run.store)
    sensor = ApprovalSensor(task_id="approve", service=service, environment="production")
    with pytest.raises(AirflowFailException, match="still shows the question about"):
        sensor.execute(context_of(run))


def test_a_release_of_another_service_is_refused(run: LocalRun) -> None:
    service = delivered(run)
    run.xcoms["package"] = {**forged(run, run.store, service="other"), "service": "other"}
    sensor = ApprovalSensor(task_id="approve", service=service, environment="production")
    with pytest.raises(ArtifactError, match="is about other"):
        sensor.execute(context_of(run))


def test_nobody_is_asked_about_a_release_whose_signature_is_missing(
    run: LocalRun, monkeypatch: pytest.MonkeyPatch, questions: Questions
) -> None:
    connect(monkeypatch, "ours", private_key=private_pem(new_key()))
    demanding = delivered(run, "ours", verify={"conn_ids": ["ours"]})
    sensor = ApprovalSensor(task_id="approve", service=demanding, environment="production")
    with pytest.raises(AirflowFailException, match="is not signed"):
        sensor.execute(context_of(run))
    assert questions.first is None
