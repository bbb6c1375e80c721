"""Releases whose Kubernetes objects are in the source: rendered for each environment, kept, and believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from tests.support.image_run import ImageRun
from tests.support.images import Registry
from tests.support.local_run import flip
from tests.support.requirements import require

from airflow_cd.exceptions import ArtifactCorruptError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.model.release import Release
from airflow_cd.model.service import Service

DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 1
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec: {containers: [{name: app, image: IMAGE}]}
"""
OVERLAYS = {
    "k8s/base/kustomization.yaml": "resources: [deployment.yaml]\n",
    "k8s/staging/kustomization.yaml": "resources: [../base]\nnameSuffix: -staging\n",
    "k8s/production/kustomization.yaml": "resources: [../base]\nreplicas: [{name: hello, count: 3}]\n",
}


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any, registry: Registry
) -> Iterator[ImageRun]:
    one = ImageRun(tmp_path, monkeypatch, engine, registry)
    try:
        yield one
    finally:
        one.close()


def service(run: ImageRun, namespace: str = "nowhere", **environments: str) -> Service:
    """Return the service. :param environments: name -> path of its manifests"""
    definition = run.defined().model_dump(mode="json", exclude_unset=True)
    definition["environments"] = [
        {"name": name, "target": {"kubernetes": {"namespace": namespace, "manifests": path}}}
        for name, path in environments.items()
    ]
    return Service.model_validate(definition)


def commit(run: ImageRun, text: str = "one", deployment: str = DEPLOYMENT, **files: str) -> str:
    base = deployment.replace("IMAGE", run.repository_of_images)
    return run.commit(text, **{"k8s/base/deployment.yaml": base, **files})


def released(run: ImageRun, package: dict[str, Any]) -> Release:
    return Release.model_validate_json(run.store.get_bytes(package["manifest"]))


def test_each_environment_has_its_own_objects(run: ImageRun, caplog: pytest.LogCaptureFixture) -> None:
    require(shutil.which("kubectl") or shutil.which("kustomize"), "needs kubectl or kustomize")
    ours = service(run, staging="k8s/staging", production="k8s/production")
    package = run.package(ours, commit(run, **OVERLAYS))
    release = released(run, package)
    assert release.manifests.keys() == {"staging", "production"}
    objects = {name: json.loads(run.store.get_bytes(one)) for name, one in release.manifests.items()}
    (staging,), (production,) = objects["staging"], objects["production"]
    assert (staging["metadata"]["name"], staging["spec"]["replicas"]) == ("hello-staging", 1)
    assert (production["metadata"]["name"], production["spec"]["replicas"]) == ("hello", 3)
    for one in (staging, production):
        assert one["spec"]["template"]["spec"]["containers"][0]["image"] == release.pull_spec
    assert f"Manifests of staging: Deployment/hello-staging: {release.manifests['staging']}" in caplog.text
    assert run.package(ours) == package, "the same commit, packaged again"


def test_what_nobody_may_deploy_fails_the_release_for_good(run: ImageRun) -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\n"
    sha = commit(run, **{"k8s/base/secret.yaml": secret})
    with pytest.raises(
        AirflowFailException,
        match=r"^manifests of production: k8s/base/secret\.yaml, document 1 \(line 1\): Secret/token ",
    ):
        run.package(service(run, production="k8s/base"), sha)
    other = commit(run, "two", DEPLOYMENT.replace("IMAGE", "registry.example/other"))
    with pytest.raises(AirflowFailException, match=r"found are: registry\.example/other"):
        run.package(service(run, production="k8s/base/deployment.yaml"), other)


def test_other_targets_have_none(run: ImageRun) -> None:
    assert released(run, run.package(run.defined(), commit(run))).manifests == {}


def test_a_changed_byte_in_the_store_stops_the_deployment(
    run: ImageRun, namespace: str, cluster: NamespaceClient
) -> None:
    ours = service(run, namespace, production="k8s/base")
    digest = released(run, run.package(ours, commit(run))).manifests["production"]
    flip(run.blob(digest))
    with pytest.raises(ArtifactCorruptError, match=digest):
        run.store.get_bytes(digest)
    with pytest.raises(AirflowFailException, match=digest):
        run.deploy(ours)
    assert run.record(ours).current is None
    assert cluster.get("apps/v1", "Deployment", "hello") is None


def test_manifests_of_before_do_not_become_those_of_another_environment(
    run: ImageRun, namespace: str, cluster: NamespaceClient
) -> None:
    run.package(service(run, namespace, staging="k8s/base"), commit(run))
    with pytest.raises(AirflowFailException, match="packaged without manifests for production.*`package`"):
        run.deploy(service(run, namespace, production="k8s/base"))
    assert cluster.get("apps/v1", "Deployment", "hello") is None
