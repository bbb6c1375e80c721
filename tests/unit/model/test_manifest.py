"""What an approver of a train reads, and what the note of its run says."""

from __future__ import annotations

from tests.support.releases import release_of

from airflow_cd.model.release import Commit, ReleaseName
from airflow_cd.model.train import TrainManifest, TrainRelease

DIGEST = "sha256:" + "1" * 64


def passenger(service: str = "hello", commits: int = 3, went_wrong: tuple[str, ...] = ()) -> TrainRelease:
    release = release_of(DIGEST, service=service, version="1.1.0")
    commit = Commit.model_validate(release.revision.model_dump(include=set(Commit.model_fields)))
    changed = release.model_copy(update={"since": "b" * 40, "changelog": (commit,) * commits})
    return TrainRelease(
        release=changed, manifest=DIGEST, running=ReleaseName.of(release_of(DIGEST)), went_wrong=went_wrong
    )


def test_the_size_of_a_change_and_what_went_wrong_before_are_its_risk() -> None:
    body = TrainManifest(train="nightly", passengers=(passenger(went_wrong=("1 of 2: rollback",)),)).body()
    assert "3 commits by 1 author since 2026-01-01; 1 of 2: rollback" in body
    first = TrainRelease(release=release_of(DIGEST), manifest=DIGEST)
    assert "first release" in TrainManifest(train="nightly", passengers=(first,)).body()


def test_its_digest_covers_the_manifest_of_every_release() -> None:
    one, two = (TrainManifest(train="t", passengers=(passenger(name),)) for name in ("a", "b"))
    other = passenger("a").model_copy(update={"manifest": "sha256:" + "2" * 64})
    assert len({one.digest, two.digest, TrainManifest(train="t", passengers=(other,)).digest}) == 3
    assert one.digest in one.body()


def test_the_note_is_no_longer_than_airflow_takes() -> None:
    many = TrainManifest(train="t", passengers=tuple(passenger(f"service-{n}") for n in range(100)))
    assert len(many.note()) <= 1000
    assert many.note().startswith("service-0: 1.0.0 -> 1.1.0\n")
    assert many.note().endswith("and others: see the log")
    assert TrainManifest(train="t", passengers=(passenger(),)).note() == "hello: 1.0.0 -> 1.1.0"
