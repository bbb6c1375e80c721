"""Keeps the namespaces of a cluster as a services file declares them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cd.hooks.notifications import notify_of_cluster

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.cluster import Cluster
    from airflow_cd.model.namespace import Namespace
    from airflow_cd.model.notification import Event
    from airflow_cd.targets.kubernetes.cluster import NamespaceClient as ClusterApi

# XCom key of what people were told of by then.
TOLD = "told"


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
        from airflow_cd.targets.kubernetes.cluster import NamespaceClient

        where = f"cluster {self.cluster.described}" + (f", namespace {namespace}" if namespace else "")
        conn_id, context = self.cluster.conn_id, self.cluster.context
        return NamespaceClient(lambda: kubernetes_client(conn_id, context), namespace or "default", where)

    def tell(self, context: Context, event: Event, found: Collection[str], facts: Mapping[str, Any]) -> None:
        """
        Tell people, when something was found that the run before had not found.

        :param found: what makes each finding this one
        """
        ti = context["ti"]
        before = ti.xcom_pull(task_ids=self.task_id, key=TOLD, include_prior_dates=True)
        known = set(before) if isinstance(before, list) else set()
        ti.xcom_push(key=TOLD, value=sorted(found))
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
        from airflow_cd.hooks.pull_secrets import login_of
        from airflow_cd.targets.kubernetes.keeping import reconcile_namespace

        (namespace,) = (one for one in self.cluster.namespaces if one.name == self.namespace)
        logins = {one.conn_id: login_of(one.conn_id) for one in namespace.pull_secrets}
        api = self.open(namespace.name)
        kept = reconcile_namespace(api, namespace, self.cluster.name, logins)
        if not any(kept):
            self.log.info("Everything in namespace %s is as declared", namespace.name)
        self._warn(api, namespace)
        return {name: list(value) for name, value in kept._asdict().items()}

    def _warn(self, api: ClusterApi, namespace: Namespace) -> None:
        from airflow_cd.targets.kubernetes.keeping import unselectable
        from airflow_cd.targets.kubernetes.tenancy import NAME_LABEL

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
        """Look. :raises TargetError: the cluster refuses, or does not answer"""
        from airflow_cd.targets.kubernetes.keeping import undeclared

        found = undeclared(self.open(), self.cluster.name, [one.name for one in self.cluster.namespaces])
        for name in found:
            self.log.warning(
                "Namespace %s is not declared any more. It is not deleted, and who could deploy there still "
                "can. Declare it again, or remove it: kubectl delete namespace %s",
                *(name, name),
            )
        self.tell(context, "namespaces_undeclared", found, {"namespaces": found})
        return found
