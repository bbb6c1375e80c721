"""What all tests share: an Airflow home of their own, never the user's, and a running Airflow on request."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
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
from tests.support.httproutes import gateway, http_routes  # noqa: E402, F401
from tests.support.images import registry  # noqa: E402, F401
from tests.support.older_cluster import older_cluster  # noqa: E402, F401
from tests.support.prometheus import prometheus  # noqa: E402, F401
from tests.support.requirements import TEST_ALL, check_place, report_left_out, skip_early  # noqa: E402
from tests.support.running_airflow import (  # noqa: E402, F401
    airflow,
    airflow_is_whole,
    rest_airflow,
    resume_airflow,
    uses_airflow,
)
from tests.support.small_disk import small_disk  # noqa: E402, F401

ROOT = Path(__file__).parents[1]

# How long an example takes says more about the machine than about what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


# These kill parts of Airflow, or fill it: they have an Airflow of their own. (Trains and windows: to share
# the time. Most of the others are exhaustive; without those, the approvals fit in.)
_ROUGH = (
    *(() if TEST_ALL else ("test_approvals",)),
    "test_conflicts",
    "test_crashes",
    "test_night",
    "test_parked",
    "test_restarts",
    "test_rollback",
    "test_trains",
    "test_windows",
)
# In this order, so that the long ones begin first; with ``--no-loadscope-reorder``, pytest-xdist keeps it.
_FIRST = ("celery", "airflow", "rough")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share a running Airflow in one process."""
    for item in items:
        check_place(item)
        skip_early(item)
        # What is skipped stays out of the groups: Airflow would be stopped before it and started after it.
        is_skipped = item.get_closest_marker("skip") is not None
        if (
            item.get_closest_marker("scheduler")
            and not is_skipped
            and not item.get_closest_marker("xdist_group")
        ):
            item.add_marker(pytest.mark.xdist_group(_group(item)))
        if _needs_cluster(item) and WAIT_SECONDS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(WAIT_SECONDS + float(item.config.getini("timeout"))))
    items.sort(key=_place)
    _let_some_begin_with_others(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out, and how to run it."""
    report_left_out(terminalreporter)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have the Airflow that was put to rest in front of the tests that need it."""
    if uses_airflow(item):
        resume_airflow(item.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Put Airflow to rest behind the last of the tests that need it; at the very end its fixture does."""
    yield
    if uses_airflow(item) and nextitem is not None and not uses_airflow(nextitem):
        rest_airflow(item.config)


def _group(item: pytest.Item) -> str:
    if _needs_cluster(item):
        return "kubernetes"
    return "rough" if item.path.stem in _ROUGH else "airflow"


def _needs_cluster(item: pytest.Item) -> bool:
    return "cluster_is_up" in getattr(item, "fixturenames", ()) or "kubernetes" in item.nodeid


def _place(item: pytest.Item) -> tuple[int, str]:
    """
    Return where a test comes: by its turn, then by its file.

    A browser comes after the approvals: at the beginning everything starts, and pages are slow; later on,
    the networks of containers come and go, and it gives up pages.
    """
    file = item.nodeid.partition("::")[0]
    return _turn(item), "tests/integration/test_approvals.py~" if item.get_closest_marker("browser") else file


def _turn(item: pytest.Item) -> int:
    """Tests that need a cluster come last: where it must be set up first, that goes on meanwhile."""
    group = item.get_closest_marker("xdist_group")
    if _needs_cluster(item):
        return len(_FIRST) + (1 if group else 2)
    return _FIRST.index(group.args[0]) if group and group.args[0] in _FIRST else len(_FIRST)


def _let_some_begin_with_others(items: list[pytest.Item]) -> None:
    """
    Put tests of no group before the last group that shares an Airflow, one for each process beyond two.

    pytest-xdist deals one group, or one test, to each process at first, and then more to those that have few:
    two processes then run an Airflow each, and the others all that needs none.
    """
    last, others = len(_FIRST) - 1, len(_FIRST)
    for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) - 2):
        turns = [_turn(item) for item in items]
        if last not in turns or others not in turns[turns.index(last) :]:
            return
        at = turns.index(last)
        items.insert(at, items.pop(turns.index(others, at)))
