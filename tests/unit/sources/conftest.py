"""Real repositories for the tests of sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository
from tests.support.git_server import GitServer


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    """Return a repository without commits."""
    (tmp_path / "remote").mkdir()
    return GitRepository(tmp_path / "remote")


@pytest.fixture
def server(repository: GitRepository) -> Iterator[GitServer]:
    """Serve the repository over HTTP as ``<url>/origin.git``."""
    with GitServer(repository.bare.parent).running() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the folder for mirrors, which does not exist yet."""
    return tmp_path / "cache" / "git"
