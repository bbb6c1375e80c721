"""What is uploaded: a wheel with the package and nothing else, and a source distribution that builds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

import pytest

from airflow_cd import __version__

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_target"


def run(argv: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    ran = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})}
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def build(source: Path, into: Path, kind: str) -> Path:
    """Build with the backend that is installed, so that no registry is asked. :param kind: wheel or sdist"""
    run([sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(into)], source)
    (built,) = into.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(contents(wheel))
    info = f"airflow_provider_cd-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"airflow_cd", info}
    expected = {
        str(path.relative_to(ROOT / "provider"))
        for path in (ROOT / "provider" / "airflow_cd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("airflow_cd/")} == expected
    assert {
        "airflow_cd/py.typed",
        "airflow_cd/model/services.schema.json",
        "airflow_cd/testing/target_conformance.py",
        f"{info}/licenses/LICENSE",
    } <= names
    assert not [name for name in names if Path(name).name.startswith(("test_", "conftest"))]


def test_its_entry_points_resolve(wheel: Path, tmp_path: Path) -> None:
    declared = ConfigParser()
    declared.read_string(
        contents(wheel)[f"airflow_provider_cd-{__version__}.dist-info/entry_points.txt"].decode()
    )
    values = [value for group in declared.sections() for value in declared[group].values()]
    assert len(values) >= 2
    code = (
        "import sys, pkgutil, airflow_cd\n"
        "for value in sys.argv[1:]:\n    assert pkgutil.resolve_name(value)\n"
        "print(airflow_cd.__file__)"
    )
    env = {"PYTHONPATH": str(wheel), "AIRFLOW_HOME": str(tmp_path)}
    assert str(wheel) in run([sys.executable, "-c", code, *values], tmp_path, env)


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert contents(build(source, tmp_path / "wheel", "wheel")) == contents(wheel)


def test_an_index_would_take_them(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    said = run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], tmp_path)
    assert said.count("PASSED") == 2


def test_a_target_of_another_package_passes_the_suite_from_outside(wheel: Path, tmp_path: Path) -> None:
    """Both packages are installed from their wheels, away from the source tree, and its own tests run."""
    site = tmp_path / "site"
    example = build(EXAMPLE, tmp_path / "example", "wheel")
    for one in (wheel, example):  # a pure wheel is installed by being unpacked
        with zipfile.ZipFile(one) as opened:
            opened.extractall(site)
    away = tmp_path / "away"
    shutil.copytree(EXAMPLE / "tests", away / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLE / "services.yaml", away)
    env = {"PYTHONPATH": str(site), "AIRFLOW_HOME": str(tmp_path / "home")}
    probe = "import airflow_cd, airflow_cd_folder as own; print(airflow_cd.__file__, own.__file__)"
    assert run([sys.executable, "-c", probe], tmp_path, env).count(str(site)) == 2
    said = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], tmp_path / "away", env
    )
    assert "passed" in said and "skipped" not in said
