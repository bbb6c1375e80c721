"""Build and test commands as Jobs of a Kubernetes cluster, on a running Airflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.waiting import wait_until
from tests.integration.services import TestService
from tests.integration.test_docker_runner import HELD, IN_CONTAINER, tries, worker_of
from tests.support.cluster_jobs import left_in, need_nodes_that_answer
from tests.support.engine import PYTHON

from airflow_cd.exceptions import RunnerError
from airflow_cd.runners.kubernetes.workspace_volume import execute

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]
MakeJobs = Callable[..., TestService]


@pytest.fixture
def on_cluster(service: MakeService, cluster_client: Any, namespace: str) -> MakeJobs:
    """Make a service that is built and tested in the test's namespace."""
    need_nodes_that_answer(cluster_client)

    def make(*build: list[str]) -> TestService:
        settings = {"image": PYTHON, "namespace": namespace, "memory": "256m"}
        hello = service("deployment", runner={"kubernetes": settings})
        suite = hello.definition["test"]["unit"]
        commands = [["python3", *argv[1:]] for argv in suite["commands"]]
        hello.change(
            build=[["python3", "-c", IN_CONTAINER], *build],
            test={"unit": {**suite, "commands": commands}},
        )
        return hello

    return make


def test_a_commit_is_built_and_tested_in_jobs(
    on_cluster: MakeJobs, cluster_client: Any, namespace: str
) -> None:
    hello = on_cluster(["sh", "-c", "echo built > src/built"])
    run = hello.run()
    run.wait_for("success", timeout=240)
    assert hello.served() == "first"
    assert (hello.files() / "src" / "built").read_text() == "built\n"
    assert run.xcom("test")["total"] == 1

    hello.commit("second", tests_pass=False)
    run = hello.run()
    run.wait_for("failed", timeout=240)
    assert "bad" in run.log("test")
    assert hello.served() == "first"
    wait_until(lambda: not left_in(cluster_client, namespace), "all is removed", timeout=120)


def test_a_build_outlives_its_worker(
    on_cluster: MakeJobs, airflow: RunningAirflow, cluster_client: Any, namespace: str
) -> None:
    hello = on_cluster(["sh", "-c", HELD])
    run = hello.run()
    pod = wait_until(lambda: held(cluster_client, namespace), "the build is held", timeout=120)
    airflow.kill_worker(worker_of(run, "build"))
    wait_until(lambda: tries(run, "build") > 1, "it is tried again", timeout=90, explain=run.explain)
    execute(cluster_client, namespace, pod, "hold", ["touch", "/cd/home/go"])
    run.wait_for("success", timeout=240)
    assert "Going on with pod" in run.log("build")
    assert (hello.files() / "src" / "starts").read_text() == "start\n"


def held(client: Any, namespace: str) -> str | None:
    """Return the pod in which a build is held."""
    from kubernetes.client import CoreV1Api

    for pod in CoreV1Api(client).list_namespaced_pod(namespace, label_selector="airflow-cd/job").items:
        statuses = pod.status.container_statuses or []
        if all(one.state.running for one in statuses) and statuses:
            try:
                execute(client, namespace, pod.metadata.name, "hold", ["test", "-e", "/cd/home/starts"])
            except RunnerError:
                continue
            return str(pod.metadata.name)
    return None
