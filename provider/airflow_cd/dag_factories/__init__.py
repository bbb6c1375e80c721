"""
Makes DAGs of services.

The three lines a DAG file needs::

    from airflow_cd.dag_factories import load_dags

    load_dags("services.yaml", globals())
"""

from typing import TYPE_CHECKING, Any

from airflow_cd.dag_factories.loading import load_dags
from airflow_cd.dag_factories.pipeline import delivery_dag, deployment_dag

if TYPE_CHECKING:
    from airflow_cd.dag_factories.cluster import cluster_dag
    from airflow_cd.dag_factories.train import release_train_dag

__all__ = ["cluster_dag", "delivery_dag", "deployment_dag", "load_dags", "release_train_dag"]


def __getattr__(name: str) -> Any:
    """Import what makes trains and clusters when it is asked for: every task's start would pay for it."""
    if name == "cluster_dag":
        from airflow_cd.dag_factories.cluster import cluster_dag

        return cluster_dag
    if name == "release_train_dag":
        from airflow_cd.dag_factories.train import release_train_dag

        return release_train_dag
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
