"""A small service with a repository of its own, known to a running Airflow."""

from __future__ import annotations

import copy
import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml
from harness.airflow import RunningAirflow
from harness.ports import any_free
from harness.runs import Run
from harness.waiting import wait_until
from tests.support.git_repository import GitRepository

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.hooks.clients import CLIENTS
from airflow_cd.model.release import Release, ReleaseRef
from airflow_cd.model.service import Service
from airflow_cd.packaging.archive import unpack
from airflow_cd.stores.registry import open_store
from airflow_cd.targets.base import Access, Target
from airflow_cd.targets.local.layout import Layout
from airflow_cd.targets.local.target import root_of
from airflow_cd.targets.record import Record
from airflow_cd.targets.registry import open_target

APP = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = {text!r}
SICK_IN = {sick_in!r}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        sick = self.path == "/healthz" and (
            os.environ["CD_ENVIRONMENT"] == SICK_IN or os.path.exists(os.environ["SICK"] + TEXT)
        )
        body = TEXT.encode()
        self.send_response(503 if sick else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

REPORT = """<testsuite><testcase classname="t" name="good"/>{bad}</testsuite>"""
BAD_CASE = """<testcase classname="t" name="bad"><failure message="no"/></testcase>"""
WRITE_REPORT = """
import shutil, sys
shutil.copy("tests.xml", "report.xml")
sys.exit("failure" in open("report.xml").read())
"""

_OF_PRODUCTION = ("approval", "monitor", "verify", "when_closed", "window_approvers")

DAG_FILE = """from airflow_cd.dag_factories import load_dags
load_dags("{name}.yaml", globals())
"""


class TestService:
    """
    A service in a running Airflow.

    :param changes: merged into its definition: those of ``_OF_PRODUCTION`` of production,
        anything else at the top
    """

    __test__ = False
    app, dag_file = APP, DAG_FILE
    environments: tuple[str, ...] = ("staging", "production")

    def __init__(
        self, airflow: RunningAirflow, name: str, pipeline: str, folder: Path, **changes: Any
    ) -> None:
        self.airflow, self.name, self.pipeline = airflow, name, pipeline
        self.dag_id = f"{name}_{pipeline}"
        folder.mkdir(parents=True, exist_ok=True)
        self.repository = GitRepository(folder)
        self._sick = folder / "sick"
        self.ports = dict(zip(self.environments, any_free(len(self.environments)), strict=True))
        self.definition = self._define(**changes)
        self.head = self.commit("first")
        self._write()

    def commit(
        self, text: str, *, sick_in: str = "", tests_pass: bool = True, message: str = "", **options: str
    ) -> str:
        """
        Push a version of the service that answers ``text``, and return its SHA.

        :param message: default: ``say <text>``
        :param options: ``author``, ``email`` and ``branch``
        """
        files = {
            "src/app.py": self.app.format(text=text, sick_in=sick_in),
            "tests.xml": REPORT.format(bad="" if tests_pass else BAD_CASE),
        }
        self.head = self.repository.commit(files, message or f"say {text}", **options)  # type: ignore[arg-type]
        return self.head

    def fall_ill(self, text: str, environment: str = "production") -> None:
        """Make the running version that answers ``text`` unhealthy from now on."""
        Path(f"{self._sick}-{environment}-{text}").touch()

    def change_health(self, **check: Any) -> None:
        """Change production's health check for the tasks that start from now on."""
        self.definition["environments"][-1]["health"][0].update(check)
        self._write_file()

    def redefine(self, *, package: Any = None, **production: Any) -> None:
        """Edit the file: how it is packaged, or production's keys (``None`` removes one)."""
        if package is not None:
            self.definition["package"] = package
        last = self.definition["environments"][-1]
        last.update(production)
        for key in [key for key, value in production.items() if value is None]:
            del last[key]
        self._write_file()

    def watch(self, poll_interval: str, branch: str = "main") -> None:
        """Let Airflow watch a branch of the repository this often."""
        self.definition["source"].update(poll_interval=poll_interval, branch=branch)
        self._write_file()

    def change(self, **changes: Any) -> None:
        """Change the definition as an edit of the file would; tasks that start later see it."""
        self._merge(self.definition, changes)
        self._write_file()

    def add_broken_neighbour(self) -> None:
        """Put a service with a misspelt key into the same file."""
        self._write_file({**copy.deepcopy(self.definition), "name": "neighbour", "buld": []})

    def run(self, sha: str | None = None) -> Run:
        """Release a commit (default: the head) by hand, as *Trigger DAG* does."""
        return Run.triggered(self.airflow.api, self.dag_id, {"revision": sha or self.head})

    def bring_to_production(self, run: Run) -> None:
        """Deploy the release of a run without its pipeline."""
        ref = ReleaseRef.model_validate(run.xcom("package"))
        target = self._target("production")
        store = open_store(ref.store)
        release = Release.model_validate_json(store.get_bytes(ref.manifest))
        target.deploy(release, store, expected=target.record().generation, actor="a person")

    def served(self, environment: str = "production") -> str:
        """Return what the service answers there."""
        return httpx.get(f"http://127.0.0.1:{self.ports[environment]}/", trust_env=False).text

    def record(self, environment: str = "production") -> Record:
        """Return what the target says that runs."""
        return self._target(environment).record()

    def files(self, environment: str = "production") -> Path:
        """Return the folder of the release that runs there."""
        current = self.record(environment).current
        assert current is not None
        layout = Layout(root_of(self.airflow.home / "cd"), self.name, environment)
        return layout.release(current.release.digest)

    def history(self, environment: str = "production") -> list[dict[str, Any]]:
        """Return the asset events about the environment, oldest first."""
        return self.airflow.api.asset_events(f"cd/{self.name}/{environment}")

    def remove(self) -> None:
        """Take the service out of Airflow and end its processes."""
        service = Service.model_validate(self.definition)
        self.airflow.api.pause(self.dag_id)
        for file in self.airflow.dags_folder.glob(f"{self.name}.*"):
            file.unlink()
        for environment in service.environments:
            target = open_target(self.name, environment, self._access())
            wait_until(partial(_is_removed, target), f"{self.name} is removed", timeout=60)

    def _target(self, environment: str) -> Target:
        service = Service.model_validate(self.definition)
        return open_target(self.name, service.environment(environment), self._access())

    def _access(self) -> Access:
        return Access(self.airflow.home / "cd", unpack, clients=CLIENTS)

    def _write(self) -> None:
        self._write_file()
        dag_file = self.airflow.dags_folder / f"{self.name}.py"
        dag_file.write_text(self.dag_file.format(name=self.name))
        api = self.airflow.api
        wait_until(
            lambda: self.dag_id in api.dag_ids(),
            f"{self.dag_id} is there",
            timeout=60,
            explain=lambda: str(api.import_errors()),
        )
        self.airflow.api.unpause(self.dag_id)
        # Watchers of a DAG that was paused start when its file is parsed.
        dag_file.touch()

    def _write_file(self, *more: dict[str, Any]) -> None:
        content = yaml.safe_dump({"services": [self.definition, *more]})
        (self.airflow.dags_folder / f"{self.name}.yaml").write_text(content)
        dag_file = self.airflow.dags_folder / f"{self.name}.py"
        if dag_file.exists():
            # Airflow looks at its time alone, and parses what is new at once.
            dag_file.touch()

    def _define(self, **changes: Any) -> dict[str, Any]:
        def environment(name: str) -> dict[str, Any]:
            local = {
                "command": ["python", "src/app.py"],
                "port": self.ports[name],
                "drain": "1s",
                "env": {"SICK": f"{self._sick}-{name}-"},
            }
            check = {"http": "/healthz", "interval": "100ms", "healthy_after": 2, "failures": 2}
            return {"name": name, "target": {"local": local}, "health": [check]}

        definition = {
            "name": self.name,
            "pipeline": self.pipeline,
            # Tests start their runs themselves; a branch that does not exist starts none.
            "source": {
                "repository": self.repository.url,
                "branch": "unwatched",
                "revisions": "any",
                "poll_interval": "1h",
            },
            "build": [["python", "-m", "compileall", "-q", "src"]],
            "test": {"unit": {"commands": [["python", "-c", WRITE_REPORT]], "junit": "report.xml"}},
            "package": {"archive": {"include": ["src/**"]}},
            "environments": [environment(name) for name in self.environments],
        }
        self._merge(definition, changes)
        return definition

    @staticmethod
    def _merge(definition: dict[str, Any], changes: dict[str, Any]) -> None:
        for key, value in copy.deepcopy(changes).items():
            (definition["environments"][-1] if key in _OF_PRODUCTION else definition)[key] = value


def _is_removed(target: Target) -> bool:
    try:
        target.remove()  # type: ignore[attr-defined]
    except DeployConflictError:  # a test may end before its run does
        return False
    return True


@contextmanager
def made(
    kind: type[TestService], airflow: RunningAirflow, folder: Path, test: str
) -> Iterator[Callable[..., Any]]:
    """Make services, in any thread; they are gone at the end of the block. :param test: who uses them"""
    all_made: list[TestService] = []
    numbers = itertools.count()

    def make(pipeline: str = "delivery", **changes: Any) -> TestService:
        name = f"s{zlib.crc32(test.encode())}x{next(numbers)}"
        one = kind(airflow, name, pipeline, folder / name, **changes)
        all_made.append(one)
        return one

    yield make
    for one in all_made:
        one.remove()
