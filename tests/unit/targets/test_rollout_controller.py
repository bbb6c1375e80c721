"""What all targets share that take their time, on one that is a sheet of paper and dies on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from tests.support.releases import release_of

from airflow_cd.exceptions import DeployConflictError, NoPreviousReleaseError, NotReadyError
from airflow_cd.model.release import Release
from airflow_cd.model.rollout import Observation, Phase, RolloutAnswer
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.base import ProgressiveTarget
from airflow_cd.targets.record import Deployed, Hold, Record, Rollout, outcome_of
from airflow_cd.targets.rollout_controller import RolloutController

CANARY = StrategyChoice.model_validate(
    {"canary": {"steps": [{"weight": 10}, {"pause": "approval"}, {"weight": 50}]}}
)


class Killed(BaseException):
    """The process is gone."""


@dataclass(frozen=True)
class Sheet:
    record: Record
    version: int


class PaperTarget(RolloutController[Sheet]):
    """Its own backend, on paper: its record and what it runs. Dies before its ``dies_at``-th effect."""

    def __init__(self, strategy: StrategyChoice | None = None) -> None:
        self.service, self.environment, self.keep, self.deadline = (
            "hello",
            "production",
            2,
            timedelta(minutes=1),
        )
        super().__init__(self)
        self.strategy, self.sheet = strategy, Sheet(Record(), 0)
        # What requests get: digest -> percent.
        self.served: dict[str, int] = {}
        self.broken: set[str] = set()
        self.kept: set[str] = set()
        self.effects, self.dies_at, self.held = 0, None, False

    def url(self) -> str | None:
        return None

    def watching(self) -> Any:
        raise NotImplementedError

    def effect(self) -> None:
        self.effects += 1
        if self.dies_at is not None and self.effects >= self.dies_at:
            raise Killed

    def load(self) -> Sheet:
        return self.sheet

    def save(self, stored: Sheet, record: Record) -> Sheet:
        if stored.version != self.sheet.version:
            raise DeployConflictError("a person wrote meanwhile")
        self.effect()
        self.sheet = Sheet(record, stored.version + 1)
        return self.sheet

    @contextmanager
    def leased(self, actor: str, what: str) -> Iterator[None]:
        if self.held:
            raise DeployConflictError("held")
        self.held = True
        try:
            yield
        finally:
            self.held = False

    def track(self, record: Record) -> str | None:
        return None

    def prepare(self, record: Record, release: Release, store: Any) -> None:
        self.effect()
        self.kept.add(release.digest)

    def is_restorable(self, deployed: Deployed) -> bool:
        return deployed.release.digest in self.kept

    def apply(self, stored: Sheet) -> Sheet:
        self.effect()
        record, rollout = stored.record, stored.record.rollout
        assert rollout is not None
        weight = 0 if rollout.progress.phase is Phase.ABORTING else rollout.progress.weight
        before = {record.current.release.digest: 100 - weight} if record.current else {}
        self.served = {**before, rollout.candidate.release.digest: weight}
        return replace(stored)

    def observe(self, stored: Sheet) -> Observation:
        rollout = stored.record.rollout
        assert rollout is not None
        digest = rollout.candidate.release.digest
        bad = digest in self.broken and rollout.progress.weight > 0
        return Observation(ready=not bad, broken="it crashes" if bad else None, count="1 of 1")

    def proceed(self, stored: Sheet) -> Sheet:
        return stored

    def instances(self, stored: Sheet) -> int | None:
        return None

    def names(self, rollout: Rollout) -> dict[str, str]:
        return {}

    def apply_steady_state(self, stored: Sheet) -> Sheet:
        self.effect()
        current = stored.record.current
        self.served = {current.release.digest: 100} if current else {}
        return stored


def release(number: int) -> Release:
    made = release_of(f"sha256:{number:064x}", version=f"v{number}", subject=f"number {number}")
    return made.model_copy(update={"revision": made.revision.model_copy(update={"sha": f"{number:040x}"})})


def begun(target: PaperTarget, what: Release, over: str | None = None, actor: str = "test") -> Record:
    expected = target.record().generation
    return target.begin(what, None, expected=expected, over=over, actor=actor)  # type: ignore[arg-type]


def driven(target: PaperTarget, answer: RolloutAnswer | None = None) -> Record:
    """Advance until it is over or asks."""
    for _ in range(50):
        record = target.record()
        rollout = record.rollout
        if rollout is None or (rollout.progress.phase is Phase.AWAITING_DECISION and answer is None):
            return record
        target.advance(
            rollout.token, answer=answer if rollout.progress.phase is Phase.AWAITING_DECISION else None
        )
    raise AssertionError("it never ends")


def test_it_keeps_the_protocol() -> None:
    assert isinstance(PaperTarget(), ProgressiveTarget)


def test_the_first_release_takes_no_steps() -> None:
    target = PaperTarget(CANARY)
    begun(target, release(1))
    record = driven(target)
    assert (record.generation, target.served) == (1, {release(1).digest: 100})


def test_a_canary_asks_and_goes_on() -> None:
    target = PaperTarget(CANARY)
    target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    begun(target, release(2))
    record = driven(target)
    assert record.rollout is not None and record.rollout.progress.phase is Phase.AWAITING_DECISION
    assert target.served == {release(1).digest: 90, release(2).digest: 10}
    assert record.current is not None and record.current.release == release(1)
    record = driven(target, RolloutAnswer(promote=True, by="ada"))
    assert record.current is not None and record.current.release == release(2)
    assert (record.generation, target.served) == (2, {release(2).digest: 100})
    assert [one.release for one in record.previous] == [release(1)]


@pytest.mark.parametrize("strategy", [None, CANARY])
def test_what_breaks_gives_everything_back(strategy: StrategyChoice | None) -> None:
    target = PaperTarget(strategy)
    target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    target.broken.add(release(2).digest)
    token = begun(target, release(2)).rollout.token  # type: ignore[union-attr]
    record = driven(target)
    assert outcome_of(record, token) == ("aborted", "it crashes")
    assert (record.generation, target.served) == (1, {release(1).digest: 100})


def test_seen_through_by_one_call_it_raises() -> None:
    target = PaperTarget()
    target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    target.broken.add(release(2).digest)
    with pytest.raises(NotReadyError, match="it crashes"):
        target.deploy(release(2), None, expected=1, actor="test")  # type: ignore[arg-type]


def test_who_drives_the_same_rollout_is_waited_for() -> None:
    class Shared(PaperTarget):
        crowd = 2

        def advance(self, token: str, **how: Any) -> Record:
            if self.crowd:
                self.crowd -= 1
                raise DeployConflictError("held by the triggerer")
            return super().advance(token, **how)

    target = Shared()
    record = target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    assert (record.generation, target.crowd, target.served) == (1, 0, {release(1).digest: 100})


def test_a_newer_release_takes_over_from_the_first_step() -> None:
    target = PaperTarget(CANARY)
    target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    old = begun(target, release(2)).rollout
    assert old is not None
    driven(target)
    with pytest.raises(DeployConflictError, match="another run: test deploys v2"):
        begun(target, release(3), actor="other")
    record = begun(target, release(3), over=old.token, actor="other")
    assert record.rollout is not None and record.rollout.progress.step == 0
    assert target.advance(old.token) == record, "who was replaced does nothing any more"
    assert outcome_of(target.record(), old.token).state == "replaced"
    assert target.served == {release(1).digest: 90, release(3).digest: 10}


def test_the_stable_release_deployed_again_ends_a_canary() -> None:
    target = PaperTarget(CANARY)
    target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    begun(target, release(2))
    begun(target, release(1))
    driven(target)
    assert target.served == {release(1).digest: 100}


def test_rolling_back_what_is_on_its_way_in_aborts_it() -> None:
    target = PaperTarget(CANARY)
    target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    begun(target, release(2))
    hold = Hold(by="ada", since=datetime.now(timezone.utc))
    target.begin_rollback(bad=release(2).digest, actor="ada", reason="prices", hold=hold)
    record = driven(target)
    assert (target.served, record.generation, record.hold) == ({release(1).digest: 100}, 1, hold)
    assert record.aborted is not None and record.aborted.reason == "prices"


def test_no_deployment_interrupts_a_rollback() -> None:
    target = PaperTarget(CANARY)
    for number in (1, 2):
        target.strategy = None
        target.deploy(release(number), None, expected=number - 1, actor="test")  # type: ignore[arg-type]
    record = target.begin_rollback(bad=release(2).digest, actor="ada")
    assert record.rollout is not None and record.rollout.kind == "rollback"
    with pytest.raises(DeployConflictError, match="rolled back to v1"):
        begun(target, release(3), over=record.rollout.token)
    assert target.abort(actor="eve", reason="no") == record
    assert driven(target).current.release == release(1)  # type: ignore[union-attr]


def test_an_abort_with_nothing_under_way_does_nothing() -> None:
    target = PaperTarget()
    target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
    before = target.sheet
    target.abort(actor="ada", reason="just so")
    assert target.sheet == before
    with pytest.raises(NoPreviousReleaseError):
        target.begin_rollback(bad=release(1).digest, actor="ada")


def _deploy_over(target: PaperTarget, actor: str) -> None:
    """What a task does, in each of its tries."""
    record = target.record()
    over = record.rollout.token if record.rollout else None
    target.begin(release(2), None, expected=record.generation, over=over, actor=actor)  # type: ignore[arg-type]
    driven(target, RolloutAnswer(promote=True, by="ada"))


@pytest.mark.parametrize("strategy", [None, CANARY])
def test_killed_before_any_effect_it_ends_as_if_it_had_not_been(strategy: StrategyChoice | None) -> None:
    for dies_at in range(1, 100):
        target = PaperTarget(strategy)
        target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
        target.effects, target.dies_at = 0, dies_at  # type: ignore[assignment]
        try:
            _deploy_over(target, "run")
        except Killed:
            target.dies_at, target.held = None, False
            _deploy_over(target, "run")
        record = target.record()
        assert record.current is not None and record.current.release == release(2), dies_at
        assert (record.generation, record.rollout) == (2, None), dies_at
        assert target.served == {release(2).digest: 100}, dies_at
        if target.dies_at is not None:
            assert dies_at > 5, "it was killed at several points"
            return
    raise AssertionError("it has no end")


def test_killed_while_giving_back_it_gives_back() -> None:
    for dies_at in range(1, 100):
        target = PaperTarget(CANARY)
        target.deploy(release(1), None, expected=0, actor="test")  # type: ignore[arg-type]
        begun(target, release(2), actor="run")
        driven(target)
        target.broken.add(release(2).digest)
        target.effects, target.dies_at = 0, dies_at  # type: ignore[assignment]
        try:
            driven(target, RolloutAnswer(promote=True, by="ada"))
        except Killed:
            target.dies_at, target.held = None, False
            driven(target, RolloutAnswer(promote=True, by="ada"))
            target.converge()
        assert target.served == {release(1).digest: 100}, dies_at
        assert target.record().aborted is not None
        if target.dies_at is not None:
            return
