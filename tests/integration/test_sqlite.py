"""An API server on SQLite, asked to write by several people at once; see ``docs/sqlite.md``."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.airflow import RunningAirflow
from tests.support.databases import database_template

PEOPLE, WRITES = 6, 5


@pytest.fixture(scope="module")
def api_server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[RunningAirflow]:
    """An API server alone: what is tested needs no scheduler."""
    template = database_template(pytestconfig.rootpath)
    airflow = RunningAirflow(tmp_path_factory.mktemp("sqlite"), template=template)
    airflow.prepare()
    try:
        airflow.components["api-server"].start()
        airflow.wait_until_healthy(only="api-server")
        yield airflow
    finally:
        airflow.stop()


def test_people_who_write_at_the_same_time_are_all_answered(api_server: RunningAirflow) -> None:
    """Without its middleware, the server stands still until SQLite's busy timeout of 60 s, and fails some."""

    def write(person: int) -> None:
        api = api_server.new_session("admin")
        try:
            for number in range(WRITES):
                api.request("POST", "/api/v2/variables", json={"key": f"{person}-{number}", "value": "v"})
                api.request(
                    "PATCH",
                    f"/api/v2/variables/{person}-{number}",
                    json={"key": f"{person}-{number}", "value": "w"},
                )
        finally:
            api.close()

    with ThreadPoolExecutor(PEOPLE) as pool:
        for done in [pool.submit(write, person) for person in range(PEOPLE)]:
            done.result()
    assert len(api_server.api.rows("/variables", "variables")) == PEOPLE * WRITES
