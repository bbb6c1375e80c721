"""The table of removed API versions, against what Kubernetes and its API servers say."""

from __future__ import annotations

import pytest

from airflow_cd.kubernetes.removed_apis import REMOVALS, Requested, removal_of, removals_until, requested


@pytest.mark.parametrize(
    ("api_version", "kind", "minor", "instead"),
    [
        ("extensions/v1beta1", "Deployment", 16, "apps/v1"),
        ("extensions/v1beta1", "Ingress", 22, "networking.k8s.io/v1"),
        ("batch/v1beta1", "CronJob", 25, "batch/v1"),
        ("policy/v1beta1", "PodSecurityPolicy", 25, ""),
        ("policy/v1beta1", "PodDisruptionBudget", 25, "policy/v1"),
        ("autoscaling/v2beta1", "HorizontalPodAutoscaler", 25, "autoscaling/v2"),
        ("autoscaling/v2beta2", "HorizontalPodAutoscaler", 26, "autoscaling/v2"),
        ("flowcontrol.apiserver.k8s.io/v1beta3", "FlowSchema", 32, "flowcontrol.apiserver.k8s.io/v1"),
    ],
)
def test_what_goes_and_what_comes_instead(api_version: str, kind: str, minor: int, instead: str) -> None:
    found = removal_of(api_version, kind, until=minor)
    assert found is not None and (found.minor, found.instead) == (minor, instead)
    assert removal_of(api_version, kind, until=minor - 1) is None
    assert found.source.endswith(f"#v1-{minor}")


def test_what_stays_is_not_in_it() -> None:
    assert removal_of("apps/v1", "Deployment", 99) is None
    assert {one.minor for one in removals_until(22)} == {16, 22}


def test_each_is_named_once() -> None:
    assert len({(one.api_version, one.kind) for one in REMOVALS}) == len(REMOVALS)


def test_nothing_is_to_be_replaced_by_what_goes_no_later() -> None:
    for one in REMOVALS:
        later = removal_of(one.instead, one.kind, 99)
        assert later is None or later.minor > one.minor


def counted(group: str, version: str, resource: str, removed: str, count: int = 1) -> str:
    labels = f'group="{group}",removed_release="{removed}",resource="{resource}",version="{version}"'
    return f"apiserver_requested_deprecated_apis{{{labels}}} {count}\n"


def test_what_an_api_server_counts() -> None:
    metrics = (
        "# TYPE apiserver_requested_deprecated_apis gauge\n"
        + counted("extensions", "v1beta1", "ingresses", "1.22")
        + counted("policy", "v1beta1", "podsecuritypolicies", "1.25")
        + counted("", "v1", "componentstatuses", "")
        + counted("a.io", "v1", "things", "1.22", count=0)
        + 'apiserver_request_total{resource="ingresses"} 7\n'
    )
    assert list(requested(metrics, until=22)) == [Requested(22, "extensions/v1beta1", "ingresses")]
    assert len(list(requested(metrics, until=25))) == 2
