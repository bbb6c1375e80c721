"""
Makes DAGs of services.

The three lines a DAG file needs::

    from airflow_cd.dag_factories import load_dags

    load_dags("services.yaml", globals())
"""

from airflow_cd.dag_factories.loading import load_dags
from airflow_cd.dag_factories.pipeline import delivery_dag, deployment_dag
from airflow_cd.dag_factories.train import release_train_dag

__all__ = ["delivery_dag", "deployment_dag", "load_dags", "release_train_dag"]
