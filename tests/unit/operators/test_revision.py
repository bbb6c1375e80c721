"""Which commit a run is about."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.model.service import Service
from airflow_cd.operators.build import choose_revision

A, B, C = "a" * 40, "b" * 40, "c" * 40
SERVICE = Service.model_validate(
    {
        "name": "hello",
        "pipeline": "delivery",
        "source": {"repository": "/srv/hello.git"},
        "environments": [{"name": "production", "target": {"local": {"command": ["app"], "port": 1}}}],
    }
)


@dataclass
class Branch:
    """A source whose branch moves."""

    sha: str
    strangers: tuple[str, ...] = ()

    def head(self, branch: str) -> str:
        return self.sha

    def is_on_branch(self, sha: str, branch: str) -> bool:
        return sha not in self.strangers


@dataclass
class Event:
    revision: str
    previous: str | None
    age: int
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.timestamp = datetime.now(timezone.utc) - timedelta(seconds=self.age)
        self.extra = {"from_trigger": True, "payload": {"revision": self.revision, "previous": self.previous}}


class Store(dict):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


def choose(context: Any, service: Service, branch: Any, wanted: str | None) -> tuple[str, str | None]:
    return choose_revision(context, service, branch, wanted, logging.getLogger("test"))  # type: ignore[arg-type]


def test_the_param_wins() -> None:
    assert choose({}, SERVICE, Branch(A), B) == (B, None)


@pytest.mark.parametrize(
    "wanted",
    [
        "main",
        "HEAD",
        "v1.0.0",
        "abc123",
        "-" * 40,
        "A" * 40,
        B + "0",
        B + "\0",
        "--upload-pack=x",
        "$(reboot)",
    ],
)
def test_only_a_full_sha_is_accepted(wanted: str) -> None:
    with pytest.raises(AirflowFailException, match="full commit SHA"):
        choose({}, SERVICE, Branch(A), wanted)


def test_of_several_pushes_the_newest_is_taken_and_the_oldest_start_kept() -> None:
    events = {"asset": [Event(C, B, age=1), Event(B, A, age=9)]}
    assert choose({"triggering_asset_events": events}, SERVICE, Branch("d" * 40), "") == (C, A)


def test_without_events_the_branch_decides_once() -> None:
    branch, store = Branch(A), Store()
    context = {"task_state_store": store}
    assert choose(context, SERVICE, branch, None) == (A, None)
    branch.sha = B
    assert choose(context, SERVICE, branch, None) == (A, None)


@pytest.mark.parametrize(
    "revision",
    ["--upload-pack=evil", "HEAD", "v1.0.0", "main", B[:8], B + "\n", "\0" * 40, "{{ 7 * 7 }}", "../x"],
)
def test_a_malformed_event_is_not_believed(revision: str) -> None:
    events = {"asset": [Event(revision, None, age=1)]}
    assert choose({"triggering_asset_events": events}, SERVICE, Branch(A), "") == (A, None)


ANY = Service.model_validate(
    {**SERVICE.model_dump(mode="json"), "source": {"repository": "/srv/hello.git", "revisions": "any"}}
)


def test_a_commit_that_is_not_on_the_branch_is_refused() -> None:
    branch = Branch(A, strangers=(B,))
    with pytest.raises(AirflowFailException, match=f"commit {B} is not on branch 'main'.*revisions: any"):
        choose({}, SERVICE, branch, B)
    with pytest.raises(AirflowFailException, match="not on branch"):
        choose({"triggering_asset_events": {"asset": [Event(B, A, age=1)]}}, SERVICE, branch, "")
    forged = Store(revision={"sha": B, "previous": A})  # users can write it over the REST API
    with pytest.raises(AirflowFailException, match="not on branch"):
        choose({"task_state_store": forged}, SERVICE, branch, "")
    assert choose({}, ANY, branch, B) == (B, None)


@pytest.mark.parametrize(
    "forged",
    [
        {"extra": {"from_rest_api": True, "from_trigger": True, "payload": {"revision": B}}},
        {"extra": {"payload": {"revision": B}}},
        {"extra": {"from_trigger": True, "payload": {"revision": B}}, "source_task_id": "mine"},
    ],
    ids=["rest", "unmarked", "outlet"],
)
def test_an_event_that_no_trigger_emitted_chooses_nothing(
    forged: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    event = SimpleNamespace(timestamp=datetime.now(timezone.utc), **forged)
    assert choose({"triggering_asset_events": {"asset": [event]}}, SERVICE, Branch(A), "") == (A, None)
    assert "An asset event is ignored" in caplog.text
