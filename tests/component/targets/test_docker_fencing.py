"""
A process that is stopped at any of its writes to the engine, and goes on when it has lost the lease.

Whatever it was about to do: what another process did in the meantime stays as it is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from harness.waiting import wait_until
from tests.support import frozen_rival
from tests.support.images import Registry
from tests.support.places import DockerPlace

from airflow_cd.model.release import Release
from airflow_cd.targets.docker.engine import read_folder
from airflow_cd.targets.record import Record

SECONDS = 90


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    while Frozen.started:
        process = Frozen.started.pop()
        process.kill()
        process.communicate()


@pytest.fixture
def place(tmp_path: Path, engine: Any, registry: Registry) -> Iterator[DockerPlace]:
    one = DockerPlace(tmp_path, engine, registry)
    one.reopen(drain="0s")
    try:
        yield one
    finally:
        one.close()


class Frozen:
    """A process that changes the target of a place, and stops at the n-th write; see ``frozen_rival.py``."""

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, place: DockerPlace, action: str, release: Release, number: int) -> None:
        self._place = place
        environment = place.environment.model_dump_json()
        argv = [sys.executable, frozen_rival.__file__, place.service, environment, release.model_dump_json()]
        argv += [place.store.url, str(place.data), action, str(number)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.started.append(self.process)
        wait_until(lambda: self.state() in ("T", "gone"), "it stops or ends", timeout=SECONDS)
        self.is_stopped = self.state() == "T"

    def state(self) -> str:
        """Return the letter of ``/proc/<pid>/stat``."""
        if self.process.poll() is not None:
            return "gone"
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]

    def loses_its_lease(self) -> None:
        """Remove it, as the restart of an engine does."""
        from docker.errors import APIError

        name = f"cd.{self._place.service}.production.lease"
        with suppress(APIError):  # it holds none (yet, or any more)
            self._place.engine.containers.get(name).remove(force=True)

    def goes_on(self) -> str:
        """Return what it says in the end."""
        self.process.send_signal(signal.SIGCONT)
        return self.process.communicate(timeout=SECONDS)[0]


def assert_untouched(place: DockerPlace, record: Record, text: str) -> None:
    """Assert that what the other process did is still so: record, traffic, one container, its images."""
    assert place.target.record() == record
    assert place.served() == text
    found = [place.engine.containers.get(name) for name in place.instances()]
    assert [one.status for one in found] == ["running"], [one.name for one in found]
    assert record.current is not None
    assert found[0].labels["airflow-cd.digest"] == record.current.release.digest
    assert {one.release.digest for one in (record.current, *record.previous)} <= place.kept()


def assert_no_harm(answer: str, has_switched: bool) -> None:
    """Assert that it says that it lost, unless it had switched before it was stopped."""
    assert answer.startswith("LOST DeployConflictError" if not has_switched else "WON"), answer


def writes(count: int, *usual: int) -> list[Any]:
    """
    Return the numbers of all writes, and one more than there are.

    :param usual: those that are stopped at where ``CD_TEST_EVERY_WRITE`` is not set
    """
    every, some = (pytest.mark.exhaustive, pytest.mark.every_write), pytest.mark.exhaustive
    return [pytest.param(n, marks=some if n in usual else every) for n in range(1, count + 2)]


@pytest.mark.parametrize("number", writes(16, 4, 9, 13))
def test_a_deployment(place: DockerPlace, number: int) -> None:
    place.deploy(place.release("one"))
    three = place.release("three")
    frozen = Frozen(place, "deploy", place.release("two"), number)
    if not frozen.is_stopped:
        assert frozen.goes_on() == "WON 2\n"
        return
    frozen.loses_its_lease()
    before = place.target.record().generation
    place.deploy(three)
    record = place.target.record()
    assert_no_harm(frozen.goes_on(), has_switched=before == 2)
    assert_untouched(place, record, "three")


@pytest.mark.parametrize("number", writes(23, 14, 20))
def test_a_first_deployment_that_fails(place: DockerPlace, number: int) -> None:
    one = place.release("one")
    frozen = Frozen(place, "deploy", place.broken_release("broken"), number)
    if not frozen.is_stopped:
        assert frozen.goes_on().startswith("LOST NotReadyError")
        return
    frozen.loses_its_lease()
    place.deploy(one)
    record = place.target.record()
    assert "WON" not in frozen.goes_on()
    assert_untouched(place, record, "one")
    place.deploy(place.release("two"))
    assert place.served() == "two"


@pytest.mark.parametrize("number", writes(12, 7))
def test_a_deployment_that_only_starts_what_should_run(place: DockerPlace, number: int) -> None:
    one = place.release("one")
    place.deploy(one)
    for name in place.instances():
        place.engine.containers.get(name).remove(force=True)
    frozen = Frozen(place, "deploy", one, number)
    if not frozen.is_stopped:
        assert frozen.goes_on() == "WON 1\n"
        return
    frozen.loses_its_lease()
    if number % 2:
        place.deploy(place.release("two"))
    else:
        place.deploy(one)
    record = place.target.record()
    frozen.goes_on()
    assert_untouched(place, record, "two" if number % 2 else "one")


@pytest.mark.parametrize("number", writes(22, 6, 19))
def test_a_deployment_that_replaces_the_front(place: DockerPlace, number: int) -> None:
    place.deploy(place.release("one"))
    two, three, port = place.release("two"), place.release("three"), place.port
    place.port += 1
    place.reopen(drain="0s")
    frozen = Frozen(place, "deploy", two, number)
    place.port = port
    place.reopen(drain="0s")
    if not frozen.is_stopped:
        assert frozen.goes_on() == "WON 2\n"
        return
    frozen.loses_its_lease()
    before = place.target.record().generation
    place.deploy(three)
    record = place.target.record()
    assert_no_harm(frozen.goes_on(), has_switched=before == 2)
    assert_untouched(place, record, "three")


# The first three take the lease: a process that could not take it tries again, and has it in the end.
@pytest.mark.parametrize("number", writes(10, 4, 7)[3:])
def test_a_removal(place: DockerPlace, number: int) -> None:
    one = place.release("one")
    place.deploy(one)
    two = place.release("two")
    frozen = Frozen(place, "remove", one, number)
    if not frozen.is_stopped:
        assert frozen.goes_on() == "WON None\n"
        return
    frozen.loses_its_lease()
    place.deploy(two)
    record = place.target.record()
    frozen.goes_on()
    assert_untouched(place, record, "two")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("number", "other"),
    [
        (9, 9),
        (13, 13),
        pytest.param(7, 9, marks=pytest.mark.every_write),
        pytest.param(13, 9, marks=pytest.mark.every_write),
    ],
)
def test_a_deployment_that_goes_on_while_another_is_under_way(
    place: DockerPlace, number: int, other: int
) -> None:
    place.deploy(place.release("one"))
    three = place.release("three")
    frozen = Frozen(place, "deploy", place.release("two"), number)
    frozen.loses_its_lease()
    rival = Frozen(place, "deploy", three, other)
    assert frozen.is_stopped and rival.is_stopped
    assert_no_harm(frozen.goes_on(), has_switched=False)
    assert (place.served(), place.target.record().generation) == ("one", 1)
    assert rival.goes_on() == "WON 2\n"
    assert_untouched(place, place.target.record(), "three")


def test_what_the_former_version_left_is_taken_up(place: DockerPlace) -> None:
    one = place.release("one")
    place.deploy(one)
    container = place.engine.containers.get(place.instances()[0])
    name = f"cd.{place.service}.production"
    container.rename(f"{name}.1")
    (network,) = place.engine.networks.list(names=[f"^{name}$"])
    network.disconnect(container)
    network.connect(container, aliases=["g1"])
    script = "cd /cd && mv generations/*.json generations/1.json && rm -r turn && printf g1:8080 > upstream"
    front = place.engine.containers.get(f"{name}.front")
    assert front.exec_run(["sh", "-c", script], user="0").exit_code == 0
    assert (place.served(), place.target.record().generation) == ("one", 1)
    assert place.deploy(one) == 1
    assert place.instances() == [f"{name}.1"]
    two = place.release("two")
    place.deploy(two)
    assert (place.served(), len(place.instances())) == ("two", 1)
    assert "generations/1.json" not in read_folder(front, "/cd")
    place.target.rollback(bad=two.digest, actor="test")
    assert place.served() == "one"
