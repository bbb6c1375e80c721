"""A Kubernetes cluster that is kept as declared: its namespaces and what is in them for their teams."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.kubernetes import DnsLabel
from airflow_cd.model.namespace import Namespace
from airflow_cd.model.notification import OF_CLUSTERS, NotificationSettings
from airflow_cd.model.wall_clock import ZoneName
from airflow_cd.model.window import Cron

# What the id of a cluster's DAG begins with.
CLUSTER_PREFIX = "cluster_"
# A service called "cluster" has DAGs that end like this.
_ENDS_OF_SERVICES = ("delivery", "deployment", "rollback", "drift")

KubernetesVersion = Annotated[str, StringConstraints(pattern=r"^1\.[0-9]{1,3}$")]


class Cluster(Frozen):
    """
    One cluster, and what is to be there.

    :param name: name of the cluster; its DAG is ``cluster_<name>``
    :param conn_id: Airflow connection of type ``kubernetes``; default: the cluster the worker is in, else
        its ``KUBECONFIG``
    :param context: context of the kubeconfig
    :param schedule: cron expression, in ``timezone``, of the runs that reconcile the namespaces and check the
        cluster
    :param timezone: zone of ``schedule``
    :param namespaces: those that are kept; all others are left alone
    :param on_removed: whether a namespace that left this list is reported with each run (``report``) or left
        alone silently (``keep``). No namespace is ever deleted.
    :param unready_after: how long a node may be not ready before that fails its task. The default is when
        Kubernetes begins to move its pods elsewhere (``tolerationSeconds`` of ``not-ready``).
    :param certificates_warn: how long before its end a certificate is warned of
    :param upgrade_to: the minor version whose removals are warned of; default: the one after the cluster's
    :param notify: notifications of what the runs find
    :param owner: owner of the DAG's tasks in Airflow
    """

    name: DnsLabel
    conn_id: str | None = None
    context: str | None = None
    schedule: Cron = "*/30 * * * *"
    timezone: ZoneName = "UTC"
    namespaces: tuple[Namespace, ...] = ()
    on_removed: Literal["keep", "report"] = "report"
    unready_after: Duration = timedelta(minutes=5)
    certificates_warn: Duration = timedelta(days=30)
    upgrade_to: KubernetesVersion | None = None
    notify: tuple[NotificationSettings, ...] = ()
    owner: Annotated[str, Field(min_length=1)] = "airflow"

    @property
    def dag_id(self) -> str:
        """Return the id of its DAG."""
        return f"{CLUSTER_PREFIX}{self.name}"

    @property
    def described(self) -> str:
        """Return which one it is, for people."""
        where = self.context or self.conn_id
        return f"{self.name} ({where})" if where else self.name

    @field_validator("name")
    @classmethod
    def _no_dag_of_a_service(cls, name: str) -> str:
        if name in _ENDS_OF_SERVICES:
            raise ValueError(f"cannot be {', '.join(_ENDS_OF_SERVICES)}: DAGs of services are called so")
        return name

    @field_validator("notify")
    @classmethod
    def _told_of_clusters(cls, notify: tuple[NotificationSettings, ...]) -> tuple[NotificationSettings, ...]:
        for notification in notify:
            notification.check(OF_CLUSTERS, "a cluster")
        return notify

    @field_validator("namespaces")
    @classmethod
    def _each_once(cls, namespaces: tuple[Namespace, ...]) -> tuple[Namespace, ...]:
        names = [namespace.name for namespace in namespaces]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names {', '.join(twice)} twice; remove one of them")
        return namespaces
