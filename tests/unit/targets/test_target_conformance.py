"""What every target does. A new target is one more row in PLACES."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pytest
from harness.ports import is_listening
from harness.waiting import wait_until
from tests.support.places import BROKEN, ENDS_CONNECTIONS, DockerPlace, KubernetesPlace, LocalPlace, Place

from airflow_cd.exceptions import (
    ArtifactCorruptError,
    DeployConflictError,
    NoPreviousReleaseError,
    NotReadyError,
)
from airflow_cd.targets.record import Hold
from airflow_cd.targets.registry import TARGETS

PLACES = {"local": LocalPlace, "docker": DockerPlace, "kubernetes": KubernetesPlace}
_NEEDS = {"local": (), "docker": ("engine", "registry"), "kubernetes": ("engine", "registry", "namespace")}


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind = request.param
    more = {name: request.getfixturevalue(name) for name in _NEEDS[kind]}
    one = PLACES[kind](tmp_path, **more)
    try:
        yield one
    finally:
        one.close()
    # A Kubernetes target answers at its Service's address, on no port of this machine.
    assert kind == "kubernetes" or not is_listening(one.port)


def test_every_registered_target_is_tested() -> None:
    assert set(PLACES) == set(TARGETS)


def test_nothing_runs_at_first(place: Place) -> None:
    record = place.target.record()
    assert (record.generation, record.current, record.previous) == (0, None, ())


def test_releases_follow_each_other(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    assert (place.deploy(one), place.served()) == (1, "one")
    assert (place.deploy(two), place.served()) == (2, "two")
    record = place.target.record()
    assert record.current is not None and record.current.release == two
    assert [deployed.release for deployed in record.previous] == [one]
    assert len(place.instances()) == 1


def test_the_same_release_is_deployed_once(place: Place) -> None:
    one = place.release("one")
    place.deploy(one)
    before = place.target.record()
    # Whatever the caller believed: a retry after a killed worker finds its own work.
    assert place.deploy(one, expected=0) == 1
    assert place.target.record() == before


def test_a_decision_based_on_an_old_record_is_refused(place: Place) -> None:
    place.deploy(place.release("one"))
    with pytest.raises(DeployConflictError, match="generation 0.*generation 1.*runs one, deployed by test"):
        place.deploy(place.release("two"), expected=0)
    assert place.served() == "one"


def test_two_at_the_same_moment_have_one_winner(place: Place) -> None:
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


def test_what_does_not_get_ready_changes_nothing(place: Place) -> None:
    place.deploy(place.release("one"))
    before = place.target.record()
    with pytest.raises(NotReadyError, match="(?s)ended.*no database"):
        place.deploy(place.release("broken", BROKEN))
    # Some keep in mind what it was that did not make it.
    after = place.target.record().model_copy(update={"aborted": None})
    assert (after, place.served()) == (before, "one")
    assert len(place.instances()) == 1


def test_a_changed_archive_changes_nothing(place: Place) -> None:
    place.deploy(place.release("one"))
    two = place.release("two")
    place.spoil(two)
    # Nodes of a cluster fetch an image themselves, and refuse another one.
    with pytest.raises((ArtifactCorruptError, NotReadyError), match=two.digest):
        place.deploy(two)
    assert place.served() == "one"


def test_a_rollback_needs_neither_store_nor_source(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    place.deploy(two)
    place.lose_sources()
    record = place.target.rollback(bad=two.digest, actor="test")
    assert (place.served(), record.generation) == ("one", 3)
    assert record.current is not None
    assert (record.current.release, record.current.rolled_back_from) == (one, two.digest)
    # The bad release is nowhere to go back to, and doing it again changes nothing.
    assert record.previous == ()
    assert place.target.rollback(bad=two.digest, actor="test") == record


def test_a_rollback_is_told_as_it_was(place: Place) -> None:
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


def test_a_rollback_undoes_only_what_it_was_told(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    place.deploy(two)
    before = place.target.record()
    assert place.target.rollback(bad=one.digest, actor="test") == before
    assert place.served() == "two"


def test_there_may_be_nothing_to_go_back_to(place: Place) -> None:
    one = place.release("one")
    place.deploy(one)
    with pytest.raises(NoPreviousReleaseError, match="nothing|no .*to go back to"):
        place.target.rollback(bad=one.digest, actor="test")
    assert place.served() == "one"


def test_only_some_previous_releases_are_kept(place: Place) -> None:
    releases = [place.release(str(n)) for n in range(5)]
    for release in releases:
        place.deploy(release)
    kept = [deployed.release.version for deployed in place.target.record().previous]
    assert kept == ["3", "2"]
    assert place.kept() == {release.digest for release in releases[2:]}
    place.target.rollback(bad=releases[4].digest, actor="test", to=releases[2].digest)
    assert place.served() == "2"


def test_no_request_fails_while_releases_change(place: Place) -> None:
    one, two = (place.release(name, ENDS_CONNECTIONS) for name in ("one", "two"))
    place.deploy(one)
    # Nodes hear of a new Service a moment later; its address may have been another one's before.
    wait_until(lambda: place.served() == "one", "it is heard of", timeout=30)
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
    wait_until(lambda: "one" in seen, "the load is there", timeout=10)
    place.deploy(two)
    wait_until(lambda: "two" in seen, "the load sees the new release", timeout=10)
    place.target.rollback(bad=two.digest, actor="test")
    stop.set()
    for thread in threads:
        thread.join()
    assert (failed, seen) == ([], {"one", "two"})
