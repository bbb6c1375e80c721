"""A cluster that has the Gateway API's HTTPRoute, without anything that acts on one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.waiting import wait_until

_DEFINITION = Path(__file__).with_name("httproute_crd.yaml")


@pytest.fixture(scope="session")
def http_routes(cluster_client: Any) -> None:
    """The cluster knows HTTPRoutes. It goes on knowing them: another test may be using some."""
    from kubernetes.client import ApiException, ApiextensionsV1Api, CustomObjectsApi

    _need_custom_resources(cluster_client)
    definition = yaml.safe_load(_DEFINITION.read_text())
    try:
        ApiextensionsV1Api(cluster_client).create_custom_resource_definition(definition)
    except ApiException as error:
        if error.status != 409:
            raise

    def served() -> bool:
        group = definition["spec"]["group"]
        try:
            CustomObjectsApi(cluster_client).list_namespaced_custom_object(
                group, "v1", "default", "httproutes"
            )
        except ApiException as error:
            if error.status not in (404, 503):
                raise
            return False
        return True

    wait_until(served, "the cluster serves HTTPRoutes", timeout=30)


def _need_custom_resources(client: Any) -> None:
    """
    Skip where custom resources end the API server, whatever is required.

    The JSON library of Kubernetes before 1.23 goes through maps by Go's insides of its time. Built with a Go
    that came later, it corrupts memory, and any custom resource makes it do so. Releases of Kubernetes were
    built with the Go of their time; what a distribution builds anew is not, unless it is given a
    github.com/modern-go/reflect2 of 1.0.2 or later. Who has one says so: ``CD_TEST_CUSTOM_RESOURCES=1``.
    """
    if os.environ.get("CD_TEST_CUSTOM_RESOURCES"):
        return
    from kubernetes.client import VersionApi

    found = VersionApi(client).get_code()
    kubernetes, go = _numbers(found.git_version), _numbers(found.go_version)
    if kubernetes < (1, 23) and go >= (1, 18):
        what = f"{found.git_version}, built with {found.go_version}"
        pytest.skip(f"the API server ({what}) crashes on custom resources")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
