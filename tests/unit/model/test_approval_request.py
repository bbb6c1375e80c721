"""What an approver reads."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow_cd.model.decision_requests import (
    QuestionSubject,
    approval_body,
    approval_subject,
    subject_in,
)
from airflow_cd.model.release import Commit, Release, Revision, TestTotals
from airflow_cd.model.text import escape

COMMIT = {
    "author_name": "Alice [x](http://evil)",
    "author_email": "alice@example.com",
    "committed_at": datetime(2026, 1, 2, tzinfo=timezone.utc),
}


def release(version: str = "1.2.3", commits: int = 1, **changes: object) -> Release:
    revision = Revision(sha="c" * 40, subject="fix", tree="d" * 40, version=version, **COMMIT)
    log = tuple(Commit(sha=f"{i:040x}", subject=f"change {i} <b>", **COMMIT) for i in range(commits))
    values = {
        "service": "hello",
        "digest": "sha256:" + "a" * 64,
        "size": 1,
        "revision": revision,
        "version": version,
        "changelog": log,
        "build": "k",
        "created_at": revision.committed_at,
        **changes,
    }
    return Release.model_validate(values)


def test_it_names_release_digest_tests_and_changes() -> None:
    new = release(tests={"unit": TestTotals(total=5, failed=0, skipped=1)}, since="e" * 40)
    text = approval_body(new, "production", release("1.2.2"))
    assert approval_subject(new, "production") == "Deploy hello 1.2.3 to production?"
    for part in (new.digest, "1.2.2", "unit: 4 passed, 1 skipped of 5", "`eeeeeeee`", "change 0"):
        assert part in text


def test_commit_messages_are_shown_as_they_are() -> None:
    text = approval_body(release(), "production", None)
    assert "[x](http://evil)" not in text
    assert r"\[x\]\(http://evil\)" in text
    assert "<b>" not in text.replace(r"\<b\>", "")
    assert escape("a\n# b") == r"a \# b"


def test_a_first_release_and_a_long_changelog() -> None:
    text = approval_body(release(commits=40), "production", None, "https://git.example/compare")
    assert "nothing yet" in text
    assert "the beginning" in text
    assert "and 10 more" in text
    assert "(https://git.example/compare)" in text


def test_what_a_question_is_about_is_data_beside_its_text() -> None:
    about = QuestionSubject.of(release(), "sha256:" + "b" * 64)
    field = {"value": about.model_dump(mode="json"), "description": None, "schema": {}}
    assert subject_in({"about": field, "reason": {"value": ""}}) == about
    for other in ({}, {"about": None}, {"about": {"value": None}}, {"about": {"value": {"digest": "x"}}}):
        assert subject_in(other) is None


def test_authors_are_those_of_all_changes_since_production() -> None:
    other = Commit(**{**COMMIT, "author_email": "bob@example.com"}, sha="e" * 40, subject="x")
    log = (*release().changelog, other, other)
    assert release(changelog=log, since="f" * 40).authors == ("alice@example.com", "bob@example.com")
    # A first release brings everything there is; asking all who ever wrote a line would leave nobody.
    assert release(changelog=log).authors == ("alice@example.com",)
