"""What a test needs of the machine it runs on, and what a run left out because of it."""

from __future__ import annotations

import os
from collections import Counter

import pytest

# Everything must run: what the machine lacks is a failure. CI sets it.
REQUIRE_ALL = bool(os.environ.get("CD_REQUIRE_ALL"))
# The exhaustive tests run, too.
TEST_ALL = REQUIRE_ALL or bool(os.environ.get("CD_TEST_ALL"))

NEEDS_CLUSTER = "needs a Kubernetes cluster: set KUBECONFIG"
NEEDS_ENGINE = "needs a Docker engine: set DOCKER_HOST"
IS_EXHAUSTIVE = "exhaustive: run `CD_TEST_ALL=1 make test`"
# Tests that stop a worker before each of its writes do so before a few of them otherwise, in CI, too.
EVERY_WRITE = bool(os.environ.get("CD_TEST_EVERY_WRITE"))
IS_EVERY_WRITE = "the same at every other write: run `CD_TEST_ALL=1 CD_TEST_EVERY_WRITE=1 make test`"


def require(found: object, what: str) -> None:
    """
    Go on when ``found`` is true, else skip the test; fail it where ``CD_REQUIRE_ALL`` is set.

    :param what: what is needed and how to get it, for the summary at the end of the run
    """
    if found:
        return
    if REQUIRE_ALL:
        pytest.fail(f"{what} (CD_REQUIRE_ALL is set, so this is not skipped)", pytrace=False)
    pytest.skip(what)


_SERVICES = frozenset({"cluster_is_up", "engine", "prometheus", "registry"})


def check_place(item: pytest.Item) -> None:
    """
    Keep unit tests free of services.

    :raises pytest.UsageError: a test under tests/unit uses one
    """
    used = _SERVICES.intersection(getattr(item, "fixturenames", ()))
    if used and item.nodeid.startswith("tests/unit/"):
        names = ", ".join(sorted(used))
        raise pytest.UsageError(f"{item.nodeid} is a unit test and uses {names}: move it to tests/component")


def skip_early(item: pytest.Item) -> None:
    """
    Skip a test that cannot run here before its fixtures start anything, such as an Airflow.

    Where ``CD_REQUIRE_ALL`` is set nothing is skipped: the fixtures fail, and say why.
    """
    if item.get_closest_marker("exhaustive") and not TEST_ALL:
        item.add_marker(pytest.mark.skip(reason=IS_EXHAUSTIVE))
    if item.get_closest_marker("every_write") and not EVERY_WRITE:
        item.add_marker(pytest.mark.skip(reason=IS_EVERY_WRITE))
    if REQUIRE_ALL:
        return
    fixtures = getattr(item, "fixturenames", ())
    if "cluster_is_up" in fixtures and not os.environ.get("KUBECONFIG"):
        item.add_marker(pytest.mark.skip(reason=NEEDS_CLUSTER))
    if "engine" in fixtures and not os.environ.get("DOCKER_HOST"):
        item.add_marker(pytest.mark.skip(reason=NEEDS_ENGINE))


def report_left_out(reporter: pytest.TerminalReporter) -> None:
    """Print what a run left out, and what it takes to run that, one line for each reason."""
    reasons: Counter[str] = Counter()
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if not reasons:
        return
    reporter.section("left out")
    for reason, count in reasons.most_common():
        reporter.write_line(f"{count:5d}  {reason}")
