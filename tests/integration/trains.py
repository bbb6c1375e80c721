"""Several services in one file, with the train they go to production by."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import yaml
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.services import DAG_FILE, TestService


class TestTrain:
    """
    A train and its members, known to a running Airflow.

    :param members: names, made unique by the test's name
    :param health: changes of the health checks in production
    :param train: keys of the train; names in ``order`` are those of ``members``
    """

    __test__ = False

    def __init__(
        self,
        airflow: RunningAirflow,
        folder: Path,
        test: str,
        members: list[str],
        pipeline: str = "deployment",
        health: dict[str, Any] | None = None,
        **train: Any,
    ) -> None:
        self.airflow, self._prefix = airflow, f"t{zlib.crc32(test.encode())}"
        self.name = self._prefix
        self.dag_id = f"train_{self.name}"
        order = [
            {"after": [self._full(one) for one in rule["after"]], "service": self._full(rule["service"])}
            for rule in train.pop("order", [])
        ]
        self._definition = {"name": self.name, "schedule": "0 2 1 1 *", "order": order, **train}
        self.members: dict[str, _Member] = {}
        for name in members:
            member = _Member(airflow, self._full(name), pipeline, folder / name, train=self.name)
            member.definition["environments"][-1]["health"][0].update(health or {})
            self.members[name] = member
        self._write()

    def ready(self, text: str, **options: Any) -> None:
        """Push a version of all members, and wait until each one's pipeline left it to the train."""
        runs = []
        for member in self.members.values():
            member.commit(text, **options)
            runs.append(member.run())
        for run in runs:
            run.wait_for("success", timeout=400)

    def depart(self, *hold: str) -> Run:
        """Start the train, as *Trigger DAG* does. :param hold: members that stay behind"""
        return Run.triggered(self.airflow.api, self.dag_id, {"hold": [self._full(name) for name in hold]})

    def served(self) -> dict[str, str]:
        """Return what each member answers in production; nothing where it never got there."""
        return {
            name: member.served() if member.record().current else "" for name, member in self.members.items()
        }

    def told(self, named: dict[str, Any]) -> dict[str, Any]:
        """Return a mapping by members with their short names."""
        return {name: named[self._full(name)] for name in self.members if self._full(name) in named}

    @property
    def file(self) -> Path:
        """Return the services file."""
        return self.airflow.dags_folder / f"{self._prefix}.yaml"

    def remove(self) -> None:
        """Take all of it out of Airflow and end the services."""
        self.airflow.api.pause(self.dag_id)
        for file in self.airflow.dags_folder.glob(f"{self._prefix}.*"):
            file.unlink()
        for member in self.members.values():
            member.remove()

    def _full(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _write(self) -> None:
        services = [member.definition for member in self.members.values()]
        content = yaml.safe_dump({"services": services, "trains": [self._definition]})
        self.file.write_text(content)
        (self.airflow.dags_folder / f"{self._prefix}.py").write_text(DAG_FILE.format(name=self._prefix))
        api, wanted = self.airflow.api, {self.dag_id, *(one.dag_id for one in self.members.values())}
        wait_until(
            lambda: wanted <= set(api.dag_ids()),
            f"{self.dag_id} is there",
            timeout=90,
            explain=lambda: str(api.import_errors()),
        )
        for dag_id in wanted:
            api.unpause(dag_id)


class _Member(TestService):
    """A service whose definition stands in its train's file."""

    def _write(self) -> None:
        pass
