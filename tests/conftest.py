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
from tests.support.cluster import (  # noqa: E402, F401
    WAIT_SECONDS,
    cluster,
    cluster_client,
    cluster_is_up,
    namespace,
)
from tests.support.engine import engine  # noqa: E402, F401
from tests.support.httproutes import http_routes  # noqa: E402, F401
from tests.support.images import registry  # noqa: E402, F401
from tests.support.prometheus import prometheus  # noqa: E402, F401
from tests.support.running_airflow import airflow, airflow_is_whole  # noqa: E402, F401
from tests.support.small_disk import small_disk  # noqa: E402, F401

ROOT = Path(__file__).parents[1]


# These kill parts of Airflow, or fill it: they have an Airflow of their own. No more than two are up at a
# time: on two cores, a third one's idle work makes the others' tests time out (seen: a click in the browser,
# and a DAG's test run).
_ROUGH = ("test_conflicts", "test_crashes", "test_night", "test_parked", "test_restarts", "test_rollback")
# In this order, so that the long ones begin first; with ``--no-loadscope-reorder``, pytest-xdist keeps it.
_FIRST = ("celery", "airflow", "rough")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a running Airflow in one process."""
    for item in items:
        if item.get_closest_marker("scheduler") and not item.get_closest_marker("xdist_group"):
            group = "rough" if item.path.stem in _ROUGH else "airflow"
            item.add_marker(pytest.mark.xdist_group(group))
        if _needs_cluster(item) and WAIT_SECONDS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(WAIT_SECONDS + float(item.config.getini("timeout"))))
    items.sort(key=_turn)
    _let_one_begin_with_others(items)


def _needs_cluster(item: pytest.Item) -> bool:
    return "cluster_is_up" in getattr(item, "fixturenames", ()) or "kubernetes" in item.nodeid


def _turn(item: pytest.Item) -> int:
    """Tests that need a cluster come last: where it has to be set up first, that goes on meanwhile."""
    group = item.get_closest_marker("xdist_group")
    if _needs_cluster(item):
        return len(_FIRST) + (1 if group else 2)
    return _FIRST.index(group.args[0]) if group and group.args[0] in _FIRST else len(_FIRST)


def _let_one_begin_with_others(items: list[pytest.Item]) -> None:
    """
    Put one test of no group before the last group that shares an Airflow.

    pytest-xdist deals one group, or one test, to each process at first, and then more to those that have few:
    of three processes, two then run an Airflow each, and one all that needs none.
    """
    turns = [_turn(item) for item in items]
    last, others = len(_FIRST) - 1, len(_FIRST)
    if last in turns and others in turns:
        items.insert(turns.index(last), items.pop(turns.index(others)))
