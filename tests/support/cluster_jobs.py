"""What the Kubernetes runner needs of the tests' cluster, and what it leaves there."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.support.requirements import require

from airflow_cd.runners.kubernetes.runner import name_in_cluster


@cache
def need_nodes_that_answer(client: Any) -> None:
    """Skip the test where the API server cannot reach its nodes: then there are no logs, and no ``exec``."""
    from kubernetes.client import ApiException, CoreV1Api

    core, problem = CoreV1Api(client), ""
    node = core.list_node().items[0].metadata.name
    try:
        core.connect_get_node_proxy_with_path(node, "healthz")
    except ApiException as error:
        problem = str(error.body)
    what = f"needs a cluster whose API server reaches its nodes by their names (as in /etc/hosts): {problem}"
    require(not problem, what)


def left_in(client: Any, namespace: str, job: str | None = None) -> set[str]:
    """
    Return the names of all Jobs and pods of the runner in a namespace, but those on their way out.

    :param job: only of this job
    """
    from kubernetes.client import BatchV1Api, CoreV1Api

    selector = "airflow-cd/job" + (f"={name_in_cluster(job)}" if job else "")
    found = [
        *BatchV1Api(client).list_namespaced_job(namespace, label_selector=selector).items,
        *CoreV1Api(client).list_namespaced_pod(namespace, label_selector=selector).items,
    ]
    return {one.metadata.name for one in found if one.metadata.deletion_timestamp is None}
