"""The DAG that keeps a cluster as declared, and looks how it is."""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable, TaskGroup

from airflow_cd.clusters.operators import (
    DeprecatedApisOperator,
    NamespaceOperator,
    NodeHealthOperator,
    UndeclaredNamespacesOperator,
)
from airflow_cd.dag_factories.dag_defaults import dag_defaults
from airflow_cd.model.cluster import Cluster, Namespace
from airflow_cd.model.text import cell, code, escape


def cluster_dag(cluster: Cluster) -> DAG:
    """
    Return the DAG ``cluster_<name>``.

    Its tasks are ``namespaces.<name>`` for each one that is declared, ``nodes``, ``api_versions`` and, with
    ``on_removed: report``, ``undeclared``. None of them waits for another one.
    """
    dag = DAG(
        dag_id=cluster.dag_id,
        description=f"Keeps cluster {cluster.name} as declared, and looks how it is",
        schedule=CronTriggerTimetable(cluster.schedule, timezone=cluster.timezone),
        catchup=False,
        max_active_runs=1,
        doc_md=_doc(cluster),
        tags=["cd", "cluster"],
        **dag_defaults(),
    )
    group = TaskGroup("namespaces", dag=dag) if cluster.namespaces else None
    for namespace in cluster.namespaces:
        NamespaceOperator(
            task_id=namespace.name,
            namespace=namespace.name,
            task_group=group,
            dag=dag,
            cluster=cluster,
            owner=cluster.owner,
        )
    others = {"nodes": NodeHealthOperator, "api_versions": DeprecatedApisOperator}
    if cluster.on_removed == "report":
        others["undeclared"] = UndeclaredNamespacesOperator
    for task_id, kind in others.items():
        kind(task_id=task_id, dag=dag, cluster=cluster, owner=cluster.owner)
    return dag


def _doc(cluster: Cluster) -> str:
    until = cluster.upgrade_to or "the next minor version"
    lines = [
        f"### The cluster {escape(cluster.described)}",
        "",
        f"At {code(cluster.schedule)} ({cluster.timezone}) its namespaces are made what the services file "
        f"declares, its nodes are looked at, and what {until} removes of what is in use is warned of. "
        "**Trigger** does it now. No namespace is ever deleted.",
    ]
    if cluster.namespaces:
        lines += ["", "| namespace | who deploys | quota | network |", "|---|---|---|---|"]
        lines += [_row(namespace) for namespace in cluster.namespaces]
    return "\n".join(lines)


def _row(namespace: Namespace) -> str:
    deployer = namespace.deployer
    who = (
        f"{deployer.namespace or namespace.name}/{deployer.service_account}"
        if deployer
        else "nobody from here"
    )
    quota = ", ".join(f"{name} {amount}" for name, amount in sorted(namespace.quota.items()))
    network = namespace.network
    cells = (namespace.name, who, quota or "none", f"in: {network.ingress}, out: {network.egress}")
    return f"| {' | '.join(cell(escape(one)) for one in cells)} |"
