"""One running Airflow for all tests of a process, and services to send through it."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo.airflow import RunningAirflow
from tests.integration.services import TestService

from airflow_cd.targets.local.target import root_of, shutdown

TEMPLATE = Path(tempfile.gettempdir()) / "airflow-cd-test-template.db"


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAirflow]:
    """A running Airflow whose DAG folder is filled by the tests."""
    home = tmp_path_factory.mktemp("airflow")
    users = {"admin": "admin", "alice": "user", "bob": "user", "eve": "user"}
    # Fewer slots than there are waiting tasks in any test: waiting must not take one.
    running = RunningAirflow(
        home, users=users, template=TEMPLATE, extra_config={"AIRFLOW__CORE__PARALLELISM": "4"}
    )
    try:
        with running:
            yield running
    finally:
        shutdown(root_of(home / "cd"))


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
