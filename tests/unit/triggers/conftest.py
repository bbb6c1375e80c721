"""Real repositories to watch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository
from tests.support.git_server import GitServer

from airflow_cd.triggers.git_heads import GitHeadTrigger


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path).running() as server:
        yield server


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store heads soon after their event: no triggerer has to collect it here."""
    monkeypatch.setattr(GitHeadTrigger, "handover_seconds", 0.0)
