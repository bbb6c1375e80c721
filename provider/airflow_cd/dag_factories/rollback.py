"""The DAG that rolls a service back: started by an alarm of its monitor, or by a person."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, AssetAny, AssetWatcher, TaskGroup

from airflow_cd.dag_factories.dag_defaults import dag_defaults
from airflow_cd.dag_factories.documentation import rollback_doc
from airflow_cd.dag_factories.params import set_rollback_params
from airflow_cd.model.environment import Environment
from airflow_cd.model.service import Service
from airflow_cd.operators.manual_rollback import ManualRollbackOperator
from airflow_cd.triggers.monitor import MonitorTrigger

# A rollback that meets a deployment waits for its end: until then it is not known what is to be rolled back.
ROLLBACK_RETRIES = 60
ROLLBACK_RETRY_DELAY = timedelta(seconds=5)


def rollback_dag_id(service: Service) -> str:
    """Return the id of the service's rollback DAG."""
    return f"{service.name}_rollback"


def rollback_dag(service: Service) -> DAG:
    """Return the DAG ``<service>_rollback``, with one task per environment; a run is about one of them."""
    monitored = [environment for environment in service.environments if environment.monitored]
    dag = DAG(
        dag_id=rollback_dag_id(service),
        description=f"Brings an earlier release of {service.name} back",
        schedule=AssetAny(*(alarms_asset(service, one) for one in monitored)) if monitored else None,
        catchup=False,
        # It does nothing until it is needed, and then it must not wait for a person to enable it; nor behind
        # a run that waits for a person's choice.
        is_paused_upon_creation=False,
        max_active_runs=100,
        doc_md=rollback_doc(service),
        tags=["cd", "rollback", *service.tags],
        **dag_defaults(),
    )
    for environment in service.environments:
        ManualRollbackOperator(
            task_id="rollback",
            task_group=TaskGroup(environment.name, dag=dag),
            dag=dag,
            service=service,
            environment=environment.name,
            owner=service.owner,
            retries=ROLLBACK_RETRIES,
            retry_delay=ROLLBACK_RETRY_DELAY,
        )
    set_rollback_params(dag, service)
    return dag


def alarms_asset(service: Service, environment: Environment) -> Asset:
    """Return the asset whose events say that a release went bad after its pipeline had ended."""
    trigger = MonitorTrigger(service=service.name, environment=environment.model_dump(mode="json"))
    return Asset(
        name=f"cd/{service.name}/{environment.name}/alarms",
        watchers=[AssetWatcher(name=f"{service.name}_{environment.name}_monitor", trigger=trigger)],
    )
