"""A store with something to collect."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.garbage import Garbage


@pytest.fixture
def garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Garbage:
    return Garbage(tmp_path, monkeypatch)
