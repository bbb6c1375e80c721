"""Loads a services file into DAGs. A broken service does not affect the others."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_parsing_context

from airflow_cd.dag_factories.parse_cache import cached_document
from airflow_cd.dag_factories.pipeline import dag_id_of, delivery_dag, deployment_dag
from airflow_cd.dag_factories.rollback import rollback_dag, rollback_dag_id
from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.service import Service
from airflow_cd.model.services_file.loader import Definitions, load_services
from airflow_cd.model.train import TRAIN_PREFIX


class BrokenServicesDag(DAG):
    """
    Carries the errors of a services file to where Airflow shows import errors.

    Airflow refuses to run any DAG of a file that has an import error, so the error must not be the DAG
    file's: in the DAG processor this DAG is found invalid only when it is serialized, and by then it
    says that it comes from the services file. Everywhere else (a test with ``DagBag``) it is invalid at once.
    """

    def __init__(self, file: Path, errors: Sequence[DefinitionError]) -> None:
        name = re.sub(r"[^A-Za-z0-9_]", "_", file.name)
        super().__init__(dag_id=f"errors_in_{name}", schedule=None)
        self._file = file
        self._problem = DefinitionError("\n".join(str(error) for error in errors))

    def validate(self) -> None:
        """
        Raise the errors, or leave that to serialization.

        :raises DefinitionError: outside the DAG processor
        """
        if not _in_dag_processor():
            raise self._problem
        folder = os.path.dirname(self.relative_fileloc or "")
        beside = os.path.relpath(self._file, os.path.dirname(self.fileloc))
        self.relative_fileloc = os.path.normpath(os.path.join(folder, beside))
        object.__setattr__(self, "get_serialized_fields", self._raise)

    def _raise(self) -> Any:
        raise self._problem


def _in_dag_processor() -> bool:
    """Only processes that Airflow supervises have this; the one that runs a task never makes this DAG."""
    from airflow.sdk.execution_time import task_runner

    return hasattr(task_runner, "SUPERVISOR_COMMS")


_FACTORIES = {"delivery": delivery_dag, "deployment": deployment_dag}


def load_dags(path: str | Path, namespace: MutableMapping[str, Any]) -> None:
    """
    Put the DAGs of a services file into a DAG file's namespace.

    A service with an error is left out and shown as an import error of the services file; all others load.
    When Airflow parses the file to run one task, only that task's DAG is made.

    :param path: the services file, relative to the DAG file
    :param namespace: the DAG file's ``globals()``
    :raises DefinitionError: the file as a whole cannot be read
    """
    file = _resolve(path, namespace)
    wanted = get_parsing_context().dag_id
    with _no_garbage_collection(many=wanted is None):
        definitions = load_services(file, only=_service_of(wanted), parse=cached_document)
        errors = [
            *definitions.errors,
            *_add_dags(definitions.services, namespace, wanted),
            *_add_trains(definitions, namespace, wanted),
        ]
        _add_clusters(definitions, namespace, wanted)
        _add_maintenance(definitions, namespace, wanted)
    if errors and wanted is None:
        broken = BrokenServicesDag(file, errors)
        namespace[broken.dag_id] = broken


def _add_dags(
    services: Iterable[Service], namespace: MutableMapping[str, Any], wanted: str | None
) -> Iterator[DefinitionError]:
    for service in services:
        factories = {
            dag_id_of(service): _FACTORIES[service.pipeline],
            rollback_dag_id(service): rollback_dag,
        }
        if any(environment.drift is not None for environment in service.environments):
            factories.update(_drift(service))
        for dag_id, factory in factories.items():
            if wanted is not None and dag_id != wanted:
                continue
            try:
                namespace[dag_id] = factory(service)
            except DefinitionError as error:
                yield error


def _drift(service: Service) -> dict[str, Callable[[Service], DAG]]:
    """Few services have it: imported when one has."""
    from airflow_cd.dag_factories.drift import drift_dag, drift_dag_id

    return {drift_dag_id(service): drift_dag}


def _add_trains(
    definitions: Definitions, namespace: MutableMapping[str, Any], wanted: str | None
) -> Iterator[DefinitionError]:
    if not definitions.trains:
        return
    from airflow_cd.dag_factories.train import release_train_dag

    for train in definitions.trains:
        dag_id = f"{TRAIN_PREFIX}{train.name}"
        if wanted is not None and dag_id != wanted:
            continue
        try:
            namespace[dag_id] = release_train_dag(train, definitions.services)
        except DefinitionError as error:
            yield error


def _add_clusters(definitions: Definitions, namespace: MutableMapping[str, Any], wanted: str | None) -> None:
    if not definitions.clusters:
        return
    from airflow_cd.dag_factories.cluster import cluster_dag

    for cluster in definitions.clusters:
        if wanted is None or cluster.dag_id == wanted:
            namespace[cluster.dag_id] = cluster_dag(cluster)


def _add_maintenance(
    definitions: Definitions, namespace: MutableMapping[str, Any], wanted: str | None
) -> None:
    if definitions.maintenance is None:
        return
    from airflow_cd.dag_factories.maintenance import MAINTENANCE_DAG_ID, maintenance_dag

    if wanted in (None, MAINTENANCE_DAG_ID):
        namespace[MAINTENANCE_DAG_ID] = maintenance_dag(
            definitions.maintenance, definitions.services, whole_file=not definitions.errors
        )


@contextmanager
def _no_garbage_collection(*, many: bool) -> Iterator[None]:
    """
    Nothing made while loading is garbage, but the collector would go through all of it again and again.

    :param many: whether more is made than one DAG
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # A task's process is a fork whose parent froze all it had: to count that takes longer than one DAG.
        if many and gc.get_freeze_count() == 0:
            # Lets what was made count as old at once, where the collector would first go through all of it.
            gc.freeze()
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def _resolve(path: str | Path, namespace: MutableMapping[str, Any]) -> Path:
    here = namespace.get("__file__")
    return (Path(here).parent / path) if here else Path(path).absolute()


def _service_of(dag_id: str | None) -> str | None:
    """Return the service a DAG id belongs to, so that only it need be validated."""
    # A train is made of all its services. (No cluster's DAG ends as those of services do.)
    if dag_id is None or dag_id.startswith(TRAIN_PREFIX):
        return None
    name, _, kind = dag_id.rpartition("_")
    return name if kind in ("rollback", "drift") or kind in _FACTORIES else None
