"""The same files give the same bytes, and nothing is written outside the folder."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_cd.artifacts.archive import pack, unpack
from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError

NAMES = st.from_regex(r"[a-zA-Z0-9 ._-]{1,12}", fullmatch=True).filter(lambda name: name.strip(".") != "")
TREES = st.dictionaries(NAMES.map(str.lower), st.binary(max_size=200), min_size=1, max_size=6)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@given(tree=TREES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_comes_back_and_order_and_times_do_not_matter(
    tree: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("trees")
    for n, names in enumerate((list(tree), list(reversed(tree)))):
        for name in names:
            path = base / str(n) / "d" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tree[name])
            os.utime(path, (n * 1000, n * 1000))
            path.chmod(0o600 if n else 0o664)
        pack(base / str(n), base / f"{n}.tar.gz", include=["**"])
    assert digest(base / "0.tar.gz") == digest(base / "1.tar.gz")
    unpack(base / "0.tar.gz", base / "out")
    assert {path.name: path.read_bytes() for path in (base / "out" / "d").iterdir()} == tree


def test_processes_agree_whatever_their_locale_zone_and_hash_seed(tmp_path: Path) -> None:
    for name in ("ä.txt", "b/run.sh", "z"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "tree/b/run.sh").chmod(0o755)
    code = "import sys; from pathlib import Path; from airflow_cd.artifacts.archive import pack; "
    code += "pack(Path(sys.argv[1]), Path(sys.argv[2]), include=['**'])"
    digests = set()
    for n, extra in enumerate(({"TZ": "UTC", "LC_ALL": "C.UTF-8"}, {"TZ": "Asia/Tokyo", "LC_ALL": "C"})):
        out = tmp_path / f"{n}.tar.gz"
        env = {**os.environ, **extra, "PYTHONHASHSEED": str(n)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "tree"), str(out)], check=True, env=env)
        digests.add(digest(out))
    assert len(digests) == 1
    unpack(tmp_path / "0.tar.gz", tmp_path / "out")
    assert os.access(tmp_path / "out/b/run.sh", os.X_OK)
    assert not os.access(tmp_path / "out/z", os.X_OK)


def test_patterns(tmp_path: Path) -> None:
    for name in ("src/app.py", "src/deep/x.py", "src/__pycache__/app.pyc", "top.py", "Procfile", "docs/a.md"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def packed(*include: str, exclude: tuple[str, ...] = ()) -> list[str]:
        return pack(tmp_path / "tree", tmp_path / "x", include=include, exclude=exclude)

    assert packed("*.py") == ["top.py"]
    assert packed("**/*.py") == ["src/app.py", "src/deep/x.py", "top.py"]
    assert packed("src", "Procfile", exclude=("**/__pycache__/**",)) == [
        "Procfile",
        "src/app.py",
        "src/deep/x.py",
    ]
    assert packed("docs/?.md") == ["docs/a.md"]
    with pytest.raises(ArtifactError, match=r"'srv/\*\*' matches no file"):
        packed("srv/**")


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside"])
def test_links_that_leave_the_folder_are_not_packed(tmp_path: Path, target: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(target)
    with pytest.raises(UnsafeArchiveError, match="points outside"):
        pack(tmp_path / "tree", tmp_path / "x", include=["**"])


def test_links_within_the_folder_are_kept(tmp_path: Path) -> None:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/app").write_text("app")
    (tmp_path / "tree/bin/app").symlink_to("../app")
    pack(tmp_path / "tree", tmp_path / "x", include=["**"])
    unpack(tmp_path / "x", tmp_path / "out")
    assert os.readlink(tmp_path / "out/bin/app") == "../app"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil")],
        [member("a/../../evil")],
        [member("/evil")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.SYMTYPE, "../../evil")],
        [member("link", tarfile.SYMTYPE, "."), member("link/evil")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("device", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("twice"), member("twice")],
        [member("good"), member("a\nb/../../evil")],
    ],
)
def test_hostile_archives_are_refused_whole(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"evil"))
    box = tmp_path / "box"
    box.mkdir()
    with pytest.raises(UnsafeArchiveError):
        unpack(tmp_path / "evil.tar.gz", box / "out")
    assert list(box.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_bombs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/zeros").write_bytes(bytes(10_000_000))
    pack(tmp_path / "tree", tmp_path / "x", include=["**"])
    with pytest.raises(UnsafeArchiveError, match="more than 1000 bytes"):
        unpack(tmp_path / "x", tmp_path / "out", max_bytes=1000)
    assert not (tmp_path / "out").exists()


def test_setuid_bits_do_not_survive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(member("su", mode=0o6755), io.BytesIO(b"evil"))
    unpack(tmp_path / "x.tar.gz", tmp_path / "out")
    assert (tmp_path / "out/su").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("content", [b"", b"not an archive", b"\x1f\x8b\x08\x00truncated"])
def test_what_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ArtifactError, match="not a .tar.gz archive"):
        unpack(tmp_path / "x", tmp_path / "out")
