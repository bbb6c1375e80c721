"""What npm's lock files say, in their three versions."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.packaging.lock_files import Dependency, read_lockfiles

DIGEST = bytes(range(64))
INTEGRITY = "sha512-" + base64.b64encode(DIGEST).decode()
SHA512 = f"sha512:{DIGEST.hex()}"


def read(folder: Path, content: Any, name: str = "package-lock.json") -> list[Dependency]:
    (folder / name).write_text(json.dumps(content))
    found = read_lockfiles(folder)
    assert found is not None
    return found


PACKAGES = {
    "": {"name": "me", "version": "0.1.0", "dependencies": {"a": "^1.0.0"}},
    "packages/part": {"version": "0.1.0"},
    "node_modules/part": {"resolved": "packages/part", "link": True},
    "node_modules/a": {"version": "1.0.0", "integrity": INTEGRITY},
    "node_modules/a/node_modules/@scope/b": {"version": "2.0.0", "dev": True},
    "packages/part/node_modules/a": {"version": "3.0.0", "devOptional": True},
    "node_modules/alias": {"name": "real", "version": "4.0.0"},
    "node_modules/also-part": {"name": "part", "resolved": "file:part.tgz"},
}


@pytest.mark.parametrize("name", ["package-lock.json", "npm-shrinkwrap.json"])
@pytest.mark.parametrize("version", [2, 3])
def test_packages_of_version_2_and_3(tmp_path: Path, version: int, name: str) -> None:
    content: dict[str, Any] = {"lockfileVersion": version, "packages": PACKAGES}
    if version == 2:  # repeats it for older readers
        content["dependencies"] = {"a": {"version": "1.0.0"}, "part": {"version": "file:packages/part"}}
    assert read(tmp_path, content, name) == [
        Dependency("npm", "@scope/b", "2.0.0", name, (), True),
        Dependency("npm", "a", "1.0.0", name, (SHA512,), False),
        Dependency("npm", "a", "3.0.0", name, (), True),
        Dependency("npm", "real", "4.0.0", name, (), False),
    ]


def test_dependencies_of_version_1(tmp_path: Path) -> None:
    nested = {"@scope/b": {"version": "2.0.0", "dev": True, "dependencies": {"c": {"version": "3.0.0"}}}}
    dependencies = {
        "a": {"version": "1.0.0", "integrity": f"{INTEGRITY} sha1-{'A' * 27}=", "dependencies": nested},
        "alias": {"version": "npm:@real/one@4.0.0"},
        "beside": {"version": "file:../beside"},
        "forked": {"version": "git+ssh://git@git.example/forked.git#abc"},
    }
    found = read(tmp_path, {"lockfileVersion": 1, "dependencies": dependencies})
    assert [(one.name, one.version, one.development) for one in found] == [
        ("@real/one", "4.0.0", False),
        ("@scope/b", "2.0.0", True),
        ("a", "1.0.0", False),
        ("c", "3.0.0", False),
        ("forked", "git+ssh://git@git.example/forked.git#abc", False),
    ]
    assert found[2].hashes == (f"sha1:{'0' * 40}", SHA512)


def test_a_project_without_dependencies_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, {"lockfileVersion": 3, "packages": {"": {}}}) == []
    assert read(tmp_path, {"lockfileVersion": 1}) == []
