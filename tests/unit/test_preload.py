"""What a task's process has already, when Airflow forks it: judged in fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_cd.preload import preload

# What the tasks of a pipeline import while they work, each with what makes it do so.
WORK = """
import asyncio, pathlib, tempfile
from airflow_cd.packaging.archive import pack
from airflow_cd.stores.registry import open_store
from airflow_cd.model.health import HealthCheck
from airflow_cd.model.junit import parse_junit
from airflow_cd.runners.registry import open_runner
from airflow_cd.sources.git import GitSource
from airflow_cd.targets.local.supervision import Supervisor
from airflow_cd.targets.local.target import LocalTarget
from airflow_cd.triggers.health import http_client
from airflow_cd.triggers.health import take_sample

folder = pathlib.Path(tempfile.mkdtemp())
open_runner("subprocess")
open_store(folder.as_uri())
parse_junit(b"<testsuite/>")
Supervisor(folder)._api()
check = HealthCheck(http="/", timeout="1s")

async def sample():
    async with http_client([check], "http://127.0.0.1:9") as client:
        return await take_sample(check, "http://127.0.0.1:9", client)

assert not asyncio.run(sample()).ok
"""
PROBE = """
import json, sys
{first}
before = set(sys.modules)
{then}
print("PROBE" + json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(then: str, first: str, home: Path) -> set[str]:
    """Return the modules that ``then`` loads in a new interpreter, after ``first``."""
    ran = subprocess.run(
        [sys.executable, "-c", PROBE.format(first=first, then=then)],
        capture_output=True,
        text=True,
        env={**os.environ, "AIRFLOW_HOME": str(home)},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    line = next(line for line in ran.stdout.splitlines() if line.startswith("PROBE"))
    return set(json.loads(line.removeprefix("PROBE")))


def test_work_loads_nothing_after_it(tmp_path: Path) -> None:
    assert loaded_by(WORK, "from airflow_cd.preload import preload; preload()", tmp_path) == set()


def test_models_are_whole_after_it(tmp_path: Path) -> None:
    incomplete = """
def incomplete(model):
    for one in model.__subclasses__():
        if not one.__pydantic_complete__:
            raise SystemExit(f"{one} is left to the tasks")
        incomplete(one)
from airflow_cd.model.base import Frozen
incomplete(Frozen)
"""
    loaded_by(incomplete, "from airflow_cd.preload import preload; preload()", tmp_path)


def test_work_would_load_a_lot_without_it(tmp_path: Path) -> None:
    assert len(loaded_by(WORK, "import airflow_cd.dag_factories", tmp_path)) > 50


def test_vendors_are_loaded_by_name_only(tmp_path: Path) -> None:
    warmed = loaded_by("preload()", "from airflow_cd.preload import preload", tmp_path)
    assert not [name for name in warmed if name.split(".")[0] in ("docker", "kubernetes", "boto3")]
    assert "docker.models.containers" in loaded_by(
        "preload('docker')", "from airflow_cd.preload import preload", tmp_path
    )


def test_what_is_not_installed_keeps_nothing_from_starting(tmp_path: Path) -> None:
    first = "import sys; sys.modules['defusedxml'] = None; from airflow_cd.preload import preload"
    assert "supervisor.xmlrpc" in loaded_by("preload('docker')", first, tmp_path)


def test_a_misspelt_extra_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid extra 'dokcer'; expected one of docker, kubernetes"):
        preload("dokcer")
