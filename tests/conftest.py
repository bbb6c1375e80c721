"""What all tests share: an Airflow home of their own, never the user's, and a running Airflow on request."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Before anything imports Airflow, which reads it once.
_HOME = tempfile.mkdtemp(prefix="cd-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
for name in [name for name in os.environ if name.startswith(("GIT_", "AIRFLOW_CONN_"))]:
    del os.environ[name]

# Fixtures, visible in all tests.
from tests.support.cluster import cluster, cluster_client, namespace  # noqa: E402, F401
from tests.support.engine import engine  # noqa: E402, F401
from tests.support.images import registry  # noqa: E402, F401
from tests.support.prometheus import prometheus  # noqa: E402, F401
from tests.support.running_airflow import airflow, airflow_is_whole  # noqa: E402, F401
from tests.support.small_disk import small_disk  # noqa: E402, F401

ROOT = Path(__file__).parents[1]


# These kill parts of Airflow, or fill it: they have an Airflow of their own.
_ROUGH = ("test_conflicts", "test_crashes", "test_night", "test_parked", "test_restarts", "test_rollback")
# In this order, so that the long ones begin first and no more than two Airflows are up at a time; with
# ``--no-loadscope-reorder``, pytest-xdist keeps it.
_GROUPS = ("celery", "airflow", "rough")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a running Airflow in one process."""
    for item in items:
        if item.get_closest_marker("scheduler") and not item.get_closest_marker("xdist_group"):
            group = "rough" if item.path.stem in _ROUGH else "airflow"
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    group = item.get_closest_marker("xdist_group")
    return _GROUPS.index(group.args[0]) if group else len(_GROUPS)
