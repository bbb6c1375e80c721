"""Reading releases back from what earlier tasks of a run left, and comparing them with what runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactNotFoundError, RevisionNotFoundError
from airflow_cd.hooks.adapters import open_source, open_store

if TYPE_CHECKING:
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import Record

log = logging.getLogger(__name__)


def load_release(context: Any, task_id: str) -> tuple[Release, str]:
    """
    Return the release that the ``package`` task of this run made, and the URL of the store it lies in.

    :param task_id: the task whose XCom is the :class:`~airflow_cd.model.release.ReleaseRef`
    :raises ArtifactNotFoundError: the task left no release, or its manifest is gone
    :raises ArtifactCorruptError: the manifest is not the one the task stored, or is about another digest
    """
    from airflow_cd.model.release import Release, ReleaseRef

    pulled = context["ti"].xcom_pull(task_ids=task_id)
    if not pulled:
        raise ArtifactNotFoundError(f"task {task_id!r} of this run left no release; clear it to make one")
    ref = ReleaseRef.model_validate(pulled)
    release = Release.model_validate_json(open_store(ref.store).get_bytes(ref.manifest))
    if (release.digest, release.service) != (ref.digest, ref.service):
        raise ArtifactCorruptError(
            f"manifest {ref.manifest} is about {release.service} {release.digest}, "
            f"not {ref.service} {ref.digest}"
        )
    return release, ref.store


def load_build(context: Any, task_id: str) -> dict[str, Any]:
    """
    Return what the ``build`` task of this run left: revision, build key and workspace.

    :raises ArtifactNotFoundError: it left nothing, as when a person marked it as success
    """
    pulled = context["ti"].xcom_pull(task_ids=task_id)
    if not isinstance(pulled, dict) or "workspace" not in pulled:
        raise ArtifactNotFoundError(f"task {task_id!r} of this run left no workspace; clear it to build")
    return pulled


def superseded_by(service: Service, release: Release, record: Record) -> Release | None:
    """
    Return the running release when it is newer than ``release``, by commit ancestry, else ``None``.

    Histories that parted (after a force push) have no order: then the release is not superseded.

    :raises SourceError: the repository cannot be asked
    """
    running = record.current.release if record.current else None
    if running is None or running.revision.sha == release.revision.sha:
        return None
    with open_source(service) as source:
        try:
            return running if source.is_ancestor(release.revision.sha, running.revision.sha) else None
        except RevisionNotFoundError as error:
            log.warning(
                "Cannot tell whether %s is newer than %s, which runs, so it counts as not superseded: %s",
                *(release.version, running.version, error),
            )
            return None


def actor_of(context: Any) -> str:
    """Return how this DAG run is named in a target's record."""
    run = context["dag_run"]
    return f"{run.dag_id}/{run.run_id}"
