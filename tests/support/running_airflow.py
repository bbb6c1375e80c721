"""One running Airflow for all tests of a process that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from tests.support.databases import database_template, metadata_database

from airflow_cd.targets.local.target import root_of, shutdown

# Each look is work for the API server, which has the same cores as what is waited for.
Run.look_every = 0.4
Run.patience = 3.0
_SETTINGS = {
    # Files that the tests change are parsed at once: they touch the DAG file. For others there is no hurry,
    # and parsing takes from the cores that the tests beside it need.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
    # A look round takes the scheduler and its database some 40 ms: at 0.1 s that is a third of a core for an
    # Airflow that waits, which the tests beside it can use.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
    # Fewer slots than there are waiting tasks in any test: waiting must not take one.
    "AIRFLOW__CORE__PARALLELISM": "4",
    # What was killed is missed within seconds. (Supervisors of tasks report every second.)
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "8",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}
_SHARED = pytest.StashKey[RunningAirflow]()
_USERS = {"admin": "admin", "alice": "user", "bob": "user", "eve": "user", "Bob": "user"}


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[RunningAirflow]:
    """A running Airflow whose DAG folder is filled by the tests."""
    home = tmp_path_factory.mktemp("airflow")
    template = database_template(pytestconfig.rootpath)
    try:
        with (
            metadata_database() as url,
            RunningAirflow(
                home, users=_USERS, template=template, extra_config=_SETTINGS, sql_alchemy_conn=url
            ) as running,
        ):
            pytestconfig.stash[_SHARED] = running
            yield running
    finally:
        shutdown(root_of(home / "cd"))


@pytest.fixture(autouse=True)
def airflow_is_whole(request: pytest.FixtureRequest) -> None:
    """Say at once, and with its log, what died in an earlier test, instead of waiting for it in vain."""
    if request.node.get_closest_marker("scheduler") and "airflow" in request.fixturenames:
        running: RunningAirflow = request.getfixturevalue("airflow")
        # Seen once with Airflow 3.3.2, and like https://github.com/apache/airflow/issues/42105: what it had
        # just written was not there any more. An operator's supervisor starts it again, and so does this.
        processor = running.components["dag-processor"]
        if processor.exit_code is not None and "StaleDataError" in processor.tail():
            running.restart("dag-processor")
        running.expect_alive()


def uses_airflow(item: pytest.Item) -> bool:
    """Return whether a test needs the running Airflow, and is not skipped."""
    return "airflow" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("skip")


def resume_airflow(config: pytest.Config) -> None:
    """Start the running Airflow again, if it rests."""
    running = config.stash.get(_SHARED, None)
    if running is not None and running.components["scheduler"].pid is None:
        running.start()


def rest_airflow(config: pytest.Config) -> None:
    """Stop the running Airflow: also one that has nothing to do takes a quarter of a core from others."""
    if (running := config.stash.get(_SHARED, None)) is not None:
        running.stop()
