"""Containers run the image that was tested, and others what they ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_cd.exceptions import ManifestError
from airflow_cd.packaging.manifests import pin, repository_of

IMAGE, DIGEST = "registry.example/shop/hello", f"sha256:{'ab' * 32}"
PINNED = f"{IMAGE}@{DIGEST}"


def workload(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "w"}, "spec": spec}


@pytest.mark.parametrize(
    ("api_version", "kind", "around"),
    [
        ("apps/v1", "Deployment", lambda pod: {"template": {"spec": pod}}),
        ("apps/v1", "StatefulSet", lambda pod: {"template": {"spec": pod}}),
        ("apps/v1", "DaemonSet", lambda pod: {"template": {"spec": pod}}),
        ("apps/v1", "ReplicaSet", lambda pod: {"template": {"spec": pod}}),
        ("batch/v1", "Job", lambda pod: {"template": {"spec": pod}}),
        ("batch/v1", "CronJob", lambda pod: {"jobTemplate": {"spec": {"template": {"spec": pod}}}}),
        ("argoproj.io/v1alpha1", "Rollout", lambda pod: {"template": {"spec": pod}}),
        ("v1", "Pod", lambda pod: pod),
    ],
)
def test_containers_of_the_image_get_the_digest(
    api_version: str, kind: str, around: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    had = f"{IMAGE}:1.0@sha256:{'cd' * 32}"
    pod = {
        "initContainers": [{"name": "migrate", "image": had}],
        "containers": [{"name": "app", "image": IMAGE}, {"name": "sidecar", "image": "envoy:1"}],
    }
    one = workload(api_version, kind, around(pod))
    assert pin([one], image=IMAGE, digest=DIGEST, source="k8s") == 2
    pinned = {
        "initContainers": [{"name": "migrate", "image": PINNED}],
        "containers": [{"name": "app", "image": PINNED}, {"name": "sidecar", "image": "envoy:1"}],
    }
    assert one["spec"] == around(pinned)


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("hello", "docker.io/library/hello"),
        ("hello:1", "docker.io/library/hello"),
        ("docker.io/hello@sha256:00", "docker.io/library/hello"),
        ("index.docker.io/library/hello", "docker.io/library/hello"),
        ("shop/hello", "docker.io/shop/hello"),
        ("localhost/hello:1", "localhost/hello"),
        ("127.0.0.1:5000/hello", "127.0.0.1:5000/hello"),
        ("127.0.0.1:5000/shop/hello:1@sha256:00", "127.0.0.1:5000/shop/hello"),
        ("registry.example/shop/hello:1", "registry.example/shop/hello"),
    ],
)
def test_a_repository_is_read_as_engines_read_it(image: str, repository: str) -> None:
    assert repository_of(image) == repository


@pytest.mark.parametrize("other", ["evil.example/shop/hello:1", "hello", f"{IMAGE}-canary", f"{IMAGE}/x"])
def test_an_image_that_is_only_alike_is_another_one(other: str) -> None:
    one = workload("v1", "Pod", {"containers": [{"name": "app", "image": other}]})
    with pytest.raises(ManifestError, match="^k8s: no container has the image") as told:
        pin([one], image=IMAGE, digest=DIGEST, source="k8s")
    for part in (f"image {IMAGE},", f"found are: {other}.", "package.image.repository"):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("containers", "says"),
    [
        ({"a": 1}, "k8s: Pod/w: `containers` is a dict; write a list"),
        (["a"], "k8s: Pod/w: 'a' in `containers` is no container"),
        ([{"name": "app", "image": 1}], "found are: none at all"),
        (None, "found are: none at all"),
    ],
)
def test_what_is_no_container_is_said(containers: Any, says: str) -> None:
    one = workload("v1", "Pod", {"containers": containers})
    with pytest.raises(ManifestError, match=says):
        pin([one], image=IMAGE, digest=DIGEST, source="k8s")
