"""Deployments and rollbacks in any order, against a model of what the target must say and serve."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from harness.waiting import wait_until
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.places import LocalPlace

from airflow_cd.exceptions import DeployConflictError, NoPreviousReleaseError, NotReadyError
from airflow_cd.targets.local.target import root_of, shutdown
from airflow_cd.targets.record import Record
from airflow_cd.testing.programs import BROKEN

NUMBERS = st.integers(0, 3)
KEPT = 2  # as the conformance suite's definition of the target says


class Deployments(RuleBasedStateMachine):
    """Releases are known by their numbers; ``previous`` has those that can be gone back to, newest first."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cd-states-"))
        self.place = LocalPlace(self.folder)
        self.generation, self.running, self.previous = 0, -1, list[int]()

    @initialize()
    def make(self) -> None:
        self.releases = [self.place.release(f"r{number}") for number in range(4)]
        self.broken = self.place.release("broken", BROKEN)

    @rule(number=NUMBERS)
    def deploy(self, number: int) -> None:
        assert self.place.deploy(self.releases[number]) == self._deployed(number)

    @precondition(lambda self: self.generation)
    @rule(number=NUMBERS)
    def deploy_on_an_old_decision(self, number: int) -> None:
        if number == self.running:
            assert self.place.deploy(self.releases[number], self.generation - 1) == self.generation
            return
        with pytest.raises(DeployConflictError, match=f"is at generation {self.generation} now"):
            self.place.deploy(self.releases[number], self.generation - 1)

    @rule()
    def deploy_what_does_not_start(self) -> None:
        with pytest.raises(NotReadyError):
            self.place.deploy(self.broken)

    @rule(number=NUMBERS)
    def deploy_while_somebody_else_does(self, number: int) -> None:
        lease = root_of(self.place.data) / "hello" / "production" / "lease.lock"
        lease.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lease), pytest.raises(DeployConflictError, match="by another run"):
            self.place.deploy(self.releases[number])

    @rule(number=NUMBERS)
    def deploy_and_die(self, number: int) -> None:
        """The holder of the lease is killed; what it did is whole or not there, and the lease is free."""
        process = self.place.deploying_process(self.releases[number], self.generation)
        holder = root_of(self.place.data) / "hello" / "production" / "lease.json"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_until(
            lambda: holder.exists() or process.poll() is not None, "it has the lease", timeout=30, every=0.001
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        if self.place.target.record().generation != self.generation:
            self._deployed(number)

    @precondition(lambda self: self.generation)
    @rule(back=st.integers(0, KEPT), named=st.booleans())
    def roll_back(self, back: int, named: bool) -> None:
        bad = self.releases[self.running].digest
        if back >= len(self.previous):
            gone = self.broken.digest if self.previous else None
            with pytest.raises(NoPreviousReleaseError):
                self._roll_back(bad, gone)
            return
        back = back if named else 0
        record = self._roll_back(bad, self.releases[self.previous[back]].digest if named else None)
        self.running, self.previous = self.previous[back], self.previous[back + 1 :]
        self.generation += 1
        assert record.current is not None and record.current.rolled_back_from == bad

    @precondition(lambda self: self.generation)
    @rule(number=NUMBERS)
    def roll_back_what_does_not_run(self, number: int) -> None:
        if number != self.running:
            assert self._roll_back(self.releases[number].digest, None).generation == self.generation

    @invariant()
    def record_and_requests_agree_with_the_model(self) -> None:
        record = self.place.target.record()
        assert record.generation == self.generation
        if record.current is None:
            return
        assert record.current.release == self.releases[self.running]
        assert [one.release for one in record.previous] == [self.releases[one] for one in self.previous]
        # A first deployment that died may have switched before its front was up; the next call starts it.
        if self._is_whole():
            assert self.place.served() == f"r{self.running}"

    def teardown(self) -> None:
        shutdown(root_of(self.place.data))
        shutil.rmtree(self.folder)

    def _deployed(self, number: int) -> int:
        if number != self.running:
            ran = [self.running] if self.generation else []
            self.previous = [one for one in [*ran, *self.previous] if one != number][:KEPT]
            self.running, self.generation = number, self.generation + 1
        return self.generation

    def _roll_back(self, bad: str, to: str | None) -> Record:
        return self.place.target.rollback(bad=bad, to=to, actor="test")

    def _is_whole(self) -> bool:
        front: Any = self.place.target
        return bool(front._front._runs())


@pytest.mark.exhaustive
class TestDeployments(Deployments.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(
        max_examples=6,
        stateful_step_count=25,
        # Each step takes a third of a second: a failure is not made smaller, it prints all its steps.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
