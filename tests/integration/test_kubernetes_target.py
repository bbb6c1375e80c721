"""From a commit to a Kubernetes cluster: steps, questions, aborts and rollbacks on a running Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.deciding import wait_until_noted
from tests.integration.kubernetes_services import KubernetesService, kubernetes_services
from tests.integration.test_docker_runner import tries, worker_of
from tests.support.answering import AnsweringServer, answering_server
from tests.support.images import Registry

pytestmark = [pytest.mark.scheduler, pytest.mark.xdist_group("kubernetes")]

MakeService = Callable[..., KubernetesService]
DEPLOY = "production.deploy"
ASKS = {"canary": {"steps": [{"weight": 25}, {"pause": "approval"}, {"weight": 50}]}}


@pytest.fixture
def service(
    airflow: RunningAirflow,
    engine: Any,
    registry: Registry,
    namespace: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[MakeService]:
    """Make services of one environment, in the test's namespace."""
    names = {"production": namespace}
    with kubernetes_services(airflow, registry, names, tmp_path, request.node.name) as make:
        yield make


@pytest.fixture
def metric() -> Iterator[AnsweringServer]:
    """What says how many requests fail: none, until a test says otherwise."""
    with answering_server() as one:
        one.answer({"errors": 0.0})
        yield one


def judged_by(metric: AnsweringServer, **more: Any) -> dict[str, Any]:
    """Return the definition of an analysis by this metric."""
    judged = {
        "http": {"url": f"{metric.url}/errors", "json": "$.errors"},
        "success": "< 0.05",
        "interval": "500ms",
    }
    return {"errors": {**judged, "count": 3, **more}}


def progress_of(service: KubernetesService) -> Any:
    rollout = service.record().rollout
    return rollout.progress if rollout is not None else None


def asks(service: KubernetesService, run: Run) -> None:
    """Wait until the rollout asks, and Airflow shows the question."""
    run.wait_for_task(DEPLOY, "deferred", timeout=240)
    wait_until(lambda: "asks how to go on" in run.log(DEPLOY), "it asks", timeout=240, explain=run.explain)
    run.wait_for_task(DEPLOY, "deferred", timeout=60)
    wait_until_noted(run, DEPLOY)


def serves(service: KubernetesService, text: str) -> None:
    """Wait until requests are answered so: nodes hear of what a Service sends them to a little later."""
    wait_until(lambda: service.served() == text, f"it answers {text}", timeout=120)


def first_release(service: KubernetesService) -> None:
    run = service.run()
    run.wait_for("success", timeout=240)
    serves(service, "first")


def test_a_commit_reaches_production_by_a_person_and_a_bad_one_is_taken_back(service: MakeService) -> None:
    hello = service("delivery")
    # For 4 s: the release before goes on answering for a second (`stop_after`) when this one is deployed.
    hello.change_health(healthy_after=41)
    run = hello.run()
    run.wait_for_task("production.approve", "awaiting_input", timeout=240)
    body = run.question("production.approve")["body"]
    assert "What it would change there" in body and f"Deployment/{hello.name}" in body
    wait_until_noted(run, "production.approve")
    run.answer("production.approve", "Approve")
    run.wait_for("success", timeout=240)
    digest = run.xcom("package")["digest"]
    serves(hello, "first")
    assert run.xcom(DEPLOY)["digest"] == digest

    hello.commit("second", sick_in="production")
    run = hello.run()
    run.wait_for_task("production.approve", "awaiting_input", timeout=240)
    wait_until_noted(run, "production.approve")
    run.answer("production.approve", "Approve")
    run.wait_for("failed", timeout=240)
    assert run.states()["production.rollback"] == "success"
    serves(hello, "first")
    assert [event["kind"] for event in hello.history()] == ["deployed", "deployed", "rolled back"]


def test_a_canary_asks_and_goes_on_when_somebody_says_so(service: MakeService) -> None:
    hello = service("deployment", strategy=ASKS, app={"replicas": 4})
    first_release(hello)
    hello.commit("second")
    run = hello.run()
    asks(hello, run)
    assert hello.served() in ("first", "second")
    assert hello.record().current.release.version == hello.history()[-1]["release"]["version"]  # type: ignore[union-attr]
    run.answer(DEPLOY, "Go on", reason="fine")
    run.wait_for("success", timeout=240)
    serves(hello, "second")
    assert len(hello.history()) == 2


def test_a_failed_analysis_gives_everything_back(service: MakeService, metric: AnsweringServer) -> None:
    steps = [{"weight": 50}, {"analysis": "errors"}]
    hello = service(
        "deployment", strategy={"canary": {"steps": steps}}, analyses=judged_by(metric), app={"replicas": 2}
    )
    first_release(hello)
    metric.answer({"errors": 0.5})
    hello.commit("second")
    run = hello.run()
    run.wait_for("failed", timeout=240)
    assert run.states()[DEPLOY] == "failed"
    assert "analysis errors" in run.log(DEPLOY)
    serves(hello, "first")
    assert {hello.served() for _ in range(10)} == {"first"}
    aborted = hello.record().aborted
    assert aborted is not None and [one.value for one in aborted.measurements] == [0.5]

    metric.answer({"errors": 0.0})
    hello.commit("third")
    run = hello.run()
    run.wait_for("success", timeout=240)
    assert [one["value"] for one in run.xcom(DEPLOY)["measurements"]] == [0.0] * 3
    serves(hello, "third")


def test_what_is_inconclusive_waits_for_a_person(service: MakeService, metric: AnsweringServer) -> None:
    unclear = judged_by(metric, success="< 0.05", failure="> 0.2")
    steps = [{"weight": 50}, {"analysis": "errors"}]
    hello = service("deployment", strategy={"canary": {"steps": steps}}, analyses=unclear)
    first_release(hello)
    metric.answer({"errors": 0.1})
    hello.commit("second")
    run = hello.run()
    asks(hello, run)
    assert "inconclusive" in run.question(DEPLOY)["body"]
    run.answer(DEPLOY, "Abort", reason="too slow")
    run.wait_for("failed", timeout=240)
    serves(hello, "first")
    assert "too slow" in hello.record().aborted.reason  # type: ignore[union-attr]


def test_a_newer_commit_replaces_a_canary_from_its_first_step(service: MakeService) -> None:
    hello = service("deployment", strategy=ASKS)
    first_release(hello)
    hello.commit("second")
    older = hello.run()
    asks(hello, older)
    hello.commit("third")
    newer = hello.run()
    asks(hello, newer)
    older.wait_for_task(DEPLOY, "skipped", timeout=60)
    assert hello.record().rollout.candidate.release.revision.sha == hello.head  # type: ignore[union-attr]
    newer.answer(DEPLOY, "Go on")
    newer.wait_for("success", timeout=240)
    serves(hello, "third")


@pytest.mark.parametrize("triggerer", ["up", "down"])
def test_marking_the_task_as_failed_aborts_the_canary(
    service: MakeService, airflow: RunningAirflow, triggerer: str
) -> None:
    hello = service("deployment", strategy=ASKS)
    first_release(hello)
    hello.commit("second")
    run = hello.run()
    asks(hello, run)
    if triggerer == "down":
        airflow.kill("triggerer")
    run.mark(DEPLOY, "failed")
    wait_until(lambda: hello.record().rollout is None, "it is aborted", timeout=120, explain=run.explain)
    serves(hello, "first")
    assert "marked as failed" in hello.record().aborted.reason  # type: ignore[union-attr]
    if triggerer == "down":
        airflow.restart("triggerer")
        run.wait_for_task("production.rollback")
    run.wait_for("failed")


def test_a_canary_that_goes_bad_while_it_asks_is_aborted(service: MakeService, cluster_client: Any) -> None:
    hello = service("deployment", strategy=ASKS)
    first_release(hello)
    hello.commit("second")
    run = hello.run()
    asks(hello, run)
    break_canary(cluster_client, hello)
    run.wait_for("failed", timeout=240)
    serves(hello, "first")


def break_canary(client: Any, service: KubernetesService) -> None:
    """Let the canary's instances become unready, by taking their image away from their template."""
    from kubernetes import client as kubernetes

    namespace = service.namespaces["production"]
    apps = kubernetes.AppsV1Api(client)
    (name,) = (
        one.metadata.name
        for one in apps.list_namespaced_deployment(namespace).items
        if one.metadata.name.endswith("-canary")
    )
    broken = [
        {"op": "replace", "path": "/spec/template/spec/containers/0/readinessProbe/httpGet/port", "value": 9}
    ]
    apps.patch_namespaced_deployment(name, namespace, broken)
    for pod in kubernetes.CoreV1Api(client).list_namespaced_pod(namespace).items:
        if pod.metadata.labels.get("airflow-cd/track") == "canary":
            kubernetes.CoreV1Api(client).delete_namespaced_pod(pod.metadata.name, namespace)


def test_a_rollout_survives_the_triggerer_and_its_worker(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service("deployment", strategy=ASKS)
    first_release(hello)
    hello.commit("second")
    run = hello.run()
    run.wait_for_task(DEPLOY, "running", timeout=240)
    airflow.kill_worker(worker_of(run, DEPLOY))
    wait_until(lambda: tries(run, DEPLOY) > 1, "it is tried again", timeout=90, explain=run.explain)
    asks(hello, run)
    airflow.restart("triggerer")
    run.answer(DEPLOY, "Go on")
    run.wait_for("success", timeout=240)
    serves(hello, "second")
    assert hello.record().generation == 2


def test_blue_green_switches_at_once_and_goes_back_at_once(service: MakeService) -> None:
    hello = service("deployment", strategy={"blue_green": {"scale_down_delay": "1s"}})
    first_release(hello)
    hello.commit("second")
    run = hello.run()
    run.wait_for("success", timeout=240)
    assert run.states()["production.scale_down"] == "success"
    serves(hello, "second")
    back = Run.triggered(hello.airflow.api, f"{hello.name}_rollback", {"reason": "prices"})
    back.wait_for("success", timeout=240)
    serves(hello, "first")
    assert hello.record().hold is not None


def test_what_is_defined_anew_for_the_same_commit_is_another_release(
    service: MakeService, cluster_client: Any
) -> None:
    hello = service("deployment")
    first_release(hello)
    before = hello.record().current.release  # type: ignore[union-attr]
    (target,) = (one["target"]["kubernetes"] for one in hello.definition["environments"])
    hello.redefine(target={"kubernetes": {**target, "app": {**target["app"], "replicas": 2}}})
    run = hello.run()
    run.wait_for("success", timeout=240)
    now = hello.record().current.release  # type: ignore[union-attr]
    assert (now.revision.sha, now.digest != before.digest) == (before.revision.sha, True)
    assert replicas(cluster_client, hello) == 2
    back = Run.triggered(hello.airflow.api, f"{hello.name}_rollback", {"reason": "prices"})
    back.wait_for("success", timeout=240)
    assert replicas(cluster_client, hello) == 1


def replicas(client: Any, service: KubernetesService) -> int:
    """Return how many instances the service's only Deployment has."""
    from kubernetes import client as kubernetes

    apps = kubernetes.AppsV1Api(client)
    (found,) = apps.list_namespaced_deployment(service.namespaces["production"]).items
    return int(found.spec.replicas)


def test_drift_is_healed_where_that_is_wanted(service: MakeService, cluster_client: Any) -> None:
    from kubernetes import client as kubernetes

    hello = service("deployment", drift={"action": "report", "schedule": "0 0 1 1 *"})
    first_release(hello)
    namespace = hello.namespaces["production"]
    apps = kubernetes.AppsV1Api(cluster_client)
    (name,) = (one.metadata.name for one in apps.list_namespaced_deployment(namespace).items)
    dag_id = f"{hello.name}_drift"
    run = Run.triggered(hello.airflow.api, dag_id)
    run.wait_for("success", timeout=240)
    apps.patch_namespaced_deployment_scale(name, namespace, {"spec": {"replicas": 3}})
    run = Run.triggered(hello.airflow.api, dag_id)
    run.wait_for("failed", timeout=240)
    assert "replicas: 3" in str(run.xcom("production.drift"))
    hello.redefine(drift={"action": "heal", "schedule": "0 0 1 1 *"})
    run = Run.triggered(hello.airflow.api, dag_id)
    run.wait_for("success", timeout=240)
    assert replicas(cluster_client, hello) == 1
