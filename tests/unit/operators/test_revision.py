"""Which commit a run is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
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

    def head(self, branch: str) -> str:
        return self.sha


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


def test_the_param_wins() -> None:
    assert choose_revision({}, SERVICE, Branch(A), B) == (B, None)  # type: ignore[arg-type]


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
        choose_revision({}, SERVICE, Branch(A), wanted)  # type: ignore[arg-type]


def test_of_several_pushes_the_newest_is_taken_and_the_oldest_start_kept() -> None:
    events = {"asset": [Event(C, B, age=1), Event(B, A, age=9)]}
    assert choose_revision({"triggering_asset_events": events}, SERVICE, Branch("d" * 40), "") == (C, A)  # type: ignore[arg-type]


def test_without_events_the_branch_decides_once() -> None:
    branch, store = Branch(A), Store()
    context = {"task_state_store": store}
    assert choose_revision(context, SERVICE, branch, None) == (A, None)  # type: ignore[arg-type]
    branch.sha = B
    assert choose_revision(context, SERVICE, branch, None) == (A, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "revision",
    ["--upload-pack=evil", "HEAD", "v1.0.0", "main", B[:8], B + "\n", "\0" * 40, "{{ 7 * 7 }}", "../x"],
)
def test_a_malformed_event_is_not_believed(revision: str) -> None:
    events = {"asset": [Event(revision, None, age=1)]}
    assert choose_revision({"triggering_asset_events": events}, SERVICE, Branch(A), "") == (A, None)  # type: ignore[arg-type]
