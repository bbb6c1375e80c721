"""A local target on a disk that is full, or in a folder with an odd name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.places import LocalPlace
from tests.support.small_disk import SmallDisk, mounted

from airflow_cd.exceptions import ArtifactError, CdError, TargetError
from airflow_cd.targets.local.target import root_of, shutdown
from airflow_cd.testing.programs import APP


def place_in(folder: Path, data: Path) -> LocalPlace:
    place = LocalPlace(folder)
    place.data = data
    place.reopen()
    return place


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "small", "3m") as disk:
        yield disk


@pytest.fixture
def place(tmp_path: Path, disk: SmallDisk) -> Iterator[LocalPlace]:
    """A target whose files lie on the small disk, and a store that does not."""
    one = place_in(tmp_path, disk.path / "data")
    try:
        yield one
    finally:
        shutdown(root_of(one.data))


def test_a_full_disk_stops_neither_what_runs_nor_the_next_try(place: LocalPlace, disk: SmallDisk) -> None:
    one, two, three = (place.release(text) for text in ("one", "two", "three"))
    place.deploy(one)
    place.deploy(two)
    before = disk.files()
    for leave in (0, 4096, 2 * 4096):
        disk.fill(leave)
        with pytest.raises(CdError, match=f"{disk.path}.*make room"):
            place.deploy(three)
        with pytest.raises(CdError, match=f"{disk.path}.*make room"):
            place.target.rollback(bad=two.digest, actor="test")
        disk.make_room()
        assert (place.served(), place.target.record().generation) == ("two", 2)
        assert place.instances() == ["hello.production.2"]
    assert not [name for name in disk.files() - before if "/." in name], "temporary files are left"
    place.target.rollback(bad=two.digest, actor="test")
    assert place.served() == "one"
    place.deploy(three)
    assert place.served() == "three"


def releases_on(disk: SmallDisk) -> set[str]:
    """Return the files but for those of Caddy's own storage, which it cleans in its own time."""
    return {name for name in disk.files() if "/caddy/" not in name}


def test_a_release_that_does_not_fit_is_not_half_there(place: LocalPlace, disk: SmallDisk) -> None:
    place.deploy(place.release("one"))
    before = releases_on(disk)
    large = place.release("large", APP + "\n# " + os.urandom(1_000_000).hex())
    with pytest.raises(ArtifactError, match=f"{disk.path}.*make room on the disk"):
        place.deploy(large)
    assert releases_on(disk) == before
    assert (place.served(), place.target.record().generation) == ("one", 1)


def test_a_folder_may_have_any_ordinary_name(tmp_path: Path) -> None:
    place = place_in(tmp_path, tmp_path / "dätä with späces, 日本, qu'o\"te $(id)")
    try:
        place.deploy(place.release("one"))
        assert place.served() == "one"
    finally:
        shutdown(root_of(place.data))


@pytest.mark.parametrize("name", ["100%", "%(here)s", "a ;b", "[x]", "{env.HOME}", "a*"])
def test_a_name_that_means_something_to_our_tools_is_refused(tmp_path: Path, name: str) -> None:
    place = place_in(tmp_path, tmp_path / name)
    with pytest.raises(TargetError, match="choose another `data_dir`"):
        place.deploy(place.release("one"))
    assert place.target.record().current is None
