"""What comes back from a container was made by a command: it is bounded, and stays in its folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.exceptions import RunnerError
from airflow_cd.runners.workspace import BoundedFile, unpack


def tar(*members: tuple[str, bytes, str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, type_, link, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = type_, link, len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    file.seek(0)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    one = tmp_path / "job" / "tree"
    one.mkdir(parents=True)
    return one


def test_the_workspace_comes_back_with_its_links(folder: Path) -> None:
    unpack(
        tar(
            ("workspace", tarfile.DIRTYPE, "", b""),
            ("workspace/a", tarfile.REGTYPE, "", b"a"),
            ("workspace/b", tarfile.LNKTYPE, "workspace/a", b""),
            ("workspace/c", tarfile.SYMTYPE, "/etc/hostname", b""),
        ),
        folder,
    )
    assert (folder / "b").read_text() == "a"
    assert (folder / "c").is_symlink()


def test_what_comes_twice_is_not_written_through_a_link(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    twice = tar(
        ("workspace/x", tarfile.SYMTYPE, str(tmp_path / "secret"), b""),
        ("workspace/x", tarfile.REGTYPE, "", b"changed"),
    )
    with pytest.raises(RunnerError, match="twice, once as a link"):
        unpack(twice, folder)
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_left_out(folder: Path, kind: bytes) -> None:
    unpack(tar(("workspace/x", kind, "", b""), ("workspace/y", tarfile.REGTYPE, "", b"y")), folder)
    assert [path.name for path in folder.iterdir()] == ["y"]


def test_files_lose_what_rights_they_gave_others(folder: Path) -> None:
    file = tar(("workspace/x", tarfile.REGTYPE, "", b""))
    with tarfile.open(fileobj=file) as archive:
        info = archive.getmember("workspace/x")
    info.mode, again = 0o6777, io.BytesIO()
    with tarfile.open(fileobj=again, mode="w") as archive:
        archive.addfile(info)
    again.seek(0)
    unpack(again, folder)
    assert (folder / "x").stat().st_mode & 0o7777 == 0o755


def test_a_python_without_filters_unpacks_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.11.2 of Debian 12."""
    now, trusted = tarfile.TarFile.extractall, tarfile.fully_trusted_filter

    def then(self: tarfile.TarFile, path: Path, members: Any) -> None:
        now(self, path, members, filter=trusted)

    monkeypatch.delattr(tarfile, "fully_trusted_filter")
    monkeypatch.setattr(tarfile.TarFile, "extractall", then)
    unpack(tar(("workspace/a", tarfile.REGTYPE, "", b"a")), folder)
    assert (folder / "a").read_text() == "a"


@pytest.mark.parametrize(
    "members",
    [
        [
            ("workspace/out", tarfile.SYMTYPE, "{outside}", b""),
            ("workspace/out/x", tarfile.REGTYPE, "", b"x"),
        ],
        [("workspace/../../x", tarfile.REGTYPE, "", b"x")],
        [("workspace/x", tarfile.LNKTYPE, "workspace/../../secret", b"")],
        [
            ("workspace/out", tarfile.SYMTYPE, "{outside}", b""),
            ("workspace/x", tarfile.LNKTYPE, "workspace/out/secret", b""),
        ],
    ],
    ids=["through-a-link", "above", "hard-link-above", "hard-link-through-a-link"],
)
def test_a_tar_that_reaches_outside_is_refused(
    tmp_path: Path, folder: Path, members: list[tuple[str, bytes, str, bytes]]
) -> None:
    (tmp_path / "secret").write_text("secret")
    put = [
        (name, type_, link.replace("{outside}", str(tmp_path)), what) for name, type_, link, what in members
    ]
    with pytest.raises(RunnerError, match="outside of it"):
        unpack(tar(*put), folder)
    assert not (tmp_path / "x").exists() and not (folder / "x").exists()


def test_more_files_than_allowed_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CD__WORKSPACE_MAX_FILES", "100")
    many = tar(*((f"workspace/{n}", tarfile.REGTYPE, "", b"") for n in range(101)))
    with pytest.raises(RunnerError, match=r"more than 100 files.*\[cd\] workspace_max_files"):
        unpack(many, folder)


def test_more_bytes_than_allowed_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CD__WORKSPACE_MAX_BYTES", "1000")
    with (tmp_path / "tar").open("w+b") as file:
        bounded = BoundedFile(file)
        bounded.write(b"x" * 1000)
        with pytest.raises(RunnerError, match=r"more than 1000 bytes.*\[cd\] workspace_max_bytes"):
            bounded.write(b"x")
        assert file.tell() == 1000
