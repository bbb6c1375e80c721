"""Operators that reconcile the namespaces of a cluster, and report on its nodes and deprecated APIs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.releases.notifications import notify_of_cluster

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.clusters.node_health import NodeProblem
    from airflow_cd.kubernetes.client import NamespaceClient as ClusterApi
    from airflow_cd.model.cluster import Cluster, Namespace
    from airflow_cd.model.notification import Event

# XCom key of the findings that were reported already.
REPORTED = "told"  # the value is older than the name


class ClusterOperator(BaseOperator):
    """
    Base of what is done about a cluster.

    :param cluster: which one
    """

    template_fields: Sequence[str] = ()
    ui_color = "#e8eafd"

    def __init__(self, *, cluster: Cluster, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def open(self, namespace: str | None = None) -> ClusterApi:
        """Return the API of one of the cluster's namespaces, for errors that name it."""
        from airflow_cd.hooks.kubernetes import kubernetes_client
        from airflow_cd.kubernetes.client import NamespaceClient

        where = f"cluster {self.cluster.described}" + (f", namespace {namespace}" if namespace else "")
        conn_id, context = self.cluster.conn_id, self.cluster.context
        return NamespaceClient(lambda: kubernetes_client(conn_id, context), namespace or "default", where)

    def tell(self, context: Context, event: Event, found: Collection[str], facts: Mapping[str, Any]) -> None:
        """
        Tell people, when something was found that the run before had not found.

        :param found: what makes each finding this one
        """
        ti = context["ti"]
        before = ti.xcom_pull(task_ids=self.task_id, key=REPORTED, include_prior_dates=True)
        known = set(before) if isinstance(before, list) else set()
        ti.xcom_push(key=REPORTED, value=sorted(found))
        if set(found) - known:
            notify_of_cluster(context, self.cluster, event, str(ti.run_id), facts)


class NamespaceOperator(ClusterOperator):
    """
    Makes a namespace what it is declared to be, and deletes of what it made what is not declared any more.

    What changes is in the log before it is changed. The XCom names what was ``created``, ``changed``,
    ``deleted`` and ``let_go``.

    :param namespace: name of the namespace
    """

    def __init__(self, *, namespace: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.namespace = namespace

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Do it.

        :raises TargetError: the cluster refuses, or does not answer
        :raises EngineError: the connection of a pull secret cannot be used
        """
        from airflow_cd.clusters.namespaces import reconcile_namespace
        from airflow_cd.clusters.pull_secrets import login_of

        (namespace,) = (one for one in self.cluster.namespaces if one.name == self.namespace)
        logins = {one.conn_id: login_of(one.conn_id) for one in namespace.pull_secrets}
        api = self.open(namespace.name)
        kept = reconcile_namespace(api, namespace, self.cluster.name, logins)
        if not any(kept):
            self.log.info("Everything in namespace %s is as declared", namespace.name)
        self._warn(api, namespace)
        return {name: list(value) for name, value in kept._asdict().items()}

    def _warn(self, api: ClusterApi, namespace: Namespace) -> None:
        from airflow_cd.clusters.namespaces import NAME_LABEL, unselectable

        named = {*namespace.network.from_namespaces, *namespace.network.to_namespaces}
        for name in unselectable(api, named):
            self.log.warning(
                "The network policies do not know namespace %s: it is not there, or lacks the label "
                "%s=%s, which clusters before 1.21 do not set by themselves",
                *(name, NAME_LABEL, name),
            )


class UndeclaredNamespacesOperator(ClusterOperator):
    """
    Reports namespaces that were kept and are not declared any more. They, and what is in them, stay.

    The XCom is the list of their names.
    """

    def execute(self, context: Context) -> list[str]:
        """
        Look.

        :raises TargetError: the cluster refuses, or does not answer
        """
        from airflow_cd.clusters.namespaces import undeclared

        found = undeclared(self.open(), self.cluster.name, [one.name for one in self.cluster.namespaces])
        for name in found:
            self.log.warning(
                "Namespace %s is not declared any more. It is not deleted, and who could deploy there still "
                "can. Declare it again, or remove it: kubectl delete namespace %s",
                *(name, name),
            )
        self.tell(context, "namespaces_undeclared", found, {"namespaces": found})
        return found


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
        from airflow_cd.clusters.node_health import certificate_problems, certificates, node_problems

        api, now = self.open(), datetime.now(timezone.utc)
        version, minor = _version(api)
        with api.reported("Nodes"):
            nodes = api.request("GET", "/api/v1/nodes")["items"]
        problems = [
            *node_problems(nodes, minor, now, self.cluster.unready_after),
            *certificate_problems(certificates(api.client), now, self.cluster.certificates_warn),
        ]
        rows = [_row(node) for node in nodes]
        report = {
            "server": version,
            "nodes": rows,
            "problems": [problem.model_dump() for problem in problems],
        }
        self._log(rows, version, problems)
        context["ti"].xcom_push(key="return_value", value=report)
        self.tell(context, "nodes_unhealthy", [one.key for one in problems], report)
        errors = [
            f"{one.node or self.cluster.name}: {one.text}" for one in problems if one.severity == "error"
        ]
        if errors:
            raise AirflowFailException("; ".join(errors))
        return report

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
        """
        Look.

        :raises TargetError: the cluster refuses, or does not answer
        """
        from airflow_cd.clusters.deprecated_apis import DeprecatedApiScanner
        from airflow_cd.kubernetes.removed_apis import minor_of

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
        report = {
            "server": version,
            "until": f"1.{until}",
            "found": len(uses),
            "uses": [use._asdict() for use in uses[:_MOST]],
        }
        keys = {f"{use.api_version} {use.what}" for use in uses[:_MOST]}
        self.tell(context, "apis_removed", keys, report)
        return report


def _version(api: ClusterApi) -> tuple[str, int]:
    """
    Return the API server's version, and its minor version.

    :raises TargetError: it does not answer
    """
    from airflow_cd.exceptions import TargetError
    from airflow_cd.kubernetes.removed_apis import minor_of

    with api.reported("/version"):
        version = str(api.request("GET", "/version")["gitVersion"])
    minor = minor_of(version)
    if minor is None:
        raise TargetError(f"{api.where}: its version {version!r} is not one of Kubernetes 1")
    return version, minor


def _row(node: dict[str, Any]) -> dict[str, Any]:
    from airflow_cd.clusters.node_health import kubelet_of

    conditions = {one["type"]: one["status"] for one in (node.get("status") or {}).get("conditions") or ()}
    ready = conditions.get("Ready") == "True"
    name = node["metadata"]["name"]
    return {"name": name, "ready": "ready" if ready else "not ready", "kubelet": kubelet_of(node)}
