"""What a node's status means."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_cd.clusters.node_health import certificate_problems, node_problems
from airflow_cd.kubernetes.removed_apis import minor_of

NOW = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
FIVE_MINUTES = timedelta(minutes=5)


def node(
    kubelet: str = "v1.30.1", ready: str = "True", minutes: int = 60, **conditions: str
) -> dict[str, Any]:
    since = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = [{"type": "Ready", "status": ready, "lastTransitionTime": since, "message": "kubelet says so"}]
    shown += [{"type": kind, "status": status, "message": "low"} for kind, status in conditions.items()]
    return {
        "metadata": {"name": "n1", "creationTimestamp": since},
        "spec": {},
        "status": {"conditions": shown, "nodeInfo": {"kubeletVersion": kubelet}},
    }


def found(*nodes: dict[str, Any], server: int = 30) -> list[tuple[str, str]]:
    return [(one.severity, one.text) for one in node_problems(nodes, server, NOW, FIVE_MINUTES)]


def test_a_healthy_node_is_not_mentioned() -> None:
    assert found(node(MemoryPressure="False", DiskPressure="Unknown")) == []


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_that_is_not_ready_is_an_error_only_after_a_while(status: str) -> None:
    assert found(node(ready=status, minutes=4)) == [("warning", "not ready for 4m: kubelet says so")]
    assert found(node(ready=status, minutes=5)) == [("error", "not ready for 5m: kubelet says so")]


def test_a_node_that_never_was_ready_counts_from_its_beginning() -> None:
    silent = node(minutes=7)
    silent["status"]["conditions"] = []
    assert found(silent) == [("error", "not ready for 7m: its kubelet never said so")]
    del silent["status"], silent["metadata"]["creationTimestamp"]
    assert [severity for severity, _ in found(silent)] == ["error"]


def test_pressure_and_cordons_are_warnings() -> None:
    cordoned = node(DiskPressure="True")
    cordoned["spec"]["unschedulable"] = True
    assert found(cordoned) == [("warning", "DiskPressure: low"), ("warning", "takes no new pods (cordoned)")]


@pytest.mark.parametrize(
    ("kubelet", "server", "severity"),
    [
        ("v1.30.1", 30, None),
        ("v1.28.4-eks-1234", 30, None),
        ("v1.27.0", 30, "warning"),  # the next upgrade of the API server leaves it behind
        ("v1.26.9", 30, "error"),
        ("v1.31.0", 30, "error"),
        # Before 1.25, two versions.
        ("v1.19.0", 20, None),
        ("v1.18.0", 20, "warning"),
        ("v1.24.0", 27, "error"),
        ("v1.25.0", 27, None),
        ("v1.25.0", 28, "warning"),
        ("what", 28, None),
    ],
)
def test_kubelets_are_held_to_the_version_skew_policy(
    kubelet: str, server: int, severity: str | None
) -> None:
    told = found(node(kubelet), server=server)
    assert [one for one, _ in told] == ([severity] if severity else [])
    assert all(kubelet in text for _, text in told)


def test_a_cluster_without_nodes_is_told() -> None:
    assert found() == [("warning", "the cluster has no node")]


def test_a_problem_is_the_same_one_however_long_it_lasts() -> None:
    keys = [
        [one.key for one in node_problems([node(ready="False", minutes=minutes)], 30, NOW, FIVE_MINUTES)]
        for minutes in (6, 60)
    ]
    assert keys[0] == keys[1] != []


def test_certificates_are_warned_of_and_then_an_error() -> None:
    def severities(days: float) -> list[str]:
        ends = {"the API server's": NOW + timedelta(days=days)}
        return [one.severity for one in certificate_problems(ends, NOW, timedelta(days=30))]

    assert severities(31) == []
    assert severities(29) == ["warning"]
    assert severities(6) == severities(-1) == ["error"]


def test_versions() -> None:
    assert [minor_of(one) for one in ("v1.20.2", "1.33", "20+", "")] == [20, 33, None, None]
