"""From a commit to a container in production, on a running Airflow, a real engine and a real registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.waiting import wait_until
from tests.integration.services import TestService, made
from tests.integration.test_docker_runner import tries, worker_of
from tests.support.engine import need_front_image, remove_all
from tests.support.images import DOCKERFILE, Registry

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., "DockerService"]
APPROVE = "production.approve"
SLOWLY = """RUN ["python", "-c", "import time; print('building', flush=True); time.sleep(8)"]\n"""


class DockerService(TestService):
    """Its releases are images, and its environments on a Docker engine."""

    registry: Registry
    dockerfile = DOCKERFILE.replace("app.py /app.py", "src/app.py /app.py")

    def _define(self, **changes: Any) -> dict[str, Any]:
        definition = super()._define(**changes)
        self.images = f"{self.registry.address}/{self.name}"
        definition["package"] = {"image": {"repository": self.images}}
        for environment in definition["environments"]:
            docker = {"port": self.ports[environment["name"]], "env": {"SICK": "/nowhere/"}, "init": True}
            environment["target"] = {"docker": {**docker, "ready": "/", "drain": "1s"}}
        return definition

    def commit(self, text: str, **options: Any) -> str:
        self.repository.commit({"Dockerfile": self.dockerfile}, "how it is packaged")
        return super().commit(text, **options)


@pytest.fixture
def service(
    airflow: RunningAirflow,
    engine: Any,
    registry: Registry,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[MakeService]:
    """Make services as the fixture of this name does elsewhere, in containers."""
    need_front_image(engine)
    kind = type("OwnService", (DockerService,), {"registry": registry})
    all_made: list[DockerService] = []

    def make(*args: Any, **changes: Any) -> DockerService:
        all_made.append(plain(*args, **changes))
        return all_made[-1]

    try:
        with made(kind, airflow, tmp_path, request.node.name) as plain:
            yield make
    finally:
        for one in all_made:
            remove_all(engine, one.name, one.images)


def test_a_commit_reaches_production_by_a_person_and_a_bad_one_is_taken_back(
    service: MakeService, engine: Any
) -> None:
    hello = service("delivery")
    run = hello.run()
    run.wait_for_task(APPROVE, "awaiting_input", timeout=240)
    assert hello.served("staging") == "first"
    assert hello.record().current is None
    run.mark(APPROVE, "success")
    run.wait_for("success", timeout=240)
    digest = run.xcom("package")["digest"]
    assert (hello.served(), run.xcom("production.deploy")["digest"]) == ("first", digest)
    assert hello.registry.holds(hello.name, digest) == digest
    (container,) = engine.containers.list(filters={"name": f"cd.{hello.name}.production.1"})
    assert container.image.id == engine.images.get(f"{hello.images}@{digest}").id

    hello.commit("second", sick_in="production")
    run = hello.run()
    run.wait_for_task(APPROVE, "awaiting_input", timeout=240)
    run.mark(APPROVE, "success")
    run.wait_for("failed", timeout=240)
    assert run.states()["production.rollback"] == "success"
    assert (hello.served("staging"), hello.served()) == ("second", "first")
    assert [(event["kind"], event["release"]["digest"] == digest) for event in hello.history()] == [
        ("deployed", True),
        ("deployed", False),
        ("rolled back", True),
    ]


def test_a_worker_that_dies_while_an_image_is_built_costs_nothing(
    service: MakeService, airflow: RunningAirflow, engine: Any, tmp_path: Path
) -> None:
    hello = service("deployment")
    hello.dockerfile += SLOWLY
    hello.commit("slowly")
    run = hello.run()
    run.wait_for_task("package", "running", timeout=240)
    wait_until(lambda: "building" in run.log("package"), "it is built", timeout=240, explain=run.explain)
    airflow.kill_worker(worker_of(run, "package"))
    wait_until(lambda: tries(run, "package") > 1, "it is tried again", timeout=90, explain=run.explain)
    run.wait_for("success", timeout=240)
    assert hello.served() == "slowly"
    assert hello.record().generation == 1


def test_two_commits_at_once_end_with_the_newer_one(service: MakeService) -> None:
    hello = service("deployment")
    first, second = hello.head, hello.commit("second")
    runs = [hello.run(sha) for sha in (first, second)]
    runs[1].wait_for("success", timeout=300)
    wait_until(lambda: runs[0].state in ("success", "failed"), "the older one ends", timeout=300)
    assert hello.served() == "second"
