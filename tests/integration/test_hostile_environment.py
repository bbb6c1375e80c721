"""Whole pipelines in an environment nobody would choose: locale, umask, folders, and a clock that jumps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from harness.airflow import RunningAirflow
from harness.ports import any_free
from tests.integration.services import APP, DAG_FILE, REPORT, WRITE_REPORT
from tests.support.databases import database_template
from tests.support.git_repository import GitRepository
from tests.support.settable_clock import settable_clock

from airflow_cd.model.service import Service
from airflow_cd.packaging.archive import unpack
from airflow_cd.targets.base import Access
from airflow_cd.targets.local.target import root_of, shutdown
from airflow_cd.targets.record import Record
from airflow_cd.targets.registry import open_target

pytestmark = pytest.mark.exhaustive

DAY, HOUR = 86_400, 3_600
# Sets the clock of the processes that read the file, from now on.
SET_CLOCK = ["python", "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"]
# A service beside which the days fly: from one step of a task to the next it is tomorrow at least.
CLOCK_APP = (
    """
import itertools, os, threading, time


def bend():
    for day in itertools.count(1):
        with open(os.environ["CLOCK"] + ".new", "w") as file:
            file.write(str(day * 86400))
        os.replace(os.environ["CLOCK"] + ".new", os.environ["CLOCK"])
        time.sleep(0.005)


threading.Thread(target=bend, daemon=True).start()
"""
    + APP
)


class Pipeline:
    """
    A deployment pipeline whose runs are processes of their own: ``airflow dags test``, without a scheduler.

    :param data: what ``[cd] data_dir`` is to be
    """

    def __init__(self, folder: Path, data: Path, template: Path) -> None:
        self.folder, self.data = folder, data
        settings = {"AIRFLOW__CD__DATA_DIR": str(data)}
        self.airflow = RunningAirflow(folder / "home", template=template, extra_config=settings)
        self.airflow.prepare()
        self.repository = GitRepository(folder)
        self.port = any_free()[0]
        self.definition = self._definition()

    def commit(self, text: str, app: str = APP) -> str:
        files = {"src/app.py": app.format(text=text, sick_in=""), "tests.xml": REPORT.format(bad="")}
        return self.repository.commit({**files, "src/ünïcode 日本": "x"}, f"say {text}: ünïcode 日本")

    def run(self, sha: str, **env: str) -> str:
        """Run the pipeline for a commit to its end and return what it printed."""
        (self.airflow.dags_folder / "env.yaml").write_text(yaml.safe_dump({"services": [self.definition]}))
        (self.airflow.dags_folder / "env.py").write_text(DAG_FILE.format(name="env"))
        dag_id = f"{self.definition['name']}_deployment"
        ran = self.airflow.run(
            "dags", "test", dag_id, "--conf", json.dumps({"revision": sha}), timeout=400, **env
        )
        said = ran.stdout + ran.stderr
        assert ran.returncode == 0, said[-8000:]
        return said

    def served(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/", trust_env=False).text

    def record(self) -> Record:
        service = Service.model_validate(self.definition)
        return open_target(service.name, service.production, Access(self.data, unpack)).record()

    def _definition(self) -> dict[str, Any]:
        local = {"command": ["python", "src/app.py"], "port": self.port, "drain": "1s", "env": {"SICK": "/x"}}
        check = {"http": "/healthz", "interval": "100ms", "healthy_after": 2, "failures": 0}
        return {
            "name": "env",
            "pipeline": "deployment",
            "source": {"repository": self.repository.url, "poll_interval": "1h"},
            "build": [["python", "-m", "compileall", "-q", "src"]],
            "test": {"unit": {"commands": [["python", "-c", WRITE_REPORT]], "junit": "report.xml"}},
            "package": {"archive": {"include": ["src/**"]}},
            "environments": [{"name": "production", "target": {"local": local}, "health": [check]}],
        }


@pytest.fixture
def pipeline(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Pipeline]:
    template = database_template(pytestconfig.rootpath)
    one = Pipeline(tmp_path, tmp_path / "dätä with späces", template)
    try:
        yield one
    finally:
        shutdown(root_of(one.data))


def test_neither_locale_nor_umask_nor_folders_matter(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = pipeline.commit("first")
    (tmp_path / "tmp with späces").mkdir()
    for name in ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE"):
        pipeline.airflow.env.pop(name, None)
    before = os.umask(0o077)
    try:
        # Not even root can write to a folder of /proc.
        pipeline.run(sha, LC_ALL="C", HOME="/proc/self", TMPDIR=str(tmp_path / "tmp with späces"))
    finally:
        os.umask(before)
    assert pipeline.served() == "first"
    current = pipeline.record().current
    assert current is not None
    assert current.release.revision.subject == "say first: ünïcode 日本"
    (release,) = pipeline.data.glob("local/env/production/releases/*")
    assert (release / "src" / "ünïcode 日本").read_text() == "x"
    assert (release / "src" / "app.py").stat().st_mode & 0o777 == 0o644
    assert list((tmp_path / "tmp with späces").iterdir()) == []


def test_a_clock_that_jumps_decides_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """A day forward during the build, back an hour during the tests, day after day from the deployment on."""
    clock = tmp_path / "clock"
    env = settable_clock(tmp_path, clock)
    pipeline.definition["build"].append([*SET_CLOCK, str(clock), str(DAY)])
    pipeline.definition["test"]["unit"]["commands"].append([*SET_CLOCK, str(clock), str(-HOUR)])
    (production,) = pipeline.definition["environments"]
    production["target"]["local"]["env"]["CLOCK"] = str(clock)
    # Long enough to be watched in the triggerer.
    production["health"][0].update(interval="1s", healthy_after=5, timeout="60s")
    sha = pipeline.commit("first", CLOCK_APP)
    said = pipeline.run(sha, **env)
    assert pipeline.served() == "first"
    assert "5 good samples in a row" in said
    record = pipeline.record()
    assert record.current is not None and record.generation == 1
