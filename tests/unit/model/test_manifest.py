"""What an approver of a train reads, and what the note of its run says."""

from __future__ import annotations

import pytest
from tests.support.releases import release_of

from airflow_cd.model.release import Commit, ReleaseName, TestTotals
from airflow_cd.model.text import escape
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


def test_an_empty_train_says_so_in_its_note() -> None:
    assert TrainManifest(train="t").note() == "nothing was on board"


def test_a_note_of_exactly_the_longest_length_is_whole() -> None:
    absent = {"a": "x" * (1000 - len("a: not on board, "))}
    assert TrainManifest(train="t", absent=absent).note() == f"a: not on board, {absent['a']}"


def test_the_note_has_a_line_for_each_member() -> None:
    manifest = TrainManifest(train="t", passengers=(passenger(),), absent={"c": "held", "b": "is running"})
    assert manifest.note().split("\n") == [
        "hello: 1.0.0 -> 1.1.0",
        "b: not on board, is running",
        "c: not on board, held",
    ]


def test_the_summary_has_the_keys_that_the_run_stores() -> None:
    manifest = TrainManifest(train="t", passengers=(passenger(),), absent={"b": "held"})
    assert manifest.summary() == {
        "manifest": manifest.digest,
        "on_board": {"hello": "1.1.0"},
        "absent": {"b": "held"},
    }


@pytest.mark.parametrize(("count", "releases"), [(0, "0 releases"), (1, "1 release"), (2, "2 releases")])
def test_the_question_counts_the_releases(count: int, releases: str) -> None:
    manifest = TrainManifest(train="t", passengers=tuple(passenger(f"s{n}") for n in range(count)))
    assert manifest.subject() == f"Let the train t depart with {releases}?"


def test_an_approver_reads_a_row_the_changes_and_who_stays_behind() -> None:
    one = passenger(commits=1, went_wrong=("rolled back once",))
    tests = {"unit": TestTotals(total=5, failed=1, skipped=1), "end": TestTotals(total=2)}
    one = one.model_copy(update={"release": one.release.model_copy(update={"tests": tests})})
    first = TrainRelease(release=release_of(DIGEST, service="new"), manifest=DIGEST, went_wrong=("no tests",))
    absent = {"c": "is *held*", "b": "is running"}
    manifest = TrainManifest(train="t", passengers=(one, first), absent=absent)
    commit = one.release.changelog[0]
    assert manifest.body() == "\n".join(
        [
            f"Manifest: `{manifest.digest}`",
            "",
            "| service | from | to | tests | risk |",
            "|---|---|---|---|---|",
            "| hello | 1.0.0 | 1.1.0 (`111111111111`) | 5 of 7 passed "
            "| 1 commit by 1 author since 2026-01-01; rolled back once |",
            "| new | nothing | 1.0.0 (`111111111111`) | none | first release; no tests |",
            "",
            "**hello**",
            "",
            f"- `{commit.short}` {escape(commit.subject)} ({escape(commit.author_name)})",
            "",
            "**new**",
            "",
            "- no commits that touch it",
            "",
            "**Not on board**",
            "",
            "- b: is running",
            "- c: is \\*held\\*",
        ]
    )


@pytest.mark.parametrize(
    ("commits", "shown", "more"), [(5, 5, None), (6, 5, "- and 1 more"), (9, 5, "- and 4 more")]
)
def test_five_commits_are_listed_and_the_others_counted(commits: int, shown: int, more: str | None) -> None:
    lines = TrainManifest(train="t", passengers=(passenger(commits=commits),)).body().split("\n")
    assert len([line for line in lines if line.startswith("- `")]) == shown
    assert [line for line in lines if line.startswith("- and")] == ([more] if more else [])


def test_the_size_of_a_change_counts_its_commits_and_its_authors() -> None:
    two = passenger(commits=2)
    other = two.release.changelog[0].model_copy(update={"author_email": "other@example.com"})
    changed = two.release.model_copy(update={"changelog": (*two.release.changelog[:1], other)})
    body = TrainManifest(train="t", passengers=(two.model_copy(update={"release": changed}),)).body()
    assert "2 commits by 2 authors since 2026-01-01" in body
