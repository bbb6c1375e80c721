"""Who is notified, once, and what a notifier that misbehaves does to the task: nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from airflow.sdk import BaseNotifier

from airflow_cd.model.service import Service
from airflow_cd.model.train import Train
from airflow_cd.releases import notifications
from airflow_cd.releases.notifications import notify, notify_of_train

told: list[str] = []
release = threading.Event()


class Recorder(BaseNotifier):
    template_fields = ("text",)

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text = text

    def notify(self, context: Any) -> None:
        told.append(self.text)


class Hanging(BaseNotifier):
    def notify(self, context: Any) -> None:
        release.wait()


class Store(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.fixture
def context() -> Any:
    told.clear()
    return {"task_state_store": Store()}


def service(*entries: dict[str, Any]) -> Service:
    environment = {"name": "production", "target": {"local": {"command": ["app"], "port": 8999}}}
    values = {"name": "hello", "pipeline": "deployment", "source": {"repository": "/srv/hello.git"}}
    return Service.model_validate({**values, "environments": [environment], "notify": list(entries)})


def entry(notifier: str, text: str | None = None, **more: Any) -> dict[str, Any]:
    kwargs = {} if text is None else {"text": text}
    return {"events": ["deployed"], "notifier": f"{__name__}.{notifier}", "kwargs": kwargs, **more}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest's importlib mode this module is not found by its name; notifiers are."""
    monkeypatch.setattr("pkgutil.resolve_name", lambda path: globals()[path.rpartition(".")[2]])


def test_only_who_wants_to_know_is_told_and_only_once(context: Any) -> None:
    hello = service(
        entry("Recorder", "{{ cd.service }} {{ cd.version }} in {{ cd.environment }}"),
        entry("Recorder", "staging", environments=["staging"]),
        entry("Recorder", "rollback", events=["rolled_back"]),
    )
    for key in ("1", "1", "2"):
        notify(context, hello, "production", "deployed", key, {"version": f"v{key}"})
    assert told == ["hello v1 in production", "hello v2 in production"]


def test_a_train_tells_of_itself(context: Any) -> None:
    text = "{{ cd.event }} {{ cd.train }} {{ cd.on_board.hello }}"
    nightly = Train.model_validate(
        {
            **{"name": "nightly", "schedule": "0 2 * * *"},
            "notify": [entry("Recorder", text, events=["train_departed"])],
        }
    )
    for _ in range(2):
        notify_of_train(context, nightly, "train_departed", "1", {"on_board": {"hello": "1.0"}})
    notify_of_train(context, nightly, "train_arrived", "1", {})
    assert told == ["train_departed nightly 1.0"]


def test_what_a_commit_says_is_no_template(context: Any) -> None:
    facts = {"subject": "{{ conn.secret.password }}"}
    notify(context, service(entry("Recorder", "{{ cd.subject }}")), "production", "deployed", "1", facts)
    assert told == ["{{ conn.secret.password }}"]


@pytest.mark.timeout(60)
def test_one_that_hangs_is_left_behind(context: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(notifications, "_LONGEST_SECONDS", 0.1)
    notify(context, service(entry("Hanging"), entry("Recorder", "next")), "production", "deployed", "1", {})
    release.set()
    assert told == ["next"]
    assert "did not come to an end within 0.1 s" in caplog.text


@pytest.mark.parametrize("wrong", [{"notifier": "os; rm"}, {"events": []}, {"kwargs": {"context": {}}}])
def test_senseless_entries_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="notifier|events|context"):
        service({**entry("Recorder", "x"), **wrong})
