"""What dead tasks left on this machine, and git caches that nobody uses."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from tests.support.garbage import Garbage
from tests.support.git_repository import GitRepository

from airflow_cd.releases.adapters import data_dir
from airflow_cd.retention.machine import collect_machine
from airflow_cd.retention.report import Row
from airflow_cd.sources.git import GitSource
from airflow_cd.sources.mirror import Mirror
from airflow_cd.sources.stale_mirrors import remove_mirror

MONTH = timedelta(days=30)


def collect(
    garbage: Garbage, repository: str, *, needed: set[str] | None = None, dry_run: bool = False
) -> dict[str, Row]:
    services = [garbage.service(source={"repository": repository})]
    return {row.what: row for row in collect_machine(services, needed, MONTH, dry_run=dry_run)}


def age(path: Path, days: float = 40) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then))


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path)


def test_folders_of_dead_tasks_are_removed_and_those_of_living_ones_stay(garbage: Garbage) -> None:
    root = data_dir() / "scratch"
    for name in ("build-dead", "build-alive"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text("12345")
    with FileLock(root / "build-alive.lock"):
        dry = collect(garbage, "/srv/x.git", dry_run=True)["scratch folders"]
        assert (root / "build-dead").is_dir()
        assert collect(garbage, "/srv/x.git")["scratch folders"] == dry
    assert (dry.removed.count, dry.removed.size) == (1, 5)
    assert [one.name for one in root.iterdir() if one.is_dir()] == ["build-alive"]


def test_a_cache_that_no_service_names_and_nobody_uses_is_removed(
    garbage: Garbage, tmp_path: Path, repository: GitRepository
) -> None:
    (tmp_path / "others").mkdir()
    others = [GitRepository(tmp_path / "others", name) for name in ("left", "used elsewhere")]
    mirrors = []
    for one in (repository, *others):
        sha, source = one.commit({"a": "b"}), GitSource(one.url, cache_dir=data_dir() / "git")
        source.commit(sha)
        mirrors.append(Mirror(one.url, data_dir() / "git").folder)
        age(mirrors[-1])
    # One of another services file: to use what it has says that it is used.
    GitSource(others[1].url, cache_dir=data_dir() / "git").commit(others[1].git("rev-parse", "HEAD").strip())
    dry = collect(garbage, repository.url, dry_run=True)["git caches"]
    assert all(mirror.is_dir() for mirror in mirrors) and dry.removed.count == 1
    assert collect(garbage, repository.url)["git caches"] == dry
    assert [mirror.is_dir() for mirror in mirrors] == [True, False, True]


def test_a_cache_that_is_being_written_stays(tmp_path: Path) -> None:
    folder = tmp_path / "0.git"
    folder.mkdir()
    with FileLock(tmp_path / "0.lock"):
        assert not remove_mirror(folder)
    assert folder.is_dir() and remove_mirror(folder) and not folder.exists()
    assert not remove_mirror(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_commits_that_nothing_needs_are_not_kept_any_longer(
    garbage: Garbage, repository: GitRepository, packed: bool
) -> None:
    old, needed, young = (repository.commit({"a": text}) for text in "abc")
    source = GitSource(repository.url, cache_dir=data_dir() / "git")
    mirror = Mirror(repository.url, data_dir() / "git").folder
    for sha in (old, needed):
        source.commit(sha)
    if packed:
        repository.git("-C", str(mirror), "pack-refs", "--all")
        age(mirror / "packed-refs")
    else:
        age(mirror / "refs/cd/taken" / old)
        age(mirror / "refs/cd/taken" / needed)
    source.commit(young)

    def taken() -> set[str]:
        return {*repository.git("-C", str(mirror), "for-each-ref", "--format=%(refname:lstrip=3)").split()}

    unknown = collect(garbage, repository.url)["commits of git caches"]
    assert not unknown.is_complete and {old, needed, young} <= taken()
    assert (
        collect(garbage, repository.url, needed={needed}, dry_run=True)["commits of git caches"].removed.count
        == 1
    )
    assert {old, needed, young} <= taken()
    assert collect(garbage, repository.url, needed={needed})["commits of git caches"].removed.count == 1
    assert old not in taken() and {needed, young} <= taken()
    assert GitSource(repository.url, cache_dir=data_dir() / "git").commit(old).sha == old and old in taken()
