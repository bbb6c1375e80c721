"""Which release is meant."""

from __future__ import annotations

import pytest
from tests.support.releases import release_of

from airflow_cd.model.decision_requests import find_release, release_choices, rollback_body
from airflow_cd.model.release import Release


def release(version: str, sha: str, digest: str, subject: str = "fix") -> Release:
    return release_of(f"sha256:{digest * 64}", version=version, sha=sha * 40, subject=subject)


NEW, OLD = release("1.2", "a", "1"), release("1.1", "b", "2")


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("previous", None),
        (" 1.1 ", OLD.digest),
        ("a" * 7, NEW.digest),
        ("a" * 40, NEW.digest),
        ("2" * 12, OLD.digest),
        (OLD.digest, OLD.digest),
        ("sha256:2222222", OLD.digest),
    ],
)
def test_a_release_is_named_by_version_commit_or_digest(wanted: str, meant: str | None) -> None:
    assert find_release(wanted, [NEW, OLD]) == meant


@pytest.mark.parametrize("wanted", ["1.0", "1", "aaaaaa", "sha256:" + "a" * 40, "", "../1.1", "2.1\n"])
def test_anything_else_names_what_there_is(wanted: str) -> None:
    with pytest.raises(ValueError, match=r"names no release .* 1\.2 \(aaaaaaaa\)"):
        find_release(wanted, [NEW, OLD])


def test_two_releases_that_fit_are_never_guessed() -> None:
    with pytest.raises(ValueError, match="names 2 releases"):
        find_release("a" * 40, [NEW, release("1.2", "a", "3")])


def test_buttons_are_told_apart() -> None:
    twin = release("1.2", "a", "3")
    assert release_choices([NEW, OLD]) == {"1.2 (aaaaaaaa)": NEW.digest, "1.1 (bbbbbbbb)": OLD.digest}
    assert release_choices([NEW, twin]) == {
        "1.2 (aaaaaaaa) 111111111111": NEW.digest,
        "1.2 (aaaaaaaa) 333333333333": twin.digest,
    }


def test_words_of_commits_are_shown_as_they_are() -> None:
    shown = rollback_body("production", NEW, [release("1.1", "b", "2", subject="<b>**all**</b>\n# yes")])
    assert r"\<b\>\*\*all\*\*\</b\> \# yes" in shown
