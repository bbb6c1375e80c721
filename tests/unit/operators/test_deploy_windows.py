"""How long, and for what, the override of a closed window counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput, TaskDeferred
from tests.support.local_run import LocalRun, local_run

from airflow_cd.model.service import Service
from airflow_cd.operators.deploy import DeployOperator
from airflow_cd.releases import questions

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRun]:
    """A release is packaged. Questions show the text they are given."""
    monkeypatch.setattr(questions, "put_question", lambda _, about, **more: about)
    with local_run(tmp_path, monkeypatch) as one:
        one.package(one.service(), one.commit("one"))
        yield one


def frozen(run: LocalRun, **production: Any) -> Service:
    """Return the service, frozen from yesterday to tomorrow."""
    definition = run.service().model_dump(mode="json")
    definition["environments"][0].update({"window_approvers": ["carol"], **production})
    freeze = {"start": f"{NOW - DAY:%Y-%m-%d}", "end": f"{NOW + DAY:%Y-%m-%d %H:%M}", "reason": "the fair"}
    return Service.model_validate({**definition, "freezes": [freeze]})


def deploy(run: LocalRun, service: Service, *, by: str | None = None, **answer: Any) -> Any:
    """Run ``deploy``; with ``by``, as after the answer of this user."""
    operator = DeployOperator(task_id="deploy", service=service, environment="production")
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        id="x",
        dag_id="hello_deployment",
        run_id=run.run_id,
        task_id="deploy",
        xcom_pull=lambda task_ids: run.xcoms.get(task_ids),
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    context = {**run.context, "ti": ti}
    run.xcoms["pushed"] = pushed
    if by is None:
        return operator.execute(context)  # type: ignore[arg-type]
    event = {"chosen_options": ["Deploy now"], "responded_by_user": {"id": by, "name": by}}
    event["params_input"] = {"reason": "hotfix"}
    values = {
        **{key: run.xcoms["package"][key] for key in ("digest", "manifest")},
        "until": (NOW + DAY).isoformat(),
        **answer,
    }
    return operator.window_answered(context, event, **values)  # type: ignore[arg-type]


def test_it_parks_until_the_opening_and_says_why(run: LocalRun) -> None:
    with pytest.raises(TaskAwaitingInput) as parked:
        deploy(run, frozen(run))
    assert parked.value.timeout is not None and DAY / 2 < parked.value.timeout <= DAY
    assert run.xcoms["pushed"]["closed"]["reason"].endswith("the fair")


def test_an_override_is_for_the_reason_that_was_shown(run: LocalRun) -> None:
    """A freeze that is declared later is another reason."""
    service = frozen(run)
    with pytest.raises(TaskAwaitingInput) as parked:
        deploy(run, service)
    assert parked.value.kwargs is not None
    about = parked.value.kwargs["closed"]
    definition = service.model_dump(mode="json")
    definition["freezes"][0]["reason"] = "a vulnerability"
    with pytest.raises(TaskAwaitingInput):
        deploy(run, Service.model_validate(definition), by="carol", closed=about)
    deploy(run, service, by="carol", closed=about)
    assert run.served() == "one"


def test_the_answer_of_a_named_approver_lets_it_in_also_after_a_crash(run: LocalRun) -> None:
    service = frozen(run)
    broken = {**run.xcoms}
    run.blob(run.xcoms["package"]["digest"]).rename(run.data / "aside")
    with pytest.raises(Exception, match="sha256"):
        deploy(run, service, by="carol")
    assert run.record(service).current is None
    (run.data / "aside").rename(run.blob(broken["package"]["digest"]))
    deploy(run, service)  # the retry: nobody is asked again
    current = run.record(service).current
    assert current is not None and current.approval == "window override by carol: hotfix"


@pytest.mark.parametrize(
    ("by", "answer"),
    [
        ("eve", {}),
        ("carol", {"manifest": "sha256:" + "0" * 64}),
        ("carol", {"until": (NOW - DAY).isoformat()}),
    ],
)
def test_no_other_answer_does(run: LocalRun, by: str, answer: dict[str, Any]) -> None:
    service = frozen(run)
    with pytest.raises(TaskAwaitingInput):
        deploy(run, service, by=by, **answer)
    assert run.record(service).current is None


def test_who_is_no_approver_any_more_has_not_overridden(run: LocalRun) -> None:
    service = frozen(run)
    run.blob(run.xcoms["package"]["digest"]).rename(run.data / "aside")
    with pytest.raises(Exception, match="sha256"):
        deploy(run, service, by="carol")
    with pytest.raises(TaskAwaitingInput):
        deploy(run, frozen(run, window_approvers=["dave"]))


def test_an_answer_in_a_run_does_not_count_in_another(run: LocalRun) -> None:
    deploy(run, frozen(run), by="carol")
    run.package(run.service(), run.commit("two"))
    run.run_id = "manual__2"
    with pytest.raises(TaskAwaitingInput):
        deploy(run, frozen(run))
    assert run.served() == "one"


def test_where_nobody_may_override_it_waits_in_the_triggerer_or_fails(run: LocalRun) -> None:
    with pytest.raises(TaskDeferred):
        deploy(run, frozen(run, window_approvers=[]))
    with pytest.raises(AirflowFailException, match="the fair; it opens at"):
        deploy(run, frozen(run, window_approvers=[], when_closed="fail"))
    with pytest.raises(ValueError, match="none waits; remove one of them"):
        frozen(run, when_closed="fail")
