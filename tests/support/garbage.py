"""A store with releases of all ages, and the records of environments, for what collects garbage."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.support.releases import release_of

from airflow_cd.exceptions import ClusterError
from airflow_cd.model.release import Release, ReleaseRef
from airflow_cd.model.retention import Use, use_of_release
from airflow_cd.model.service import Service
from airflow_cd.releases.adapters import data_dir
from airflow_cd.retention.artifacts import Options, StoreCollector
from airflow_cd.retention.report import Row
from airflow_cd.stores.filesystem import FilesystemStore
from airflow_cd.targets.local.layout import Layout
from airflow_cd.targets.local.target import root_of
from airflow_cd.targets.record import Deployed, Record

# All that a test writes is as old as this, once the collection begins.
LATER = timedelta(days=100)


class Garbage:
    """
    One or more services, each with the environments ``staging`` and ``production``.

    What was stored is real; only the collector's clock is ahead.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CD__DATA_DIR", str(folder / "data"))
        self.store = FilesystemStore((folder / "store").as_uri())
        self.unfinished: set[tuple[str, str]] = set()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.now = datetime.now(timezone.utc) + LATER
        self.collector: StoreCollector | None = None

    def service(self, name: str = "hello", **keys: Any) -> Service:
        port = 8900 + sum(map(ord, name)) % 40 * 2
        environments = [
            {"name": one, "target": {"local": {"command": ["app"], "port": port + number}}}
            for number, one in enumerate(("staging", "production"))
        ]
        return Service.model_validate(
            {
                "name": name,
                "pipeline": "delivery",
                "source": {"repository": "/srv/hello.git"},
                "artifacts": self.store.url,
                "environments": environments,
                "retention": {"keep": 1, "younger_than": "10d"},
                **keys,
            }
        )

    def release(
        self, text: str, *, service: str = "hello", run: str | None = None, days: float = 50, **fields: Any
    ) -> tuple[Release, ReleaseRef]:
        """Package an archive and its documents, so many days before the collection."""
        plain = release_of(self.store.put_bytes(text.encode()), service=service, version=text)
        release = plain.model_copy(
            update={"contents": self.store.put_bytes(f"list of {text}".encode()), **fields}
        )
        ref = ReleaseRef(
            service=service,
            digest=release.digest,
            manifest=self.store.put_bytes(release.model_dump_json().encode()),
            store=self.store.url,
            version=text,
            revision=release.revision.sha,
        )
        self.use(release, ref, run=run or f"run_{text}", days=days)
        return release, ref

    def use(
        self, release: Release, ref: ReleaseRef, *, run: str, dag_id: str = "hello_delivery", days: float = 50
    ) -> Use:
        use = use_of_release(release, ref, (dag_id, run), self.now - timedelta(days=days))
        self.put(use, release.service)
        return use

    def put(self, use: Use, service: str = "hello") -> None:
        self.store.put_ref(f"uses/{service}/{use.key}", use.model_dump(mode="json"))

    def workspace(self, text: str, *, service: str = "hello", days: float = 50) -> Use:
        """Build a workspace."""
        digest = self.store.put_bytes(f"workspace {text}".encode())
        use = Use(
            dag_id="hello_delivery",
            run_id=f"run_{text}",
            at=self.now - timedelta(days=days),
            kind="workspace",
            name=text,
            revision="a" * 40,
            version=text,
            blobs=(digest,),
        )
        self.store.put_ref(f"builds/{text}", {"workspace": digest})
        self.put(use, service)
        return use

    def record(self, record: Record, *, service: str = "hello", environment: str = "production") -> None:
        layout = Layout(root_of(data_dir()), service, environment)
        layout.write_generation(record, "h:1")
        layout.make_current(record.generation)

    def collect(
        self,
        *services: Service,
        chosen: Sequence[str] | None = None,
        options: Options | None = None,
        days: float = 0,
    ) -> dict[tuple[str, str], Row]:
        """Collect, so many days later than :data:`LATER`; return the rows by service and kind."""
        found = services or (self.service(),)
        self.collector = StoreCollector(
            self.store,
            found,
            {one.name for one in found} if chosen is None else chosen,
            self._unfinished,
            options or Options(),
            self.now + timedelta(days=days),
            self.said.append,
        )
        return {(row.service, row.what): row for row in self.collector.collect()}

    def has(self, *digests: str | None) -> bool:
        """Tell whether all of these are there, or none is; the trash does not count."""
        there = {self.store.look("blob", one) is not None for one in digests if one is not None}
        assert len(there) == 1, "some are there, and others are not"
        return there == {True}

    def _unfinished(self, dag_id: str, run_ids: Collection[str]) -> Collection[str]:
        self.asked.append(dag_id)
        if ("down", "down") in self.unfinished:
            raise ClusterError("Airflow does not answer")
        return {run_id for run_id in run_ids if (dag_id, run_id) in self.unfinished}


def deployed(release: Release, **fields: Any) -> Deployed:
    """Return a release as an environment has it."""
    return Deployed(release=release, deployed_at=datetime.now(timezone.utc), actor="x/y", **fields)
