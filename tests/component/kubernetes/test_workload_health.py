"""What is seen of a rollout, on a real cluster: workloads that become ready, and all kinds that do not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from harness.waiting import wait_until
from tests.support.cluster import Counted, deployer
from tests.support.requirements import require

from airflow_cd.exceptions import AccessDeniedError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.diagnosis import Problem
from airflow_cd.kubernetes.workload_health import WorkloadHealth, last_lines, read_workload_health

BUSYBOX = "busybox:1.36"
RUNS: dict[str, Any] = {"image": BUSYBOX, "command": ["sh", "-c", "trap exit TERM; sleep 1000 & wait"]}
NO_IMAGE: dict[str, Any] = {"image": "127.0.0.1:5000/no/such:1"}
NO_PROGRAM: dict[str, Any] = {"image": BUSYBOX, "command": ["nosuchprogram"]}


def workload(
    name: str, container: Mapping[str, Any], *, kind: str = "Deployment", replicas: int = 1, **pod: Any
) -> dict[str, Any]:
    """A workload of one container; its pods end at once on SIGTERM."""
    labels = {"app": name}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "app", "imagePullPolicy": "IfNotPresent", **container}],
                **pod,
            },
        },
    }
    if kind != "DaemonSet":
        spec["replicas"] = replicas
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def crash(script: str, **container: Any) -> dict[str, Any]:
    return {"image": BUSYBOX, "command": ["sh", "-c", script], **container}


def unready(name: str, deadline: int) -> dict[str, Any]:
    probe = {"exec": {"command": ["sh", "-c", "echo not yet; exit 1"]}, "periodSeconds": 1}
    late = workload(name, {**RUNS, "readinessProbe": probe})
    late["spec"]["progressDeadlineSeconds"] = deadline
    return late


KEYS = {**RUNS, "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}
# All at once: most of them need a while to turn out bad.
BROKEN = [
    workload("noimage", NO_IMAGE),
    workload("noregistry", {"image": "127.0.0.1:1/no/such:1"}),
    workload("noprogram", NO_PROGRAM),
    workload("noconfig", {**RUNS, "envFrom": [{"configMapRef": {"name": "nosuch"}}]}),
    workload("nosecret", KEYS, volumes=[{"name": "keys", "secret": {"secretName": "nosuch"}}]),
    workload("nonode", RUNS, nodeSelector={"disk": "ssd"}),
    workload("logged", crash("""echo '{"level": "error"}'; echo second; exit 3""")),
    workload(
        "crash",
        crash(
            "echo starting; printf 'no \\033[31mDATABASE_URL\\n'; exit 3",
            terminationMessagePolicy="FallbackToLogsOnError",
        ),
    ),
    unready("unready", deadline=600),
    unready("late", deadline=5),
]
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "small"},
    "spec": {"hard": {"requests.memory": "1Ki"}},
}
GREEDY = {**RUNS, "resources": {"requests": {"memory": "64Mi"}}}
REFUSED = [workload("greedy", GREEDY), workload("store", GREEDY, kind="StatefulSet")]


def a_namespace(client: Any) -> Iterator[NamespaceClient]:
    from kubernetes.client import CoreV1Api

    core, name = CoreV1Api(client), f"cd-observing-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield NamespaceClient(lambda: client, name, "web in production")
    core.delete_namespace(name)


@pytest.fixture(scope="module")
def broken_ones(cluster_client: Any) -> Iterator[NamespaceClient]:
    """A namespace with :data:`BROKEN`."""
    for cluster in a_namespace(cluster_client):
        cluster.apply(BROKEN)
        yield cluster


@pytest.fixture(scope="module")
def refused_ones(cluster_client: Any) -> Iterator[NamespaceClient]:
    """A namespace with a quota and :data:`REFUSED`."""
    for cluster in a_namespace(cluster_client):
        cluster.apply([QUOTA])
        quota = partial(cluster.get, "v1", "ResourceQuota", "small")
        wait_until(lambda quota=quota: (quota() or {}).get("status"), "a quota in force", timeout=30)  # type: ignore[misc]
        cluster.apply(REFUSED)
        yield cluster


def seen_when(
    cluster: NamespaceClient,
    name: str,
    wanted: Callable[[WorkloadHealth], object],
    kind: str = "Deployment",
    timeout: float = 300,
) -> WorkloadHealth:
    """Return what is seen as soon as it is as wanted."""
    last: list[WorkloadHealth] = []

    def probe() -> WorkloadHealth | None:
        last[:] = [read_workload_health(cluster, [(kind, name)])]
        return last[0] if wanted(last[0]) else None

    return wait_until(probe, name, timeout=timeout, explain=lambda: repr(last))


def broken(cluster: NamespaceClient, name: str) -> tuple[Problem, str]:
    """Return the problem, and what is said, once it is certain."""
    seen = seen_when(cluster, name, lambda seen: seen.broken)
    assert not seen.ready and seen.broken is not None
    return seen.problems[0], seen.broken


def test_a_good_rollout_becomes_ready_and_costs_one_request_from_then_on(
    cluster_client: Any, namespace: str
) -> None:
    client = Counted(cluster_client)
    cluster = NamespaceClient(lambda: client, namespace, "web in production")
    cluster.apply([workload("good", RUNS, replicas=2)])
    counts: list[str] = []

    def ready(seen: WorkloadHealth) -> bool:
        counts.append(seen.count)
        return seen.ready

    seen = seen_when(cluster, "good", ready)
    assert (seen.count, seen.ready_pods, seen.broken) == ("good: 2 of 2 ready", {"good": 2}, None)
    assert "good: 0 of 2 ready, 2 updated" in counts
    assert len(client.during(lambda: read_workload_health(cluster, [("Deployment", "good")]))) == 1


def test_what_is_not_there_is_not_ready(cluster: NamespaceClient) -> None:
    seen = read_workload_health(cluster, [("Deployment", "nobody"), ("StatefulSet", "nobody")])
    assert (seen.ready, seen.count, seen.broken) == (False, "nobody: not there; nobody: not there", None)


def test_the_old_release_does_not_count_for_the_new_one(cluster: NamespaceClient) -> None:
    cluster.apply([workload("rolled", RUNS)])
    seen_when(cluster, "rolled", lambda seen: seen.ready)
    cluster.apply([workload("rolled", NO_PROGRAM)])
    seen = seen_when(cluster, "rolled", lambda seen: seen.broken)
    assert (seen.count, seen.ready_pods) == ("rolled: 0 of 1 ready, 1 updated, 1 old", {"rolled": 0})
    cluster.apply([workload("rolled", RUNS)])  # gone back to: the old ReplicaSet is the newest again
    assert seen_when(cluster, "rolled", lambda seen: seen.ready).ready_pods == {"rolled": 1}


def test_a_canary_and_what_is_stable_are_told_apart_although_they_share_labels(
    cluster: NamespaceClient,
) -> None:
    stable, canary = workload("shop", RUNS, replicas=2), workload("shop-canary", NO_PROGRAM)
    both = {"app": "shop", "track": "canary"}
    canary["spec"]["selector"] = {"matchLabels": both}
    canary["spec"]["template"]["metadata"]["labels"] = both
    cluster.apply([stable, canary])
    seen_when(cluster, "shop", lambda seen: seen.ready)
    seen_when(cluster, "shop-canary", lambda seen: seen.broken)
    seen = read_workload_health(cluster, [("Deployment", "shop"), ("Deployment", "shop-canary")])
    assert not seen.ready and seen.broken and "Pod shop-canary-" in seen.broken
    assert seen.ready_pods == {"shop": 2, "shop-canary": 0}
    assert seen.count == "shop: 2 of 2 ready; shop-canary: 0 of 1 ready, 1 updated"


def test_ready_pods_of_a_canary_are_none_of_the_stable_one(cluster: NamespaceClient) -> None:
    stable, canary = workload("shop", RUNS, nodeSelector={"no": "such"}), workload("shop-canary", RUNS)
    both = {"app": "shop", "track": "canary"}
    canary["spec"]["selector"] = {"matchLabels": both}
    canary["spec"]["template"]["metadata"]["labels"] = both
    cluster.apply([canary, stable])
    seen_when(cluster, "shop-canary", lambda seen: seen.ready)
    seen = seen_when(cluster, "shop", lambda seen: seen.problems)
    assert (seen.count, seen.ready_pods) == ("shop: 0 of 1 ready, 1 updated", {"shop": 0})


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_other_kinds_roll_too(cluster: NamespaceClient, kind: str) -> None:
    name = kind.lower()
    cluster.apply([workload(name, RUNS, kind=kind)])
    seen = seen_when(cluster, name, lambda seen: seen.ready, kind)
    assert (seen.count, seen.ready_pods) == (f"{name}: 1 of 1 ready", {name: 1})
    cluster.apply([workload(name, NO_PROGRAM, kind=kind)])
    assert not read_workload_health(cluster, [(kind, name)]).ready
    seen = seen_when(cluster, name, lambda seen: seen.broken, kind)
    assert seen.problems[0].category == "configuration" and seen.ready_pods == {name: 0}


def test_a_paused_deployment_says_so(cluster: NamespaceClient) -> None:
    paused = workload("paused", RUNS)
    paused["spec"]["paused"] = True
    cluster.apply([paused])
    seen = seen_when(cluster, "paused", lambda seen: seen.problems)
    assert seen.problems[0].category == "paused" and seen.broken is None


def test_an_image_that_is_nowhere_is_certain(broken_ones: NamespaceClient) -> None:
    problem, text = broken(broken_ones, "noimage")
    assert problem.category == "image"
    assert "127.0.0.1:5000/no/such:1 cannot be pulled because the registry does not have it" in text


def test_a_registry_that_does_not_answer_may_do_so_later(broken_ones: NamespaceClient) -> None:
    seen = seen_when(
        broken_ones,
        "noregistry",
        lambda seen: seen.problems and "connection refused" in seen.problems[0].detail,
    )
    assert seen.broken is None and seen.problems[0].category == "image"


def test_a_crash_loop_is_told_with_the_last_lines_it_said(broken_ones: NamespaceClient) -> None:
    problem, text = broken(broken_ones, "crash")
    assert (problem.category, problem.container) == ("crash", "app")
    assert "container app ended with exit code 3, " in text
    assert text.endswith("It said last:\nstarting\nno \N{REPLACEMENT CHARACTER}[31mDATABASE_URL")


def test_without_a_termination_message_the_log_is_read(broken_ones: NamespaceClient) -> None:
    problem, text = broken(broken_ones, "logged")
    try:
        last_lines(broken_ones, str(problem.pod), "app", previous=True, lines=1)
    except TargetError as error:
        known = "no such host" not in str(error)
        require(known, f"needs a cluster whose API server knows its nodes' names: {error}")
    assert text.endswith('It said last:\n{"level": "error"}\nsecond')


def test_a_log_that_cannot_be_read_does_not_hide_the_crash(
    broken_ones: NamespaceClient, cluster_client: Any
) -> None:
    class NoLogs(Counted):
        def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            return super().call_api(path.replace("/log?", "/nosuch?"), method, *args, **kwargs)

    client = NoLogs(cluster_client)
    _, text = broken(NamespaceClient(lambda: client, broken_ones.namespace, "web"), "logged")
    assert "ended with exit code 3" in text and "its log cannot be read" in text


def test_a_container_that_was_removed_said_nothing(broken_ones: NamespaceClient, cluster_client: Any) -> None:
    answer = SimpleNamespace(
        data=b"unable to retrieve container logs for docker://0123", release_conn=lambda: None
    )

    class Removed(Counted):
        def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            if "previous=true" in path:
                return SimpleNamespace(get=lambda: answer)
            return super().call_api(path, method, *args, **kwargs)

    client = Removed(cluster_client)
    _, text = broken(NamespaceClient(lambda: client, broken_ones.namespace, "web"), "logged")
    assert "ended with exit code 3" in text and "unable to retrieve" not in text


def test_a_program_that_is_not_in_the_image_is_certain(broken_ones: NamespaceClient) -> None:
    problem, text = broken(broken_ones, "noprogram")
    assert problem.category == "configuration" and "executable file not found" in text


def test_a_missing_config_map_is_certain(broken_ones: NamespaceClient) -> None:
    problem, text = broken(broken_ones, "noconfig")
    assert problem.category == "configuration" and 'configmap "nosuch" not found' in text


def test_a_missing_secret_of_a_volume_is_certain(broken_ones: NamespaceClient) -> None:
    problem, text = broken(broken_ones, "nosecret")
    assert problem.category == "configuration" and 'secret "nosuch" not found' in text


def test_what_fits_on_no_node_is_told(broken_ones: NamespaceClient) -> None:
    problem = seen_when(broken_ones, "nonode", lambda seen: seen.problems).problems[0]
    assert problem.category == "unschedulable" and "0/1 nodes are available" in problem.text


def test_failing_readiness_is_told_and_left_to_the_deadline(broken_ones: NamespaceClient) -> None:
    seen = seen_when(broken_ones, "unready", lambda seen: seen.problems)
    assert seen.broken is None
    problem = seen.problems[0]
    assert problem.category == "readiness" and "Readiness probe failed: not yet" in problem.text
    problem, text = broken(broken_ones, "late")
    assert problem.category == "deadline" and "(5 s)" in text


def test_a_quota_says_what_it_refuses_once_there_is_no_pod_at_all(refused_ones: NamespaceClient) -> None:
    problem, text = broken(refused_ones, "greedy")
    assert problem.category == "quota" and "exceeded quota: small" in text
    # It does not even say that it was taken up.
    seen = seen_when(refused_ones, "store", lambda seen: seen.broken, "StatefulSet")
    assert seen.problems[0].category == "quota" and "StatefulSet store" in str(seen.broken)


def test_whoever_may_not_read_events_and_logs_is_told_less(
    broken_ones: NamespaceClient, cluster_client: Any
) -> None:
    from kubernetes.client import ApiClient, Configuration

    rules = [{"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["get", "list"]}]
    settings = Configuration(host=cluster_client.configuration.host)
    settings.ssl_ca_cert = cluster_client.configuration.ssl_ca_cert
    settings.api_key = {"authorization": f"Bearer {deployer(cluster_client, broken_ones.namespace, rules)}"}
    with ApiClient(settings) as client:
        cluster = NamespaceClient(lambda: client, broken_ones.namespace, "web")

        def allowed() -> bool:
            try:
                return read_workload_health(cluster, [("Deployment", "logged")]) is not None
            except AccessDeniedError:  # roles take a moment
                return False

        wait_until(allowed, "a role that is in force", timeout=300)
        _, text = broken(cluster, "logged")
    assert "ended with exit code 3" in text and "pods/log" in text
