"""What a collection keeps and removes: one test for each reason to keep, on a real store and real records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from tests.support.garbage import Garbage, deployed

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError
from airflow_cd.model.release import Release, ReleaseName, ReleaseRef
from airflow_cd.model.rollout import Plan
from airflow_cd.releases.adapters import data_dir
from airflow_cd.retention import artifacts
from airflow_cd.retention.artifacts import Options
from airflow_cd.targets.local.target import root_of
from airflow_cd.targets.record import Aborted, Record, Rollout

NOW = datetime.now(timezone.utc)


def blobs(made: tuple[Release, ReleaseRef]) -> tuple[str | None, ...]:
    release, ref = made
    return release.digest, release.contents, ref.manifest


def test_what_nobody_keeps_goes_in_two_steps(garbage: Garbage) -> None:
    old, newest = garbage.release("old"), garbage.release("newest", days=49)
    row = garbage.collect()["hello", "releases"]
    assert (row.removed.count, row.kept.count, row.why) == (1, 1, "1 among the newest 1")
    assert row.removed.size == sum(len(one) for one in (b"old", b"list of old", old[0].model_dump_json()))
    assert not garbage.has(*blobs(old)) and garbage.has(*blobs(newest))
    # For a day it can be taken back.
    trash = garbage.collect(days=0.9)["hello", "trash"]
    assert (trash.removed.count, trash.kept.count) == (0, 4)
    assert garbage.collect(days=1.1)["hello", "trash"].removed.count == 4
    assert not list((garbage.store.root / "trash").rglob("*.json"))
    assert not garbage.store.has(old[0].digest)
    assert ("hello", "trash") not in garbage.collect(days=3)


def test_a_dry_run_says_the_same_and_removes_nothing(garbage: Garbage) -> None:
    old, workspace = garbage.release("old"), garbage.workspace("old")
    garbage.release("newest", days=49)
    dry = garbage.collect(options=Options(dry_run=True))
    assert garbage.has(*blobs(old), *workspace.blobs) and not (garbage.store.root / "trash").exists()
    assert dry == garbage.collect()
    assert dry["hello", "releases"].removed.count == dry["hello", "workspaces"].removed.count == 1


def rollout(candidate: Release, *before: Release) -> Rollout:
    plan = Plan()
    return Rollout(
        token="t",
        candidate=deployed(candidate),
        progress=plan.begin(NOW),
        before=tuple(deployed(one) for one in before),
    )


def aborted(release: Release) -> Aborted:
    return Aborted(token="t", release=ReleaseName.of(release), actor="x", at=NOW, reason="bad")


@pytest.mark.parametrize(
    ("needing", "why"),
    [
        (lambda one: {"current": deployed(one)}, "runs in"),
        (lambda one: {"previous": (deployed(one),)}, "can be gone back to in"),
        (lambda one: {"rollout": rollout(one)}, "on its way into"),
        (
            lambda one: {"rollout": rollout(one.model_copy(update={"digest": "sha256:" + "0" * 64}), one)},
            "can",
        ),
        (lambda one: {"aborted": aborted(one)}, "aborted in"),
    ],
    ids=["current", "previous", "candidate", "before", "aborted"],
)
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_what_an_environment_needs_is_kept(
    garbage: Garbage, needing: Callable[[Release], dict[str, Any]], why: str, environment: str
) -> None:
    old, other = garbage.release("old"), garbage.release("other")
    garbage.release("newest", days=49)
    garbage.record(Record(generation=1, **needing(old[0])), environment=environment)
    row = garbage.collect()["hello", "releases"]
    assert garbage.has(*blobs(old)) and not garbage.has(*blobs(other))
    assert why in row.why and environment in row.why


def test_a_record_needs_blobs_without_a_use_of_its_own(garbage: Garbage) -> None:
    """A release of the time before uses were recorded can share an archive with one that has a use."""
    release, ref = garbage.release("shared", service="other")
    garbage.release("newest", service="other", days=49)
    garbage.record(Record(generation=1, current=deployed(release)), service="hello")
    garbage.collect(garbage.service(), garbage.service("other"))
    assert garbage.has(release.digest, release.contents) and not garbage.has(ref.manifest)


def test_what_waits_for_the_train_is_kept(garbage: Garbage) -> None:
    old, _ = garbage.release("old"), garbage.release("newest", days=49)
    garbage.store.put_ref("ready/hello", {"release": old[1].model_dump(mode="json")})
    assert "waits for the train" in garbage.collect()["hello", "releases"].why
    assert garbage.has(*blobs(old))


@pytest.mark.parametrize("dag_id", ["hello_delivery", "train_nightly"])
def test_what_a_run_that_has_not_ended_uses_is_kept(garbage: Garbage, dag_id: str) -> None:
    """A candidate may wait for its approval for weeks, and a train for its departure."""
    (old, ref), _ = garbage.release("old"), garbage.release("newest", days=49)
    workspace = garbage.workspace("old")
    garbage.use(old, ref, run="waiting", dag_id=dag_id)
    garbage.unfinished = {(dag_id, "waiting"), ("hello_delivery", "run_old")}
    rows = garbage.collect()
    assert "its run has not ended" in rows["hello", "releases"].why
    assert garbage.has(*blobs((old, ref)), *workspace.blobs)
    garbage.unfinished = {(dag_id, "waiting")}
    garbage.collect()
    assert garbage.has(*blobs((old, ref))) and not garbage.has(*workspace.blobs)


@pytest.mark.parametrize("days", [9.9, 10.1])
def test_what_is_young_is_kept(garbage: Garbage, days: float) -> None:
    young, workspace = garbage.release("young", days=days), garbage.workspace("young", days=days)
    garbage.release("newest", days=5)
    garbage.collect()
    assert garbage.has(*blobs(young), *workspace.blobs) == (days < 10)


def test_the_newest_are_counted_by_release_not_by_run(garbage: Garbage) -> None:
    made = [garbage.release(text, days=40 - number) for number, text in enumerate("abcd")]
    for number in range(3):
        garbage.use(*made[3], run=f"again_{number}", days=30)
    garbage.use(*made[0], run="again", days=35)  # an old commit that was released again
    garbage.collect(garbage.service(retention={"keep": 2, "younger_than": "1d"}))
    assert [garbage.has(*blobs(one)) for one in made] == [True, False, False, True]


def test_blobs_that_others_use_stay(garbage: Garbage) -> None:
    hello, other = garbage.service(), garbage.service("other")
    mine, _ = garbage.release("same", run="old"), garbage.release("newest", days=49)
    theirs = garbage.release("same", service="other", run="new", days=1)
    build = garbage.workspace("same")
    garbage.put(build.model_copy(update={"at": garbage.now}), "other")
    garbage.collect(hello, other)
    assert garbage.has(*blobs(theirs), *build.blobs) and not garbage.has(mine[1].manifest)
    assert garbage.store.get_ref("builds/same")


def test_a_build_that_is_removed_is_not_found_again(garbage: Garbage) -> None:
    old = garbage.workspace("old")
    garbage.collect()
    assert garbage.store.look("ref", "builds/old") is None and not garbage.has(*old.blobs)


def test_an_image_is_left_to_its_registry_and_not_found_again(garbage: Garbage) -> None:
    garbage.release("old", image="registry.example/hello")
    release, _ = garbage.release("newest", image="registry.example/hello", days=49)
    old = "sha256:" + hashlib.sha256(b"old").hexdigest()
    for name, digest in (("1", old), ("2", release.digest), ("newest/hello", old)):
        garbage.store.put_ref(f"images/{name}", {"digest": digest, "size": 1})
    garbage.collect()
    there = [garbage.store.look("ref", f"images/{name}") is not None for name in ("1", "2", "newest/hello")]
    assert there == [False, True, True]


def test_a_decision_goes_with_its_release(garbage: Garbage) -> None:
    (_, old), (_, newest) = garbage.release("old"), garbage.release("newest", days=49)

    def decide(name: str, run: str, manifest: str | None) -> None:
        value = {"dag_id": "hello_delivery", "run_id": run, "task_id": "production.approve"}
        decision = None if manifest is None else {"outcome": "approved", "manifest": manifest}
        garbage.store.put_ref(f"approvals/hello/production/{name}", {**value, "decision": decision})

    decide("withdrawn", "run_old", None)
    decide("old", "run_of_train", old.manifest)
    decide("waiting", "run_waiting", old.manifest)
    decide("newest", "run_newest", newest.manifest)
    decide("unknown", "run_of_yore", "sha256:" + "1" * 64)
    garbage.unfinished = {("hello_delivery", "run_waiting")}
    row = garbage.collect()["hello", "decisions"]
    there = {one.name.rpartition("/")[2] for one in garbage.store.refs("approvals/hello")}
    assert there == {"waiting", "newest", "unknown"} and row.removed.count == 2
    assert "without a record of its use" in row.why and "has not ended" in row.why


@pytest.mark.parametrize("broken", ["record", "airflow"])
def test_what_is_not_known_is_kept(garbage: Garbage, broken: str) -> None:
    old = garbage.release("old"), garbage.release("old there", service="other")
    for service in ("hello", "other"):
        garbage.release(f"newest of {service}", service=service, days=49)
    if broken == "record":
        garbage.record(Record(generation=1))
        (record,) = (root_of(data_dir()) / "hello").rglob("record.json")
        record.write_text("{")
    else:
        garbage.unfinished = {("down", "down")}
    rows = garbage.collect(garbage.service(), garbage.service("other"))
    row = rows["hello", "releases"]
    assert not row.is_complete and "nothing is removed" in row.why
    assert garbage.has(*blobs(old[0])) and garbage.has(*blobs(old[1])) == (broken == "airflow")
    assert garbage.collector is not None and not garbage.collector.is_complete


def test_trash_stays_while_it_is_not_known_whether_it_is_needed(garbage: Garbage) -> None:
    old, _ = garbage.release("old"), garbage.release("newest", days=49)
    garbage.collect()
    garbage.record(Record(generation=1, current=deployed(old[0])))
    (record,) = (root_of(data_dir()) / "hello").rglob("record.json")
    content = record.read_text()
    record.write_text("{")
    garbage.collect(days=3)
    record.write_text(content)
    garbage.collect(days=4)
    assert garbage.has(*blobs(old)) and any("taken back" in one for one in garbage.said)


def test_a_use_that_cannot_be_read_stops_everything(garbage: Garbage) -> None:
    old, _ = garbage.release("old"), garbage.release("newest", days=49)
    garbage.store.put_ref("uses/other/1", {"from": "a later version"})
    with pytest.raises(ArtifactCorruptError, match="uses/other/1"):
        garbage.collect()
    assert garbage.has(*blobs(old))


def test_a_collection_that_takes_too_long_stops(garbage: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = garbage.release("old"), garbage.release("newest", days=49)
    monkeypatch.setattr(artifacts, "_LONGEST_SECONDS", -1)
    with pytest.raises(ArtifactError, match="took too long"):
        garbage.collect()
    assert garbage.has(*blobs(old))


def test_services_that_are_not_chosen_keep_everything(garbage: Garbage) -> None:
    old = garbage.release("old"), garbage.release("old there", service="other")
    for service in ("hello", "other", "foreign"):
        garbage.release(f"newest of {service}", service=service, days=49)
    rows = garbage.collect(garbage.service(), garbage.service("other"), chosen=["other"])
    assert garbage.has(*blobs(old[0])) and not garbage.has(*blobs(old[1]))
    assert rows["foreign", "releases"].why == "not a service of this file"


def test_what_was_used_within_a_day_stays_whatever_the_policy_says(garbage: Garbage) -> None:
    garbage.now = datetime.now(timezone.utc)
    old, _ = garbage.release("old"), garbage.release("newest", days=49)
    row = garbage.collect(options=Options(younger_than=timedelta(0)))["hello", "releases"]
    assert garbage.has(*blobs(old)) and "used within a day" in row.why


# --- without a record of a use


def large(text: str) -> bytes:
    return text.encode() * 500_000


def test_what_no_use_names_is_kept_unless_an_age_is_given(garbage: Garbage) -> None:
    unknown, document = garbage.store.put_bytes(large("unknown")), garbage.store.put_bytes(b"a document")
    built = garbage.store.put_bytes(large("workspace"))
    garbage.store.put_ref("builds/before", {"workspace": built})
    used, _ = garbage.release("used " * 300_000), garbage.release("newest", days=49)
    running = release_with(garbage, large("running"))
    garbage.record(Record(generation=1, current=deployed(running)))
    garbage.collect()
    assert garbage.has(unknown, document, built)
    garbage.collect(options=Options(unrecorded=timedelta(days=101)))
    assert garbage.has(unknown, document, built, running.digest)
    row = garbage.collect(options=Options(unrecorded=timedelta(days=90)))["-", "unrecorded"]
    assert row.removed.count == 2 and not garbage.has(unknown, built)
    assert garbage.has(document, running.digest) and garbage.store.look("ref", "builds/before") is None
    assert garbage.collect(days=2)["-", "trash"].removed.count == 3
    assert not garbage.has(*blobs(used))


def release_with(garbage: Garbage, content: bytes) -> Release:
    from tests.support.releases import release_of

    return release_of(garbage.store.put_bytes(content))


@pytest.mark.parametrize("reason", ["broken", "foreign", "chosen"])
def test_all_must_be_known_for_that(garbage: Garbage, reason: str) -> None:
    unknown = garbage.store.put_bytes(large("unknown"))
    services, chosen = [garbage.service()], ["hello"]
    if reason == "broken":
        garbage.record(Record(generation=1))
        (record,) = (root_of(data_dir()) / "hello").rglob("record.json")
        record.write_text("{")
    elif reason == "foreign":
        garbage.store.put_ref("ready/other", {})
    else:
        services.append(garbage.service("other"))
    rows = garbage.collect(*services, chosen=chosen, options=Options(unrecorded=timedelta(days=1)))
    assert not rows["-", "unrecorded"].is_complete and garbage.has(unknown)
