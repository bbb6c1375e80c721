"""A cluster that has the Gateway API's HTTPRoute, without anything that acts on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.waiting import wait_until

_DEFINITION = Path(__file__).with_name("httproute_crd.yaml")


@pytest.fixture(scope="session")
def http_routes(cluster_client: Any) -> None:
    """The cluster knows HTTPRoutes. It goes on knowing them: another test may be using some."""
    from kubernetes.client import ApiException, ApiextensionsV1Api, CustomObjectsApi

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
