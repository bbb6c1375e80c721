"""Services to send through the running Airflow."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.airflow import RunningAirflow
from tests.integration.services import TestService

pytest.register_assert_rewrite("tests.integration.trapped")
from tests.integration.trapped import TrappedService  # noqa: E402


@pytest.fixture
def service(airflow: RunningAirflow, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make services: ``service("delivery", ...)`` is in Airflow when it returns."""
    yield from _makes(TestService, airflow, tmp_path, request)


@pytest.fixture
def trapped(airflow: RunningAirflow, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make services, as ``service`` does, whose tasks and processes can be held and killed."""
    yield from _makes(TrappedService, airflow, tmp_path, request)


def _makes(
    kind: type[TestService], airflow: RunningAirflow, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Any]:
    made: list[TestService] = []

    def make(pipeline: str = "delivery", **changes: Any) -> TestService:
        name = f"s{zlib.crc32(request.node.name.encode())}x{len(made)}"
        one = kind(airflow, name, pipeline, folder / name, **changes)
        made.append(one)
        return one

    yield make
    for one in made:
        one.remove()
