"""The DAG that looks whether environments still are what their releases set."""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable, MultipleCronTriggerTimetable, TaskGroup

from airflow_cd.dag_factories.dag_defaults import dag_defaults
from airflow_cd.model.service import Service
from airflow_cd.operators.drift import DriftOperator

_DOC = """### {service}: drift

Compares what runs with what the running release set there, field by field, as the cluster itself would. An
environment with `drift: report` fails here when a person changed something by hand; one with `drift: heal` is
put right. **Trigger** it to look now.
"""


def drift_dag_id(service: Service) -> str:
    """Return the id of the service's drift DAG."""
    return f"{service.name}_drift"


def drift_dag(service: Service) -> DAG:
    """Return the DAG ``<service>_drift``, with one task per environment that has a ``drift`` policy."""
    checked = [one for one in service.environments if one.drift is not None]
    schedules = sorted({(one.drift.schedule, one.drift.timezone) for one in checked if one.drift})
    (timezone,) = {zone for _, zone in schedules}  # validated with the service
    crons = [cron for cron, _ in schedules]
    timetable = (
        CronTriggerTimetable(crons[0], timezone=timezone)
        if len(crons) == 1
        else MultipleCronTriggerTimetable(*crons, timezone=timezone)
    )
    dag = DAG(
        dag_id=drift_dag_id(service),
        description=f"Looks whether a person changed {service.name} by hand",
        schedule=timetable,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        doc_md=_DOC.format(service=service.name),
        tags=["cd", "drift", *service.tags],
        **dag_defaults(),
    )
    for environment in checked:
        DriftOperator(
            task_id="drift",
            task_group=TaskGroup(environment.name, dag=dag),
            dag=dag,
            service=service,
            environment=environment.name,
            owner=service.owner,
        )
    return dag
