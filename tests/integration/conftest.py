"""Services to send through the running Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from tests.integration.mailing import mails  # noqa: F401
from tests.integration.services import TestService, made

pytest.register_assert_rewrite("tests.integration.trapped")
from tests.integration.trapped import TrappedService  # noqa: E402


@pytest.fixture
def service(airflow: RunningAirflow, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make services: ``service("delivery", ...)`` is in Airflow when it returns."""
    with made(TestService, airflow, tmp_path, request.node.name) as make:
        yield make


@pytest.fixture
def trapped(airflow: RunningAirflow, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make services, as ``service`` does, whose tasks and processes can be held and killed."""
    with made(TrappedService, airflow, tmp_path, request.node.name) as make:
        yield make
