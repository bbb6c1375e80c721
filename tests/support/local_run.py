"""A pipeline's tasks one after the other in this process: real repository, store and target, no scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.sdk.execution_time.context import OutletEventAccessors
from harness.ports import any_free
from tests.support.git_repository import GitRepository

from airflow_cd.model.service import Service
from airflow_cd.operators.build import BuildOperator
from airflow_cd.operators.deploy import DeployOperator
from airflow_cd.operators.package import PackageOperator
from airflow_cd.releases.adapters import open_target
from airflow_cd.stores.filesystem import FilesystemStore
from airflow_cd.targets.local.target import root_of, shutdown
from airflow_cd.targets.record import Record

APP = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write({text!r}.encode())

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class LocalRun:
    """
    A service with one environment, ``production``.

    What tasks leave is in :attr:`xcoms`, by task id; a test may change it like a user with that permission.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CD__DATA_DIR", str(folder / "data"))
        self.data, self.store = folder / "data", FilesystemStore((folder / "store").as_uri())
        (folder / "source").mkdir()
        self.repository = GitRepository(folder / "source")
        self.port = any_free()[0]
        self.xcoms: dict[str, Any] = {}
        self.run_id, self.started = "manual__1", datetime(2026, 1, 2, tzinfo=timezone.utc)
        self.run_after: datetime | None = None  # when the run was started by hand; by default just now

    def service(
        self,
        signing: str | None = None,
        verify: list[str] | None = None,
        name: str = "hello",
        health: Sequence[dict[str, Any]] = (),
    ) -> Service:
        local = {"command": ["python", "src/app.py"], "port": self.port, "drain": "100ms"}
        production: dict[str, Any] = {"name": "production", "target": {"local": local}, "health": [*health]}
        if verify is not None:
            production["verify"] = {"conn_ids": verify}
        definition = {
            "name": name,
            "pipeline": "deployment",
            "source": {"repository": self.repository.url},
            "package": {"archive": {"include": ["src/**"]}},
            "artifacts": self.store.url,
            "environments": [production],
        }
        if signing is not None:
            definition["signing"] = {"conn_id": signing}
        return Service.model_validate(definition)

    def commit(self, text: str) -> str:
        return self.repository.commit({"src/app.py": APP.format(text=text), "src/page.html": text})

    def build(self, service: Service, sha: str) -> dict[str, Any]:
        operator = BuildOperator(task_id="build", service=service, revision=sha)
        self.xcoms["build"] = operator.execute(self.context)
        return dict(self.xcoms["build"])

    def package(self, service: Service, sha: str | None = None) -> dict[str, Any]:
        """Package, after building when a commit is given, and return the release reference."""
        if sha is not None:
            self.build(service, sha)
        self.xcoms["package"] = PackageOperator(task_id="package", service=service).execute(self.context)
        return dict(self.xcoms["package"])

    def deploy(self, service: Service) -> dict[str, Any]:
        operator = DeployOperator(task_id="deploy", service=service, environment="production")
        return operator.execute(self.context)

    def served(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/", trust_env=False).text

    def record(self, service: Service) -> Record:
        return open_target(service, service.production).record()

    def blob(self, digest: str) -> Path:
        """Return the file a digest lies in."""
        value = digest.removeprefix("sha256:")
        return self.store.root / "blobs" / "sha256" / value[:2] / value[2:]

    @property
    def context(self) -> Any:
        run = SimpleNamespace(
            dag_id="hello_deployment",
            run_id=self.run_id,
            run_type="manual",
            start_date=self.started,
            run_after=self.run_after or datetime.now(timezone.utc),
            triggering_user_name="admin",
        )
        ti = SimpleNamespace(xcom_pull=lambda task_ids: self.xcoms.get(task_ids))
        return {"ti": ti, "dag_run": run, "outlet_events": OutletEventAccessors()}


@contextmanager
def local_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRun]:
    """Open a run in an empty folder; what it started is ended afterwards."""
    run = LocalRun(folder, monkeypatch)
    try:
        yield run
    finally:
        shutdown(root_of(run.data))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
