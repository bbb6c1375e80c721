"""The lease: one holder at a time, whatever becomes of the others, and whatever their clocks say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from harness.waiting import wait_until
from tests.support.cluster import Counted

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.kubernetes import lease
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.lease import Lease
from airflow_cd.kubernetes.objects import Reference

NAME = "cd.web.production"
REFERENCE = Reference(api_version="coordination.k8s.io/v1", kind="Lease", name=NAME)

_HOLDS = """
import sys, time
from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.kubernetes import lease
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.lease import Lease
lease.DURATION_SECONDS = 2.0
cluster = NamespaceClient(lambda: kubernetes_client(None, None), sys.argv[1], "web in production")
with Lease(cluster, sys.argv[2]).held("bob", "2.0.0"):
    print("held", flush=True)
    time.sleep(600)
"""


def spec(cluster: NamespaceClient) -> dict[str, Any]:
    found = cluster.get("coordination.k8s.io/v1", "Lease", NAME)
    assert found is not None
    spec: dict[str, Any] = found["spec"]
    return spec


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that others take after a second."""
    monkeypatch.setattr(lease, "DURATION_SECONDS", 1.0)


@pytest.fixture
def lifeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders that do nothing but hold, as if they were stopped."""
    monkeypatch.setattr(lease.HeldLease, "begin", lambda self: None)


def test_every_holder_has_a_larger_number(cluster: NamespaceClient) -> None:
    fences = []
    ours, other = Lease(cluster, NAME), Lease(cluster, NAME)
    for holder in (ours, ours, other, ours):
        with holder.held("alice", "1.0.0"):
            holder.check()
            fences.append(holder.fence)
    assert fences == sorted(set(fences)) and len(fences) == 4
    assert not spec(cluster).get("holderIdentity")


def test_who_comes_while_another_holds_it_is_told_who(cluster: NamespaceClient) -> None:
    with Lease(cluster, NAME).held("alice", "1.0.0"):
        with pytest.raises(
            DeployConflictError,
            match=r"web in production is being deployed by another run: alice deploys 1.0.0.*process \d+ on",
        ):
            with Lease(cluster, NAME).held("bob", "2.0.0"):
                pytest.fail("two hold it")
    with Lease(cluster, NAME).held("bob", "2.0.0"):
        pass


def test_a_holder_that_ends_meanwhile_is_waited_for(cluster: NamespaceClient) -> None:
    asked = threading.Event()

    class Asking(Counted):
        def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            found = super().call_api(path, method, *args, **kwargs)
            asked.set()
            return found

    def hold() -> None:
        with held.held("alice", "1.0.0"):
            taken.set()
            asked.wait(60)

    held, taken = Lease(cluster, NAME), threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    watching = NamespaceClient(lambda: Asking(cluster.client), cluster.namespace, "web")
    with Lease(watching, NAME).held("bob", "2.0.0"):
        assert asked.is_set()
    holder.join()


def test_an_error_gives_it_back(cluster: NamespaceClient) -> None:
    with pytest.raises(RuntimeError), Lease(cluster, NAME).held("alice", "1.0.0"):
        raise RuntimeError
    assert not spec(cluster).get("holderIdentity")


def test_a_killed_holders_lease_is_taken(cluster: NamespaceClient) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, cluster.namespace, NAME], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
    finally:
        holder.kill()
        holder.wait()
    dead = spec(cluster)["holderIdentity"]
    assert dead
    mine = Lease(cluster, NAME)
    with mine.held("alice", "1.0.0"):
        assert mine.fence == 2
        assert spec(cluster)["holderIdentity"] not in (None, dead)


def test_a_live_holder_is_renewed_beyond_its_duration(
    cluster: NamespaceClient, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEWED_EVERY", 0.2)
    first = Lease(cluster, NAME)
    with first.held("alice", "1.0.0"):
        with pytest.raises(DeployConflictError, match="alice"):
            # Waits for three durations.
            with Lease(cluster, NAME).held("bob", "2.0.0"):
                pytest.fail("two hold it")
        first.check()


@pytest.mark.parametrize("clock", ["2001-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
def test_what_a_holders_clock_says_does_not_matter(
    cluster: NamespaceClient, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    # It changes all the same, as a clock does.
    ticks = iter(range(1000))
    for module in (lease, lease):
        monkeypatch.setattr(module, "written_now", lambda: clock.replace(".000000", f".{next(ticks):06d}"))
    first = Lease(cluster, NAME)
    with first.held("alice", "1.0.0"):
        with pytest.raises(DeployConflictError, match="alice"):
            with Lease(cluster, NAME).held("bob", "2.0.0"):
                pytest.fail("two hold it")
        first.check()


@pytest.mark.parametrize("clock", ["2001-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
def test_a_dead_holder_with_a_wrong_clock_is_dead(
    cluster: NamespaceClient, short: None, lifeless: None, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr(lease, "written_now", lambda: clock)
        dead = Lease(cluster, NAME).held("alice", "1.0.0")
        dead.__enter__()
    with Lease(cluster, NAME).held("bob", "2.0.0"):
        pass
    with pytest.raises(StopIteration):
        next(dead.gen)


def test_a_holder_that_was_stopped_too_long_finds_out(
    cluster: NamespaceClient, short: None, lifeless: None
) -> None:
    stopped, other = Lease(cluster, NAME), Lease(cluster, NAME)
    with stopped.held("alice", "1.0.0"):
        with other.held("bob", "2.0.0"):
            assert other.fence > stopped.fence
            with pytest.raises(DeployConflictError, match="lost.*bob deploys 2.0.0"):
                stopped.check()
            other.check()
        # What it gives back is not the other's.
    with Lease(cluster, NAME).held("carol", "3.0.0"):
        pass


def test_what_a_stopped_holder_gives_back_is_not_the_others(
    cluster: NamespaceClient, short: None, lifeless: None
) -> None:
    stopped, other = Lease(cluster, NAME), Lease(cluster, NAME)
    ends = stopped.held("alice", "1.0.0")
    ends.__enter__()
    with other.held("bob", "2.0.0"):
        ends.__exit__(None, None, None)
        other.check()
        assert spec(cluster)["leaseTransitions"] == other.fence


def test_a_holder_that_was_stopped_and_not_replaced_goes_on(
    cluster: NamespaceClient, short: None, lifeless: None
) -> None:
    stopped = Lease(cluster, NAME)
    with stopped.held("alice", "1.0.0"):
        before = spec(cluster)["renewTime"]
        stopped.check()
        assert spec(cluster)["renewTime"] > before


def test_a_removed_lease_is_lost(cluster: NamespaceClient) -> None:
    held = Lease(cluster, NAME)
    with held.held("alice", "1.0.0"):
        assert cluster.delete(REFERENCE, {})
        with pytest.raises(DeployConflictError, match="lost.*removed"):
            held.check()


def test_somebody_who_labels_it_does_not_take_it(cluster: NamespaceClient) -> None:
    held = Lease(cluster, NAME)
    with held.held("alice", "1.0.0"):
        cluster.merge(REFERENCE, {"metadata": {"labels": {"team": "shop"}}})
        held.check()
        cluster.merge(REFERENCE, {"metadata": {"labels": {"team": "web"}}})
    assert not spec(cluster).get("holderIdentity")


def test_it_is_renewed_while_nobody_asks(cluster: NamespaceClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEWED_EVERY", 0.1)
    with Lease(cluster, NAME).held("alice", "1.0.0"):
        first = spec(cluster)["renewTime"]
        wait_until(lambda: spec(cluster)["renewTime"] != first, "that the lease is renewed", timeout=30)


def test_of_many_one_holds_it_at_a_time(cluster: NamespaceClient) -> None:
    inside, fences = [], []

    def work(name: str) -> None:
        held = Lease(cluster, NAME)
        while True:
            try:
                with held.held(name, "1.0.0"):
                    inside.append(name)
                    held.check()
                    assert inside == [name]
                    fences.append(held.fence)
                    inside.remove(name)
                return
            except DeployConflictError:
                continue

    workers = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert sorted(fences) == [1, 2, 3, 4, 5, 6]


def test_a_use_costs_two_requests(cluster_client: Any, namespace: str) -> None:
    counted = Counted(cluster_client)
    held = Lease(NamespaceClient(lambda: counted, namespace, "web"), NAME)

    def use() -> None:
        with held.held("alice", "1.0.0"):
            pass

    assert len(counted.during(use)) == 3
    assert len(counted.during(use)) == 2
