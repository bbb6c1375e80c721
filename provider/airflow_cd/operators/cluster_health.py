"""Looks at the nodes of a cluster, and at what its next version will not have any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.operators.cluster import ClusterOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.node_health import NodeProblem
    from airflow_cd.targets.kubernetes.cluster import NamespaceClient as ClusterApi

# An XCom is no place for more; all of them are in the log.
_MOST = 200


class NodeHealthOperator(ClusterOperator):
    """
    Reports nodes that are not ready, under pressure, or too old or too new for the API server, and
    certificates that end soon.

    Fails on what does harm: a node not ready for longer than ``unready_after``, a kubelet that the API server
    does not support, a certificate in its last week. All else is a warning in the log. The XCom is a mapping
    of the ``server``'s version, ``nodes`` (name, kubelet, ready) and ``problems``.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Look.

        :raises AirflowFailException: something does harm
        :raises TargetError: the cluster refuses, or does not answer
        """
        from airflow_cd.model.node_health import certificate_problems, node_problems
        from airflow_cd.targets.kubernetes.certificates import certificates

        api, now = self.open(), datetime.now(timezone.utc)
        version, minor = _version(api)
        with api.reported("Nodes"):
            nodes = api.request("GET", "/api/v1/nodes")["items"]
        problems = [
            *node_problems(nodes, minor, now, self.cluster.unready_after),
            *certificate_problems(certificates(api.client), now, self.cluster.certificates_warn),
        ]
        rows = [_row(node) for node in nodes]
        told = {
            "server": version,
            "nodes": rows,
            "problems": [problem.model_dump() for problem in problems],
        }
        self._log(rows, version, problems)
        context["ti"].xcom_push(key="return_value", value=told)
        self.tell(context, "nodes_unhealthy", [one.key for one in problems], told)
        errors = [
            f"{one.node or self.cluster.name}: {one.text}" for one in problems if one.severity == "error"
        ]
        if errors:
            raise AirflowFailException("; ".join(errors))
        return told

    def _log(self, rows: Sequence[dict[str, Any]], version: str, problems: Sequence[NodeProblem]) -> None:
        lines = [f"  {row['name']:<40} {row['ready']:<9} {row['kubelet']}" for row in rows]
        self.log.info("API server %s, %d nodes:\n%s", version, len(rows), "\n".join(lines))
        for one in problems:
            self.log.warning("%s: %s: %s", one.severity, one.node or self.cluster.name, one.text)
        if not problems:
            self.log.info("Nothing is wrong with them")


class DeprecatedApisOperator(ClusterOperator):
    """
    Warns of API versions in use that the next minor version of Kubernetes (or ``upgrade_to``) removes.

    It looks at who wrote objects in which version, at what the API server counts, and at the manifests that
    releases are kept with. It always succeeds: nothing is broken yet. The XCom is a mapping of ``until``,
    ``found`` (how many) and ``uses`` (the first of them).
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Look. :raises TargetError: the cluster refuses, or does not answer"""
        from airflow_cd.model.node_health import minor_of
        from airflow_cd.targets.kubernetes.census import DeprecatedApiScanner

        api = self.open()
        version, server = _version(api)
        wanted = self.cluster.upgrade_to
        until = (minor_of(wanted) if wanted else None) or server + 1
        uses = DeprecatedApiScanner(api, server, until).uses()
        for use in uses:
            instead = f"use {use.instead}" if use.instead else "there is nothing instead"
            self.log.warning(
                "1.%d removes %s, which is used: %s (%s); %s. %s",
                *(use.minor, use.api_version, use.what, use.who, instead, use.source),
            )
        if not uses:
            self.log.info("Nothing that 1.%d removes was found in use (%s runs)", until, version)
        told = {
            "server": version,
            "until": f"1.{until}",
            "found": len(uses),
            "uses": [use._asdict() for use in uses[:_MOST]],
        }
        keys = {f"{use.api_version} {use.what}" for use in uses[:_MOST]}
        self.tell(context, "apis_removed", keys, told)
        return told


def _version(api: ClusterApi) -> tuple[str, int]:
    """Return the API server's version, and its minor version. :raises TargetError: it does not answer"""
    from airflow_cd.exceptions import TargetError
    from airflow_cd.model.node_health import minor_of

    with api.reported("/version"):
        version = str(api.request("GET", "/version")["gitVersion"])
    minor = minor_of(version)
    if minor is None:
        raise TargetError(f"{api.where}: its version {version!r} is not one of Kubernetes 1")
    return version, minor


def _row(node: dict[str, Any]) -> dict[str, Any]:
    from airflow_cd.model.node_health import kubelet_of

    conditions = {one["type"]: one["status"] for one in (node.get("status") or {}).get("conditions") or ()}
    ready = conditions.get("Ready") == "True"
    name = node["metadata"]["name"]
    return {"name": name, "ready": "ready" if ready else "not ready", "kubelet": kubelet_of(node)}
