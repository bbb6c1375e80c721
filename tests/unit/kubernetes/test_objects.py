from __future__ import annotations

from typing import Any

import pytest
from tests.support.kubernetes_objects import IMAGE, autoscaler, config_map, deployment, digest_of, service

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.objects import (
    WORKLOADS,
    find_service,
    find_workload,
    image_of,
    is_scaled,
    name_of,
    repository_of,
)
from airflow_cd.model.kubernetes import KubernetesTargetSettings


def target(**more: Any) -> KubernetesTargetSettings:
    return KubernetesTargetSettings(namespace="shop", manifests="k8s", **more)


def with_image(obj: dict[str, Any], image: str) -> dict[str, Any]:
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return obj


def test_the_workload_is_the_only_one_with_the_services_image() -> None:
    objects = [config_map(1), with_image(deployment(1, name="cache"), "redis:7"), deployment(1), service()]
    assert name_of(find_workload(objects, target(), IMAGE)) == "web"
    with pytest.raises(ManifestError, match="Deployment/cache, Deployment/web"):
        find_workload(objects, target(), None)


def test_the_settings_say_which_of_several() -> None:
    objects = [deployment(1), deployment(1, name="worker")]
    with pytest.raises(ManifestError, match="Deployment/web, Deployment/worker.*`workload:`"):
        find_workload(objects, target(), IMAGE)
    assert name_of(find_workload(objects, target(workload="worker"), IMAGE)) == "worker"
    with pytest.raises(ManifestError, match="no Deployment named 'api'.*Deployment/web, Deployment/worker"):
        find_workload(objects, target(workload="api"), IMAGE)


def test_a_strategy_with_steps_needs_a_deployment_and_rolling_does_not() -> None:
    database = {**deployment(1, name="db"), "kind": "StatefulSet"}
    with pytest.raises(ManifestError, match="no Deployment.*StatefulSet/db.*rolling"):
        find_workload([database], target(), IMAGE)
    assert find_workload([database], target(), IMAGE, kinds=WORKLOADS) is database


def test_what_only_looks_like_a_deployment_is_none() -> None:
    other = {**deployment(1), "apiVersion": "example.com/v1"}
    with pytest.raises(ManifestError, match="they have none"):
        find_workload([other], target(), IMAGE)


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("web", "web"),
        ("web:1.0", "web"),
        ("registry:5000/shop/web", "registry:5000/shop/web"),
        ("registry:5000/shop/web:1.0", "registry:5000/shop/web"),
        (f"registry:5000/shop/web:1.0@{digest_of(1)}", "registry:5000/shop/web"),
    ],
)
def test_an_images_repository_is_its_name_without_tag_and_digest(image: str, repository: str) -> None:
    assert repository_of(image) == repository


def test_the_image_is_found_by_the_releases_digest_also_in_an_init_container() -> None:
    migrating = with_image(deployment(1), "web:1")
    pinned = f"{IMAGE}@{digest_of(7)}"
    migrating["spec"]["template"]["spec"]["initContainers"] = [{"name": "migrate", "image": pinned}]
    assert image_of([migrating, deployment(1, name="x")], digest_of(7)) == IMAGE
    assert image_of([migrating], digest_of(8)) is None


def test_the_service_is_the_one_that_selects_the_pods() -> None:
    web = deployment(1, labels={"app": "web", "tier": "front"})
    others = [
        service("other", {"app": "other"}),
        service("narrow", {"app": "web", "tier": "back"}),
        service("outside", {"app": "web"}, externalName="x"),
    ]
    del others[2]["spec"]["selector"]
    assert find_service([web, *others], target(), web) is None
    mine = service("mine", {"tier": "front"})
    assert find_service([web, *others, mine], target(), web) is mine


def test_the_settings_say_which_of_several_services() -> None:
    web = deployment(1)
    objects = [web, service("web"), service("metrics"), service("other", {"app": "other"})]
    with pytest.raises(ManifestError, match="Service/metrics, Service/web.*`service:`"):
        find_service(objects, target(), web)
    found = find_service(objects, target(service="metrics"), web)
    assert found is objects[2]
    with pytest.raises(ManifestError, match="no Service 'other' that selects.*Service/metrics, Service/web"):
        find_service(objects, target(service="other"), web)


def test_an_autoscaler_is_one_of_this_very_workload() -> None:
    assert is_scaled([autoscaler("web")], deployment(1))
    assert not is_scaled([autoscaler("worker")], deployment(1))
    assert not is_scaled([autoscaler("web")], {**deployment(1), "kind": "StatefulSet"})
