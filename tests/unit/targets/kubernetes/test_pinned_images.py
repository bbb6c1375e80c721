"""What is about to be applied runs the release's image by its digest, or it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.releases import release_of

from airflow_cd.exceptions import ManifestError
from airflow_cd.targets.kubernetes.release_manifests import require_pinned

IMAGE, DIGEST = "registry.example/shop/web", "sha256:" + "1" * 64
RELEASE = release_of(DIGEST).model_copy(update={"image": IMAGE})
OURS = f"{IMAGE}@{DIGEST}"


def objects(kind: str, *images: str) -> list[dict[str, Any]]:
    pods: dict[str, Any] = {"spec": {"containers": [{"image": image} for image in images]}}
    spec = {"jobTemplate": {"spec": {"template": pods}}} if kind == "CronJob" else {"template": pods}
    made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}, made]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"])
def test_what_was_packaged_is_let_through_and_anything_else_is_named(kind: str) -> None:
    require_pinned(objects(kind, OURS, "envoy:1.30"), RELEASE, "web in production")
    for wrong in (f"{IMAGE}:latest", f"{IMAGE}@sha256:{'2' * 64}"):
        with pytest.raises(ManifestError, match=f"{kind}/web of .* would run {wrong}, not {OURS}"):
            require_pinned(objects(kind, OURS, wrong), RELEASE, "web in production")


def test_manifests_that_do_not_run_the_release_are_refused() -> None:
    with pytest.raises(ManifestError, match="nothing in the manifests"):
        require_pinned(objects("Deployment", "registry.example/other:1"), RELEASE, "web in production")
