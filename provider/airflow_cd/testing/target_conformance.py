"""
The conformance suite: what every kind of target does.

A test module derives from :class:`TargetConformance` and has a fixture ``place``::

    class TestFolderTarget(TargetConformance):
        @pytest.fixture
        def place(self, tmp_path):
            place = FolderPlace(tmp_path)
            yield place
            place.close()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone

import httpx
import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from airflow_cd.exceptions import (
    ArtifactCorruptError,
    DeployConflictError,
    NoPreviousReleaseError,
    NotReadyError,
)
from airflow_cd.targets.record import Hold
from airflow_cd.testing.target_place import TargetPlace


class TargetConformance:
    """Derive from it in a test module, with a fixture ``place``: a new :class:`TargetPlace` for each test."""

    @pytest.fixture
    def place(self) -> TargetPlace:
        """Return a place with nothing deployed; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `place` that yields a TargetPlace")

    def test_nothing_runs_at_first(self, place: TargetPlace) -> None:
        record = place.target.record()
        assert (record.generation, record.current, record.previous) == (0, None, ())

    def test_releases_follow_each_other(self, place: TargetPlace) -> None:
        one, two = place.release("one"), place.release("two")
        assert (place.deploy(one), place.served()) == (1, "one")
        assert (place.deploy(two), place.served()) == (2, "two")
        record = place.target.record()
        assert record.current is not None and record.current.release == two
        assert [deployed.release for deployed in record.previous] == [one]
        assert len(place.instances()) == 1

    def test_the_same_release_is_deployed_once(self, place: TargetPlace) -> None:
        one = place.release("one")
        place.deploy(one)
        before = place.target.record()
        # Whatever is expected: a retry after a killed worker finds its own work.
        assert place.deploy(one, expected=0) == 1
        assert place.target.record() == before

    def test_a_decision_based_on_an_old_record_is_refused(self, place: TargetPlace) -> None:
        place.deploy(place.release("one"))
        with pytest.raises(
            DeployConflictError, match="generation 0.*generation 1.*runs one, deployed by test"
        ):
            place.deploy(place.release("two"), expected=0)
        assert place.served() == "one"

    def test_two_at_the_same_moment_have_one_winner(self, place: TargetPlace) -> None:
        place.deploy(place.release("one"))
        rivals = [place.deploying_process(place.release(text), 1, actor=text) for text in ("two", "three")]
        for rival in rivals:
            assert rival.stdin is not None
            rival.stdin.write("\n")
            rival.stdin.flush()
        answers = [rival.communicate()[0] for rival in rivals]
        assert sorted(answer.split()[0] for answer in answers) == ["LOST", "WON"]
        lost = next(answer for answer in answers if answer.startswith("LOST"))
        winner = ("two", "three")[answers.index(next(a for a in answers if a.startswith("WON")))]
        assert "DeployConflictError" in lost and winner in lost
        assert place.served() == winner
        assert len(place.instances()) == 1

    def test_what_does_not_get_ready_changes_nothing(self, place: TargetPlace) -> None:
        place.deploy(place.release("one"))
        before = place.target.record()
        with pytest.raises(NotReadyError, match=place.not_ready):
            place.deploy(place.broken_release("broken"))
        # Some record which release was aborted, and why.
        after = place.target.record().model_copy(update={"aborted": None})
        assert (after, place.served()) == (before, "one")
        assert len(place.instances()) == 1

    def test_a_changed_archive_changes_nothing(self, place: TargetPlace) -> None:
        place.deploy(place.release("one"))
        two = place.release("two")
        place.spoil(two)
        # Nodes of a cluster fetch an image themselves, and refuse one with another digest.
        with pytest.raises((ArtifactCorruptError, NotReadyError), match=two.digest):
            place.deploy(two)
        assert place.served() == "one"

    def test_a_rollback_needs_neither_store_nor_source(self, place: TargetPlace) -> None:
        one, two = place.release("one"), place.release("two")
        place.deploy(one)
        place.deploy(two)
        place.lose_sources()
        record = place.target.rollback(bad=two.digest, actor="test")
        assert (place.served(), record.generation) == ("one", 3)
        assert record.current is not None
        assert (record.current.release, record.current.rolled_back_from) == (one, two.digest)
        # The bad release cannot be rolled back to, and repeating the rollback changes nothing.
        assert record.previous == ()
        assert place.target.rollback(bad=two.digest, actor="test") == record

    def test_a_rollback_is_recorded_with_its_reason_and_hold(self, place: TargetPlace) -> None:
        one, two = place.release("one"), place.release("two")
        place.deploy(one)
        place.deploy(two)
        current = place.target.record().current
        assert current is not None and current.replaced is not None
        assert current.replaced.digest == one.digest
        hold = Hold(by="ada", since=datetime.now(timezone.utc), reason="prices")
        place.target.rollback(bad=two.digest, actor="run", reason="prices are wrong", hold=hold)
        record = place.target.record()
        assert record.current is not None and record.current.replaced is not None
        assert (record.current.reason, record.current.rolled_back_from) == ("prices are wrong", two.digest)
        assert record.current.replaced.digest == two.digest
        assert record.hold == hold
        place.deploy(two)
        assert place.target.record().hold is None, "a deployment lifts the hold"

    def test_a_rollback_undoes_only_the_release_it_names(self, place: TargetPlace) -> None:
        one, two = place.release("one"), place.release("two")
        place.deploy(one)
        place.deploy(two)
        before = place.target.record()
        assert place.target.rollback(bad=one.digest, actor="test") == before
        assert place.served() == "two"

    def test_a_rollback_needs_a_previous_release(self, place: TargetPlace) -> None:
        one = place.release("one")
        place.deploy(one)
        with pytest.raises(NoPreviousReleaseError, match="nothing|no .*to go back to"):
            place.target.rollback(bad=one.digest, actor="test")
        assert place.served() == "one"

    def test_only_some_previous_releases_are_kept(self, place: TargetPlace) -> None:
        releases = [place.release(str(n)) for n in range(5)]
        for release in releases:
            place.deploy(release)
        kept = [deployed.release.version for deployed in place.target.record().previous]
        assert kept == ["3", "2"]
        assert place.kept() == {release.digest for release in releases[2:]}
        place.target.rollback(bad=releases[4].digest, actor="test", to=releases[2].digest)
        assert place.served() == "2"

    def test_no_request_fails_while_releases_change(self, place: TargetPlace) -> None:
        one, two = (place.graceful_release(text) for text in ("one", "two"))
        place.deploy(one)
        # Nodes learn of a new Service a moment later; its address may have belonged to another one before.
        _wait_until(lambda: place.served() == "one", timeout=30)
        seen: set[str] = set()
        failed: list[str] = []
        stop = threading.Event()

        def load(keep_alive: bool) -> None:
            with httpx.Client(trust_env=False, timeout=10) as client:
                while not stop.is_set():
                    try:
                        get = client.get if keep_alive else httpx.get
                        response = get(str(place.target.url()))
                        seen.add(response.text)
                        if response.status_code != 200:
                            failed.append(str(response.status_code))
                    except httpx.HTTPError as error:
                        failed.append(repr(error))

        threads = [threading.Thread(target=load, args=(keep,)) for keep in (True, True, False)]
        for thread in threads:
            thread.start()
        _wait_until(lambda: "one" in seen, timeout=10)
        place.deploy(two)
        _wait_until(lambda: "two" in seen, timeout=10)
        place.target.rollback(bad=two.digest, actor="test")
        stop.set()
        for thread in threads:
            thread.join()
        assert (failed, seen) == ([], {"one", "two"})


def _wait_until(probe: Callable[[], bool], timeout: float) -> None:
    """
    Call ``probe`` until it returns true.

    :raises tenacity.RetryError: it did not within ``timeout`` seconds
    """
    Retrying(
        retry=retry_if_result(lambda found: not found), stop=stop_after_delay(timeout), wait=wait_fixed(0.2)
    )(probe)
