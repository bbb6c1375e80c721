"""The pipeline of one service: from a commit to production."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, Label, Param, TaskGroup

from airflow_cd.dag_factories.documentation import pipeline_doc
from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.service import Environment, Service
from airflow_cd.operators.build import BuildOperator
from airflow_cd.operators.deploy import DeployOperator
from airflow_cd.operators.package import PackageOperator
from airflow_cd.operators.revision import SHA_PATTERN
from airflow_cd.operators.rollback import RollbackOperator
from airflow_cd.operators.test import TestOperator
from airflow_cd.sensors.approval import ApprovalSensor
from airflow_cd.sensors.health import HealthCheckSensor
from airflow_cd.triggers.git_heads import GitHeadTrigger

# Every effect of these tasks is idempotent, so a lost worker or a conflict with another run costs a retry,
# not a release. What would fail again the same way fails at once (AirflowFailException).
_RETRIES = 3
_RETRY_DELAY = timedelta(seconds=5)
# A candidate that waits for its approval keeps its DAG run active; newer commits must not wait behind it.
_MAX_ACTIVE_RUNS = 10_000


def delivery_dag(service: Service) -> DAG:
    """
    Return the DAG ``<service>_delivery``, which stops for a person's approval before production.

    :raises DefinitionError: this version cannot generate the service's pipeline
    """
    return _pipeline(service.model_copy(update={"pipeline": "delivery"}))


def deployment_dag(service: Service) -> DAG:
    """
    Return the DAG ``<service>_deployment``, which goes on to production by itself.

    :raises DefinitionError: this version cannot generate the service's pipeline
    """
    return _pipeline(service.model_copy(update={"pipeline": "deployment"}))


def dag_id_of(service: Service) -> str:
    """Return the id of the service's pipeline."""
    return f"{service.name}_{service.pipeline}"


def commits_asset(service: Service) -> Asset:
    """Return the asset that gets an event for every push to the service's branch."""
    source = service.source
    trigger = GitHeadTrigger(
        service=service.name,
        repository=source.repository,
        branch=source.branch,
        path=source.path,
        poll_interval=source.poll_interval.total_seconds(),
        conn_id=source.conn_id,
    )
    return Asset(
        name=f"cd/{service.name}/commits",
        watchers=[AssetWatcher(name=f"{service.name}_commits", trigger=trigger)],
    )


def approved_environments(service: Service) -> set[str]:
    """Return the environments a person lets releases into: in a delivery pipeline, production at least."""
    if service.pipeline == "deployment":
        return set()
    asked = {environment.name for environment in service.environments if environment.approval is not None}
    return asked | {service.production.name}


def _pipeline(service: Service) -> DAG:
    if service.train is not None:
        raise DefinitionError(
            f"service {service.name!r} goes to production by a release train, and this version runs none",
            value=service.train,
            service=service.name,
            remedy="Remove `train:`",
        )
    dag = DAG(
        dag_id=dag_id_of(service),
        description=f"Continuous {service.pipeline} of {service.name}",
        schedule=[commits_asset(service)],
        catchup=False,
        max_active_runs=_MAX_ACTIVE_RUNS,
        params={"revision": _revision_param()},
        default_args={"owner": service.owner, "retries": _RETRIES, "retry_delay": _RETRY_DELAY},
        doc_md=pipeline_doc(service, approved_environments(service)),
        tags=["cd", service.pipeline, *service.tags],
    )
    last: BaseOperator = _package(dag, service)
    asked = approved_environments(service)
    for environment in service.environments:
        last = _stage(dag, service, environment, last, asks=environment.name in asked)
    return dag


def _revision_param() -> Param:
    return Param(
        None,
        type=["null", "string"],
        pattern=SHA_PATTERN,
        title="Revision",
        description="Full SHA of the commit to release; empty for the head of the branch.",
    )


def _package(dag: DAG, service: Service) -> PackageOperator:
    """Add build, tests and package, and return the last of them."""
    build = BuildOperator(task_id="build", dag=dag, service=service)
    suites = sorted(service.test)
    group = TaskGroup("test", dag=dag) if len(suites) > 1 else None
    tests = [
        TestOperator(
            task_id=suite if group else "test",
            dag=dag,
            task_group=group,
            service=service,
            suite=suite,
        )
        for suite in suites
    ]
    package = PackageOperator(
        task_id="package",
        dag=dag,
        service=service,
        test_task_ids={test.suite: test.task_id for test in tests},
    )
    if not tests:
        build >> package
    for test in tests:
        build >> test >> package
    return package


def _stage(
    dag: DAG, service: Service, environment: Environment, last: BaseOperator, *, asks: bool
) -> BaseOperator:
    """Add one environment after ``last``, and return the task whose success lets the release go on."""
    group = TaskGroup(environment.name, dag=dag, tooltip=f"Where {service.name} runs as {environment.name}")
    common: dict[str, Any] = {
        "dag": dag,
        "task_group": group,
        "service": service,
        "environment": environment.name,
    }
    before = last
    if asks:
        before = ApprovalSensor(task_id="approve", **common)
        last >> before
    deploy = DeployOperator(task_id="deploy", approval_task_id=before.task_id if asks else None, **common)
    health = HealthCheckSensor(task_id="health", **common)
    before >> (Label("approved") if asks else Label("deploy")) >> deploy
    deploy >> health
    if environment is service.production:
        rollback = RollbackOperator(task_id="rollback", health_task_id=health.task_id, **common)
        health >> Label("unhealthy") >> rollback
        rollback.as_teardown(setups=deploy, on_failure_fail_dagrun=True)
    return health
