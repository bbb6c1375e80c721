"""The Gateway API of the test cluster: its HTTPRoute, and a Gateway whose requests arrive."""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from harness.waiting import wait_until
from tests.support.requirements import require

GROUP, VERSION = "gateway.networking.k8s.io", "v1"
# Of percent: some gateways draw lots.
_TOLERANCE = 5
_REQUESTS = 200


@pytest.fixture(scope="session")
def http_routes(cluster_client: Any, cluster_is_up: float) -> str:
    """The cluster has HTTPRoutes and a controller that acts on them; return its GatewayClass."""
    left = cluster_is_up - time.monotonic()
    if os.environ.get("CD_REQUIRE_ALL") and left > 0:  # it is set up after the node
        what = "the cluster has HTTPRoutes and a GatewayClass"
        return wait_until(lambda: _gateway_class(cluster_client), what, timeout=left, every=2)
    found = _gateway_class(cluster_client)
    require(found, "needs the Gateway API's HTTPRoute and a GatewayClass on the cluster")
    return str(found)


def _gateway_class(client: Any) -> str | None:
    """Return the first GatewayClass that a controller has accepted."""
    from kubernetes.client import ApiException, CustomObjectsApi

    custom = CustomObjectsApi(client)
    try:
        custom.list_cluster_custom_object(GROUP, VERSION, "httproutes", limit=1)
        classes = custom.list_cluster_custom_object(GROUP, VERSION, "gatewayclasses")["items"]
    except ApiException as error:
        if error.status not in (404, 503):
            raise
        return None
    accepted = [one["metadata"]["name"] for one in classes if _is_so(one.get("status"), "Accepted")]
    return min(accepted, default=None)


def _is_so(status: Any, condition: str) -> bool:
    found = (status or {}).get("conditions") or ()
    return any(one["type"] == condition and one["status"] == "True" for one in found)


class Gateway:
    """
    A Gateway of the test's namespace.

    :param url: where it listens
    :param host: that the test's routes are for: other tests' requests arrive at the same address
    """

    def __init__(self, name: str, url: str, host: str) -> None:
        self.name, self.host = name, host
        self._client = httpx.Client(base_url=url, headers={"Host": host}, trust_env=False)

    def route(self, service: str) -> dict[str, Any]:
        """Return an HTTPRoute that leads from here to a Service."""
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "HTTPRoute",
            "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [{"name": self.name}],
                "hostnames": [self.host],
                "rules": [{"backendRefs": [{"name": service, "port": 80}]}],
            },
        }

    def answers(self, times: int) -> Counter[str]:
        """Return how often it answers what; errors are counted by their code."""
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: self._client.get("/"), range(times)))
        return Counter(one.text if one.is_success else str(one.status_code) for one in found)

    def until_shared(self, **percent: int) -> None:
        """Wait until requests are answered so: a gateway hears of a route that changed a moment later."""
        last: Counter[str] = Counter()

        def is_shared() -> bool:
            last.clear()
            last.update(self.answers(_REQUESTS))
            shares = {text: 100 * count / _REQUESTS for text, count in last.items()}
            return shares.keys() == percent.keys() and all(
                abs(shares[text] - wanted) <= _TOLERANCE for text, wanted in percent.items()
            )

        wait_until(is_shared, f"requests are shared as {percent}", timeout=120, explain=lambda: repr(last))

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def gateway(cluster_client: Any, namespace: str, http_routes: str) -> Iterator[Gateway]:
    """A Gateway for this test alone; it is removed with its namespace."""
    from kubernetes.client import CustomObjectsApi

    custom = CustomObjectsApi(cluster_client)
    which = (GROUP, VERSION, namespace, "gateways")
    listener = {"name": "http", "protocol": "HTTP", "port": 80}
    custom.create_namespaced_custom_object(
        *which,
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Gateway",
            "metadata": {"name": "g"},
            "spec": {"gatewayClassName": http_routes, "listeners": [listener]},
        },
    )

    def address() -> str | None:
        status = custom.get_namespaced_custom_object(*which, "g").get("status")
        if not _is_so(status, "Programmed"):
            return None
        return next((str(one["value"]) for one in status.get("addresses") or ()), None)

    where = wait_until(address, f"the Gateway of class {http_routes} has an address", timeout=60)
    one = Gateway("g", f"http://{where}:{listener['port']}", f"{uuid.uuid4().hex[:8]}.example")
    yield one
    one.close()
