"""Many small services whose releases are ready for one train, made without their pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import yaml
from harness.airflow import RunningAirflow
from harness.ports import any_free
from harness.waiting import wait_until
from tests.integration.services import APP, DAG_FILE
from tests.support.git_repository import GitRepository
from tests.support.releases import release_of

from airflow_cd.model.release import Release, ReleaseRef
from airflow_cd.model.service import Service
from airflow_cd.packaging.archive import pack, unpack
from airflow_cd.stores.registry import open_store
from airflow_cd.targets.base import Access, Target
from airflow_cd.targets.record import Record
from airflow_cd.targets.registry import open_target


class Fleet:
    """
    Services of one repository, with one environment each, and a train they all go by.

    :param layers: how many services there are in each layer; each goes after the one of its number in the
        layer before
    :param train: keys of the train
    """

    app = APP

    def __init__(
        self, airflow: RunningAirflow, name: str, folder: Path, layers: Sequence[int], **train: Any
    ) -> None:
        self.airflow, self.name, self.dag_id = airflow, name, f"train_{name}"
        self.layers = [[f"{name}{layer}-{n:03}" for n in range(size)] for layer, size in enumerate(layers)]
        self.names = [one for layer in self.layers for one in layer]
        self._folder, self._repository = folder, GitRepository(folder)
        self._store = open_store((airflow.home / "cd" / "artifacts").as_uri())
        self._ports = dict(zip(self.names, any_free(len(self.names)), strict=True))
        self._services = {one: self._define(one) for one in self.names}
        self.order = [
            {"after": [before], "service": after}
            for one, two in zip(self.layers, self.layers[1:], strict=False)
            for before, after in zip(one, two, strict=False)
        ]
        definition = {"name": name, "schedule": "0 2 1 1 *", "order": self.order, **train}
        self._write(definition)

    def release(self, text: str, sick: Sequence[str] = ()) -> dict[str, Release]:
        """Make a release of a new commit for each service. :param sick: whose are unhealthy"""
        sha = self._repository.commit(message=f"say {text}")
        archives = {is_sick: self._archive(text, is_sick) for is_sick in (False, True)}
        return {
            one: release_of(archives[one in sick], service=one, version=f"1.0-{text}", sha=sha)
            for one in self.names
        }

    def deploy(self, releases: dict[str, Release]) -> None:
        """Bring a release of each service to production, without any pipeline."""

        def work(release: Release) -> None:
            target = self._target(release.service)
            target.deploy(release, self._store, expected=target.record().generation, actor="a person")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, releases.values()))

    def make_ready(self, releases: dict[str, Release]) -> None:
        """Let the next train take these."""
        for release in releases.values():
            ref = ReleaseRef(
                service=release.service,
                digest=release.digest,
                manifest=self._store.put_bytes(release.model_dump_json().encode()),
                store=self._store.url,
                version=release.version,
                revision=release.revision.sha,
            )
            self._store.put_ref(f"ready/{release.service}", {"release": ref.model_dump(mode="json")})

    def record(self, one: str) -> Record:
        """Return what the target says that a service runs."""
        return self._target(one).record()

    def served(self, one: str) -> str:
        """Return what a service answers."""
        return httpx.get(f"http://127.0.0.1:{self._ports[one]}/", trust_env=False).text

    def history(self, one: str) -> list[str]:
        """Return what happened to a service, as the history has it."""
        return [event["kind"] for event in self.airflow.api.asset_events(f"cd/{one}/production")]

    def _target(self, one: str) -> Target:
        service = Service.model_validate(self._services[one])
        data = self.airflow.home / "cd"
        return open_target(one, service.production, Access(data, unpack))

    def _archive(self, text: str, sick: bool) -> str:
        tree = self._folder / f"{text}-{sick}"
        (tree / "src").mkdir(parents=True)
        (tree / "src" / "app.py").write_text(self.app.format(text=text, sick_in="production" if sick else ""))
        archive = self._folder / f"{text}-{sick}.tar.gz"
        pack(tree, archive, include=("**",), exclude=())
        return self._store.put_file(archive)

    def _define(self, one: str) -> dict[str, Any]:
        local = {
            "command": ["python", "src/app.py"],
            "port": self._ports[one],
            "drain": "1s",
            "env": {"SICK": str(self._folder / "never-")},
        }
        check = {"http": "/healthz", "interval": "100ms", "healthy_after": 2, "failures": 2}
        return {
            "name": one,
            "pipeline": "deployment",
            "train": self.name,
            "source": {
                "repository": self._repository.url,
                "branch": "unwatched",
                "revisions": "any",
                "poll_interval": "1h",
            },
            "environments": [{"name": "production", "target": {"local": local}, "health": [check]}],
        }

    def _write(self, train: dict[str, Any]) -> None:
        content = yaml.safe_dump({"services": list(self._services.values()), "trains": [train]})
        folder, api = self.airflow.dags_folder, self.airflow.api
        (folder / f"{self.name}.yaml").write_text(content)
        (folder / f"{self.name}.py").write_text(DAG_FILE.format(name=self.name))
        wait_until(
            lambda: self.dag_id in api.dag_ids(),
            f"{self.dag_id} is there",
            timeout=180,
            explain=lambda: str(api.import_errors()),
        )
        api.unpause(self.dag_id)
