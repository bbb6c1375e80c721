"""The pipeline of one service: from a commit to production."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, TaskGroup

from airflow_cd.dag_factories.dag_defaults import dag_defaults
from airflow_cd.dag_factories.documentation import pipeline_doc
from airflow_cd.dag_factories.params import set_member_params, set_revision_param
from airflow_cd.dag_factories.rollback import ROLLBACK_RETRIES, ROLLBACK_RETRY_DELAY
from airflow_cd.model.environment import Environment
from airflow_cd.model.service import Service
from airflow_cd.model.target_settings import Capability
from airflow_cd.operators.build import BuildOperator
from airflow_cd.operators.deploy import DeployOperator
from airflow_cd.operators.package import PackageOperator
from airflow_cd.operators.rollback import RollbackOperator
from airflow_cd.operators.test import TestOperator
from airflow_cd.sensors.approval import ApprovalSensor
from airflow_cd.sensors.health import HealthCheckSensor
from airflow_cd.trains.select import MarkReadyOperator
from airflow_cd.triggers.git_heads import GitHeadTrigger

# Every effect of these tasks is idempotent, so a lost worker costs a retry, not a release. What would fail
# again the same way fails at once (AirflowFailException).
RETRIES: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=5)}
# On top of what commands may take: a first fetch has 30 minutes, the rest is copying and packing.
_AROUND_COMMANDS = timedelta(hours=1)
# A candidate that waits for its approval keeps its DAG run active; newer commits must not wait behind it.
_MAX_ACTIVE_RUNS = 10_000


def delivery_dag(service: Service) -> DAG:
    """
    Return the DAG ``<service>_delivery``, which stops for a person's approval before production.
    """
    return _pipeline(_as(service, "delivery"))


def deployment_dag(service: Service) -> DAG:
    """
    Return the DAG ``<service>_deployment``, which goes on to production by itself.
    """
    return _pipeline(_as(service, "deployment"))


def _as(service: Service, pipeline: str) -> Service:
    return service if service.pipeline == pipeline else service.model_copy(update={"pipeline": pipeline})


def dag_id_of(service: Service) -> str:
    """Return the id of the service's pipeline."""
    return f"{service.name}_{service.pipeline}"


class PipelineDag(DAG):
    """
    The DAG of one service.

    Airflow hashes a DAG for every end of every edge, through all of its task ids and its schedule; the id
    alone says as much, and is a good part of a thousand services' parse time faster.
    """

    def __hash__(self) -> int:
        return hash(self.dag_id)

    def __eq__(self, other: object) -> bool:
        return bool(super().__eq__(other))


def commits_asset(service: Service) -> Asset:
    """Return the asset whose events start the service's pipeline."""
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
    """
    Return the environments a person lets releases into: in a delivery pipeline, production at least.

    Of a train's member that is production too: what goes there around its train needs its own approval.
    """
    if service.pipeline == "deployment":
        return set() if service.train is None else {service.production.name}
    asked = {environment.name for environment in service.environments if environment.approval is not None}
    return asked | {service.production.name}


def _pipeline(service: Service) -> DAG:
    dag = PipelineDag(
        dag_id=dag_id_of(service),
        description=f"Continuous {service.pipeline} of {service.name}",
        schedule=[commits_asset(service)],
        catchup=False,
        max_active_runs=_MAX_ACTIVE_RUNS,
        doc_md=pipeline_doc(service, approved_environments(service)),
        tags=["cd", service.pipeline, *service.tags],
        **dag_defaults(),
    )
    last: BaseOperator = _package(dag, service)
    asked = approved_environments(service)
    for environment in service.environments:
        if environment is service.production and service.train is not None:
            last = _ready(dag, service, last)
        last = _stage(dag, service, environment, last, asks=environment.name in asked)
    # Last, since Airflow copies the params a DAG has into each task that is added to it.
    set_revision_param(dag) if service.train is None else set_member_params(dag)
    return dag


def _ready(dag: DAG, service: Service, last: BaseOperator) -> BaseOperator:
    """Add the task that leaves the rest of the way to the service's train."""
    approve = f"{service.production.name}.approve"
    ready = MarkReadyOperator(task_id="ready", production_task_id=approve, **common_arguments(dag, service))
    last >> ready
    dag.set_edge_info(ready.task_id, approve, {"label": "train: bypass"})
    return ready


def common_arguments(dag: DAG, service: Service) -> dict[str, Any]:
    """Return what all tasks about a service have in common; default_args would be copied for each."""
    return {"dag": dag, "service": service, "owner": service.owner, **RETRIES}


def _package(dag: DAG, service: Service) -> PackageOperator:
    """Add build, tests and package, and return the last of them."""
    common = common_arguments(dag, service)
    build = BuildOperator(
        task_id="build", execution_timeout=service.build.timeout + _AROUND_COMMANDS, **common
    )
    suites = sorted(service.test)
    group = TaskGroup("test", dag=dag) if len(suites) > 1 else None
    tests = [
        TestOperator(
            task_id=suite if group else "test",
            task_group=group,
            suite=suite,
            execution_timeout=service.test[suite].timeout + _AROUND_COMMANDS,
            **common,
        )
        for suite in suites
    ]
    totals = {test.suite: test.task_id for test in tests}
    package = PackageOperator(task_id="package", test_task_ids=totals, **common)
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
    common = {**common_arguments(dag, service), "task_group": group, "environment": environment.name}
    before = last
    if asks:
        before = ApprovalSensor(task_id="approve", **common)
        last >> before
    common["approval_task_id"] = before.task_id if asks else None
    deploy = DeployOperator(task_id="deploy", **common)
    is_production = environment is service.production
    health = HealthCheckSensor(
        task_id="health",
        deploy_task_id=deploy.task_id,
        rollback_task_id=f"{environment.name}.rollback" if is_production else None,
        **common,
    )
    del common["approval_task_id"]
    before >> deploy >> health
    if asks:
        dag.set_edge_info(before.task_id, deploy.task_id, {"label": "approved"})
    if environment.strategy is not None and environment.strategy.blue_green is not None:
        health >> _scale_down(common)
    if is_production:
        patient = {**common, "retries": ROLLBACK_RETRIES, "retry_delay": ROLLBACK_RETRY_DELAY}
        rollback = RollbackOperator(task_id="rollback", health_task_id=health.task_id, **patient)
        health >> rollback
        dag.set_edge_info(health.task_id, rollback.task_id, {"label": "unhealthy"})
        # A teardown whose own failure fails the run would be the only task that decides about the run, and a
        # successful rollback would turn an unhealthy release into a successful run. With ``deploy`` as its
        # setup it does not run when that failed; what is still on its way in must be aborted then.
        setups = None if environment.target.can(Capability.STRATEGIES) else deploy
        rollback.as_teardown(setups=setups, on_failure_fail_dagrun=False)
    return health


def _scale_down(common: dict[str, Any]) -> BaseOperator:
    """Few services have it: imported when one has."""
    from airflow_cd.operators.scale_down import ScaleDownOperator

    return ScaleDownOperator(task_id="scale_down", **common)
