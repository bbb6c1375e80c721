"""What each of Python's lock files says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_cd.exceptions import ArtifactError
from airflow_cd.packaging.lock_files import Dependency, read_lockfiles

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def read(folder: Path, name: str, text: str) -> list[Dependency]:
    (folder / name).write_text(text, encoding="utf-8")
    found = read_lockfiles(folder)
    assert found is not None
    assert {one.lockfile for one in found} <= {name}
    return found


UV = f"""
version = 1
[[package]]
name = "me"
source = {{ editable = "." }}
dependencies = [{{ name = "app" }}]
[package.optional-dependencies]
fast = [{{ name = "extra" }}]
[package.dev-dependencies]
dev = [{{ name = "tool" }}, {{ name = "shared" }}]
[[package]]
name = "app"
version = "1.0"
source = {{ registry = "https://index.example" }}
dependencies = [{{ name = "shared", marker = "os_name == 'nt'" }}]
sdist = {{ url = "u", hash = "{A}" }}
wheels = [{{ url = "u", hash = "{C}" }}, {{ url = "u", hash = "{B}" }}, {{ url = "u" }}]
[[package]]
name = "shared"
version = "2.0"
[[package]]
name = "extra"
version = "3.0"
[[package]]
name = "tool"
version = "4.0"
dependencies = [{{ name = "tool-part" }}, {{ name = "shared" }}]
[[package]]
name = "tool-part"
version = "5.0"
dependencies = [{{ name = "tool" }}]
[[package]]
name = "sibling"
version = "0.1"
source = {{ directory = "../sibling" }}
"""


def test_uv_tells_development_by_what_leads_there(tmp_path: Path) -> None:
    found = read(tmp_path, "uv.lock", UV)
    assert {one.name: one.development for one in found} == {
        "app": False,
        "shared": False,
        "extra": False,
        "tool": True,
        "tool-part": True,
    }
    assert found[0].hashes == (A, B, C)


def test_poetry(tmp_path: Path) -> None:
    text = '[[package]]\nname = "A.B"\nversion = "1"\ngroups = ["main", "dev"]\n'
    text += f'files = [{{file = "f", hash = "{A}"}}]\n'
    text += '[[package]]\nname = "tool"\nversion = "2"\ngroups = ["dev"]\n'
    found = read(tmp_path, "poetry.lock", text)
    assert found == [
        Dependency("pypi", "a-b", "1", "poetry.lock", (A,), False),
        Dependency("pypi", "tool", "2", "poetry.lock", (), True),
    ]


def test_old_poetry(tmp_path: Path) -> None:
    text = '[[package]]\nname = "a"\nversion = "1"\ncategory = "main"\n'
    text += '[[package]]\nname = "tool"\nversion = "2"\ncategory = "dev"\n'
    text += f'[metadata.files]\na = [{{file = "f", hash = "{A}"}}]\n'
    found = read(tmp_path, "poetry.lock", text)
    assert [(one.name, one.hashes, one.development) for one in found] == [
        ("a", (A,), False),
        ("tool", (), True),
    ]


@pytest.mark.parametrize("name", ["pylock.toml", "pylock.production.toml"])
def test_pylock(tmp_path: Path, name: str) -> None:
    text = f"""
lock-version = "1.0"
[[packages]]
name = "a"
version = "1"
[[packages.wheels]]
hashes = {{ sha256 = "{"a" * 64}", blake2b = "xyz" }}
[packages.sdist]
hashes = {{ sha256 = "{"b" * 64}" }}
[[packages]]
name = "zipped"
version = "2"
[packages.archive]
hashes = {{ sha256 = "{"c" * 64}" }}
[[packages]]
name = "beside"
[packages.directory]
path = "."
"""
    found = read(tmp_path, name, text)
    assert [(one.name, one.version, one.hashes) for one in found] == [
        ("a", "1", (A, B)),
        ("zipped", "2", (C,)),
    ]


def test_pipfile(tmp_path: Path) -> None:
    content = {
        "_meta": {"hash": {"sha256": "x"}},
        "default": {"a": {"version": "==1", "hashes": [A]}, "git": {"git": "https://git.example/x"}},
        "develop": {"tool": {"version": "==2"}},
    }
    found = read(tmp_path, "Pipfile.lock", json.dumps(content))
    assert [(one.name, one.version, one.hashes, one.development) for one in found] == [
        ("a", "1", (A,), False),
        ("tool", "2", (), True),
    ]


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("a==1.0", ("a", "1.0")),
        ("A_b.C == 1.0 ; python_version < '4'", ("a-b-c", "1.0")),
        ("a[x,y]==1.0;os_name=='nt'", ("a", "1.0")),
        ("a===1.0+local.1", ("a", "1.0+local.1")),
        ("a==1!2.0rc1 # why", ("a", "1!2.0rc1")),
        ("a==1 \\\n  --hash=sha256:00", ("a", "1")),
        ("\ufeffa==1", ("a", "1")),
        ("a==1.*", None),
        ("a==1,<2", None),
        ("a==1 ,<2", None),
        ("a>=1", None),
        ("a", None),
        ("a!=1", None),
        ("# a==1", None),
        ("-r other.txt", None),
        ("-e .", None),
        ("--index-url https://a==1", None),
        ("a @ https://x.example/a==1.zip", None),
    ],
)
def test_requirements(tmp_path: Path, line: str, pinned: tuple[str, str] | None) -> None:
    found = read(tmp_path, "requirements.txt", f"{line}\r\nlast==0\n")
    assert [(one.name, one.version) for one in found] == sorted(
        [("last", "0"), *([pinned] if pinned else [])]
    )


@pytest.mark.parametrize(
    ("name", "development"),
    [
        ("requirements.txt", False),
        ("requirements-dev.txt", True),
        ("requirements_test.txt", True),
        ("requirements-device.txt", False),
    ],
)
def test_the_name_of_a_requirements_file_tells_development(
    tmp_path: Path, name: str, development: bool
) -> None:
    (one,) = read(tmp_path, name, f"a==1 --hash={A} --hash=md5:0 --hash=sha256:short\n")
    assert (one.development, one.hashes) == (development, (A,))


def test_a_line_without_end_is_no_work(tmp_path: Path) -> None:
    # With the square of this length, it would take minutes.
    (tmp_path / "requirements.txt").write_text("a" + " " * 1_000_000 + "==1\nb==2\n")
    assert [one.name for one in read_lockfiles(tmp_path) or []] == ["b"]


def test_a_file_larger_than_any_lock_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "uv.lock").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(ArtifactError, match=r"uv\.lock cannot be read: it is larger than 64 MiB"):
        read_lockfiles(tmp_path)
