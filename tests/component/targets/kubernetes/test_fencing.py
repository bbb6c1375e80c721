"""A worker that hangs just before a write, and goes on when another one has finished, changes nothing."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.waiting import wait_until
from tests.support.cluster import Counted
from tests.support.places import KubernetesPlace
from tests.support.requirements import EVERY_WRITE
from tests.support.rollouts_on_cluster import target_of, until

from airflow_cd.exceptions import DeployConflictError, LeaseLostError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.lease import Lease
from airflow_cd.kubernetes.objects import FENCE, Reference
from airflow_cd.model.rollout import Phase
from airflow_cd.targets.kubernetes.fencing import FencedWriter, LateWriteError

# Stops the process before one of its writes. A lease that is renewed after it was lost is refused anyway.
STOPS = """
import os, signal, threading
from kubernetes.client import ApiClient
from airflow_cd.kubernetes import lease

lease.DURATION_SECONDS, lease.FRESH_SECONDS, lease._RENEWED_EVERY = 2.0, 1.5, 0.3
whole, left = ApiClient.call_api, int(os.environ["STOP_AT"])

def call_api(self, path, method, *args, **kwargs):
    global left
    query = dict(kwargs.get("query_params") or ())
    changes = method != "GET" and "/leases" not in path and "dryRun" not in query
    if changes and threading.current_thread() is threading.main_thread():
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
    return whole(self, path, method, *args, **kwargs)

ApiClient.call_api = call_api
"""


@contextmanager
def deploying(
    place: KubernetesPlace, folder: Path, text: str, stop_at: int
) -> Iterator[subprocess.Popen[str]]:
    (folder / "sitecustomize.py").write_text(STOPS)
    env = {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
    process = place.deploying_process(
        place.release(text),
        place.target.record().generation,
        env={**env, "STOP_AT": str(stop_at)},
    )
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_stopped_or_over(process: subprocess.Popen[str]) -> str | None:
    if process.poll() is not None:
        return "over"
    return "stopped" if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED else None


def finish(place: KubernetesPlace, text: str) -> None:
    """Bring another release, over whatever is on its way in."""

    def is_aborted() -> bool:
        try:
            target_of(place).abort(actor="ada", reason="it hangs")
        except DeployConflictError:  # the lease of who hangs holds for a moment
            return False
        return True

    if target_of(place).record().rollout is not None:
        wait_until(is_aborted, "the abort begins", timeout=60)
        until(place, Phase.ABORTED)
    release = place.release(text)

    def is_deployed() -> bool:
        try:
            return place.deploy(release) > 0
        except DeployConflictError:
            return False

    wait_until(is_deployed, "the other deploys", timeout=60)


@pytest.mark.exhaustive
@pytest.mark.timeout(3000 if EVERY_WRITE else 900)
def test_whatever_write_a_worker_hangs_before(
    place: KubernetesPlace, cluster: NamespaceClient, tmp_path: Path
) -> None:
    place.strategy = {"canary": {"steps": [{"weight": 50}]}}
    place.reopen(app={"ready": "/", "replicas": 2, "stop_after": "1s", "grace": "1s"})
    place.deploy(place.release("one"))
    for number in itertools.count(1, 1 if EVERY_WRITE else 7):
        text = f"after-{number}"
        with deploying(place, tmp_path, f"late-{number}", number) as process:
            how = wait_until(lambda p=process: is_stopped_or_over(p), "it stops", timeout=120)  # type: ignore[misc]
            if how == "over":
                said = process.communicate()[0]
                break
            finish(place, text)
            process.send_signal(signal.SIGCONT)
            said = process.communicate(timeout=120)[0]
        assert said.startswith("LOST"), (number, said)
        in_order(place, cluster, text, f"{number}: {said}")
    assert number > 10 and said.startswith("WON"), f"it deployed with fewer than {number} writes: {said}"


def in_order(place: KubernetesPlace, cluster: NamespaceClient, text: str, what: str) -> None:
    record = target_of(place).record()
    assert record.current is not None and record.rollout is None, what
    assert record.current.release.version == text, what
    assert target_of(place).drift() == [], what
    labels = place_labels(place)
    assert [one["metadata"]["name"] for one in cluster.list("apps/v1", "Deployment", labels)] == [
        place.service
    ], what
    kept = cluster.list("v1", "ConfigMap", {**labels, "airflow-cd/holds": "objects"})
    assert {one["metadata"]["annotations"]["airflow-cd/digest"] for one in kept} == {
        deployed.content for deployed in (record.current, *record.previous)
    }, what
    wait_until(lambda: place.served() == text, f"{text} is served", timeout=60)


def place_labels(place: KubernetesPlace) -> dict[str, str]:
    return {"airflow-cd/service": place.service, "airflow-cd/environment": "production"}


def settings(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data}


SETTINGS = Reference(api_version="v1", kind="ConfigMap", name="settings")


class Hangs:
    """
    A cluster that does something else before a request is sent.

    :param meanwhile: what happens before the first request whose method is ``method``
    """

    def __init__(self, client: Any, method: str, meanwhile: Callable[[], object]) -> None:
        self._client, self._method, self._meanwhile = client, method, [meanwhile]

    def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == self._method and "/leases" not in path and self._meanwhile:
            self._meanwhile.pop()()
        return self._client.call_api(path, method, *args, **kwargs)


def take_over(cluster: NamespaceClient) -> Lease:
    """Take the lease although another process holds it, as when that one hangs."""
    reference = Reference(api_version="coordination.k8s.io/v1", kind="Lease", name="lease")
    cluster.merge(reference, {"spec": {"holderIdentity": None}})
    return Lease(cluster, "lease")


def hanging(
    client: Any, namespace: str, method: str, meanwhile: Callable[[FencedWriter], object]
) -> tuple[FencedWriter, Lease]:
    """Return a writer that another process overtakes during its first request of this method."""
    plain = NamespaceClient(lambda: client, namespace, "the other")

    def happens() -> None:
        lease = take_over(plain)
        with lease.held("other", "other"):
            meanwhile(FencedWriter(plain, lease))

    late = Hangs(client, method, happens)
    cluster = NamespaceClient(lambda: late, namespace, "web in production")
    lease = Lease(cluster, "lease")
    return FencedWriter(cluster, lease), lease


def test_what_another_holder_applied_is_not_changed_even_when_that_changed_nothing(
    cluster: NamespaceClient, cluster_client: Any, namespace: str
) -> None:
    cluster.apply([settings(runs="one")])
    writer, lease = hanging(
        cluster_client, namespace, "PATCH", lambda other: other.apply([settings(runs="one")])
    )
    with lease.held("late", "two"), pytest.raises(LeaseLostError):
        writer.apply([settings(runs="two")])
    found = cluster.get("v1", "ConfigMap", "settings")
    assert found is not None and found["data"] == {"runs": "one"}


def test_what_is_made_too_late_is_deleted_again(
    cluster: NamespaceClient, cluster_client: Any, namespace: str
) -> None:
    writer, lease = hanging(cluster_client, namespace, "PATCH", lambda other: None)
    with lease.held("late", "two"), pytest.raises(LeaseLostError) as lost:
        writer.apply([settings(runs="two")])
    assert not isinstance(lost.value, LateWriteError)
    assert cluster.get("v1", "ConfigMap", "settings") is None


def test_what_is_made_too_late_is_deleted_again_also_when_the_next_write_is_refused(
    cluster: NamespaceClient, cluster_client: Any, namespace: str
) -> None:
    taken = settings(runs="one")
    taken["metadata"]["name"] = "taken"
    cluster.apply([taken])
    writer, lease = hanging(cluster_client, namespace, "PATCH", lambda other: other.apply([taken]))
    with lease.held("late", "two"), pytest.raises(LeaseLostError):
        writer.apply([settings(runs="two"), {**taken, "data": {"runs": "two"}}])
    assert cluster.get("v1", "ConfigMap", "settings") is None
    found = cluster.get("v1", "ConfigMap", "taken")
    assert found is not None and found["data"] == {"runs": "one"}


def test_what_both_made_is_said_to_be_wrong(
    cluster: NamespaceClient, cluster_client: Any, namespace: str
) -> None:
    writer, lease = hanging(
        cluster_client, namespace, "PATCH", lambda other: other.apply([settings(runs="three")])
    )
    with lease.held("late", "two"), pytest.raises(LateWriteError, match="ConfigMap/settings was written"):
        writer.apply([settings(runs="two")])


def test_what_another_holder_applied_is_not_deleted(
    cluster: NamespaceClient, cluster_client: Any, namespace: str
) -> None:
    labels = {"airflow-cd/service": "web"}
    ours = {**settings(runs="one"), "metadata": {"name": "settings", "labels": labels}}
    cluster.apply([ours])
    writer, lease = hanging(cluster_client, namespace, "DELETE", lambda other: other.apply([ours]))
    with lease.held("late", "two"), pytest.raises(LeaseLostError):
        writer.delete(SETTINGS, labels)
    assert cluster.get("v1", "ConfigMap", "settings") is not None


def test_an_object_whose_status_changes_meanwhile_is_written_all_the_same(
    cluster: NamespaceClient, cluster_client: Any, namespace: str
) -> None:
    cluster.apply([settings(runs="one")])
    touched = {"metadata": {"labels": {"touched": "yes"}}}
    late = Hangs(cluster_client, "PATCH", lambda: cluster.merge(SETTINGS, touched))
    slow = NamespaceClient(lambda: late, namespace, "web in production")
    lease = Lease(slow, "lease")
    with lease.held("test", "two"):
        FencedWriter(slow, lease).apply([settings(runs="two")])
        found = cluster.get("v1", "ConfigMap", "settings")
        assert found is not None and found["data"] == {"runs": "two"}
        assert found["metadata"]["labels"][FENCE] == lease.token


def test_a_workload_that_another_holder_writes_again_stays_as_it_is(cluster: NamespaceClient) -> None:
    """Another generation would look unready for a moment: an answer given just then would be lost."""
    pods = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "none"}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": pods}
    web = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    lease = Lease(cluster, "lease")
    written = []
    for holder in ("one", "two"):
        with lease.held("test", holder):
            written += FencedWriter(cluster, lease).apply([web])
    one, two = (obj["metadata"] for obj in written)
    assert one["generation"] == two["generation"]
    assert one["labels"][FENCE] != two["labels"][FENCE]
    assert cluster.diff([web]) == [], "the mark is no drift"


def test_an_object_costs_a_request_to_read_and_one_to_write(cluster_client: Any, namespace: str) -> None:
    counted = Counted(cluster_client)
    cluster = NamespaceClient(lambda: counted, namespace, "web in production")
    lease = Lease(cluster, "lease")
    writer = FencedWriter(cluster, lease)
    with lease.held("test", "one"):
        writer.apply([settings(runs="one")])
        asked = counted.during(lambda: writer.apply([settings(runs="two")]))
    assert [method for method, path in asked if "/leases" not in path] == ["GET", "PATCH"]
