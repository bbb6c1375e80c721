"""The DAG that removes what no service keeps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from airflow_cd.dag_factories.dag_defaults import dag_defaults
from airflow_cd.model.retention import Maintenance
from airflow_cd.model.service import Service
from airflow_cd.retention.operators import CollectGarbageOperator

MAINTENANCE_DAG_ID = "cd_maintenance"
_LONGEST = timedelta(hours=6)
_RETRY_DELAY = timedelta(minutes=15)
_DOC = """### Maintenance

Removes from the artifact stores what neither `retention`, nor an environment, nor a run that has not ended
needs, and from the worker's data folder what nobody uses. What is removed from a store can be taken back for
a day. **Trigger** does it now; `airflow cd gc --dry-run` shows what it would remove.
"""


def maintenance_dag(maintenance: Maintenance, services: Sequence[Service], *, whole_file: bool) -> DAG:
    """
    Return the DAG ``cd_maintenance``, with one task.

    :param whole_file: whether these are all services of the file, with none left out for an error
    """
    dag = DAG(
        dag_id=MAINTENANCE_DAG_ID,
        description="Removes artifacts and caches that are not needed any more",
        schedule=CronTriggerTimetable(maintenance.schedule, timezone=maintenance.timezone),
        catchup=False,
        max_active_runs=1,
        doc_md=_DOC,
        tags=["cd", "maintenance"],
        **dag_defaults(),
    )
    CollectGarbageOperator(
        task_id="collect",
        services=services,
        whole_file=whole_file,
        dag=dag,
        owner=maintenance.owner,
        retries=2,
        retry_delay=_RETRY_DELAY,
        execution_timeout=_LONGEST,
    )
    return dag
