"""Services to send through the running Airflow."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.airflow import RunningAirflow
from tests.integration.services import TestService


@pytest.fixture
def service(airflow: RunningAirflow, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make services: ``service("name", pipeline="delivery", ...)`` is in Airflow when it returns."""
    made: list[TestService] = []

    def make(pipeline: str = "delivery", **changes: Any) -> TestService:
        name = f"s{zlib.crc32(request.node.name.encode())}x{len(made)}"
        one = TestService(airflow, name, pipeline, tmp_path / name, **changes)
        made.append(one)
        return one

    yield make
    for one in made:
        one.remove()
