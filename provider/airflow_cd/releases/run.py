"""Releases of a pipeline run: read from earlier tasks, compared with what runs, and how those tasks ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactNotFoundError, RevisionNotFoundError
from airflow_cd.releases.adapters import open_source, open_store, store_url

if TYPE_CHECKING:
    from airflow_cd.model.release import Release, ReleaseRef
    from airflow_cd.model.service import Service
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.record import Record

log = logging.getLogger(__name__)

WENT_WRONG = ("failed", "upstream_failed")


def task_states(context: Any, task_ids: Iterable[str]) -> dict[str, str | None]:
    """Return the state of each of these tasks of this run; ``None`` for one that has none yet."""
    run, wanted = context["dag_run"], list(task_ids)
    if not wanted:
        return {}
    found = context["ti"].get_task_states(dag_id=run.dag_id, task_ids=wanted, run_ids=[run.run_id])
    states = found.get(run.run_id, {})
    return {task_id: name_of(states.get(task_id)) for task_id in wanted}


def name_of(state: Any) -> str | None:
    """Return the state as Airflow writes it."""
    return None if state is None else str(getattr(state, "value", state))


def load_release(context: Any, service: Service, task_id: str) -> tuple[Release, ReleaseRef]:
    """
    Return the release that the ``package`` task of this run created, and the reference to it.

    Raises as :func:`load_ref` and :func:`read_release`.
    """
    ref = load_ref(context, task_id)
    return read_release(service, ref), ref


def load_ref(context: Any, task_id: str) -> ReleaseRef:
    """
    Return what the ``package`` task of this run left, without asking the artifact store.

    :param task_id: the task whose XCom it is
    :raises ArtifactNotFoundError: the task left no release
    """
    from airflow_cd.model.release import ReleaseRef

    pulled = context["ti"].xcom_pull(task_ids=task_id)
    if not pulled:
        raise ArtifactNotFoundError(f"task {task_id!r} of this run left no release; clear it to make one")
    return ReleaseRef.model_validate(pulled)


def read_release(service: Service, ref: ReleaseRef) -> Release:
    """
    Return the release from its manifest in the service's configured store.

    The reference comes from an XCom, which users can write: its store is never opened, and nothing in it is
    used unless the stored manifest says the same.

    :raises ArtifactNotFoundError: the manifest is gone
    :raises ArtifactCorruptError: the manifest is not the one that was stored, or is about another release
    """
    from airflow_cd.model.release import Release

    what = f"the manifest of {ref.service} {ref.version}"
    document = read_document(open_store(store_url(service)), what, ref.manifest)
    try:
        release = Release.model_validate_json(document)
    except ValidationError as error:
        raise ArtifactCorruptError(f"{what}: {ref.manifest} is not a release manifest: {error}") from error
    found = (release.service, release.digest, release.revision.sha)
    if found != (service.name, ref.digest, ref.revision):
        raise ArtifactCorruptError(
            f"manifest {ref.manifest} is about {release.service} {release.version} {release.digest}, "
            f"not {service.name} {ref.version} {ref.digest}; clear the task that created the release"
        )
    return release


def read_document(store: ArtifactStore, what: str, digest: str) -> bytes:
    """
    Return a document of a release.

    :param what: how an error names it
    :raises ArtifactNotFoundError: it is gone
    :raises ArtifactCorruptError: its bytes were changed
    """
    try:
        return store.get_bytes(digest)
    except (ArtifactCorruptError, ArtifactNotFoundError) as error:
        raise type(error)(f"{what}: {error}") from error


def load_build(context: Any, task_id: str) -> dict[str, Any]:
    """
    Return what the ``build`` task of this run left: revision, build key and workspace.

    :raises ArtifactNotFoundError: it left nothing, as when a person marked it as success
    """
    pulled = context["ti"].xcom_pull(task_ids=task_id)
    if not isinstance(pulled, dict) or "workspace" not in pulled:
        raise ArtifactNotFoundError(f"task {task_id!r} of this run left no workspace; clear it to build")
    return pulled


def superseded_by(
    service: Service, release: Release, record: Record, *, on_its_way: bool = False
) -> Release | None:
    """
    Return the running release when it is newer than ``release``, by commit ancestry, else ``None``.

    Histories that parted (after a force push) have no order: then the release is not superseded.

    :param on_its_way: whether a release that is being rolled out counts as well
    :raises SourceError: the repository cannot be asked
    """
    others = [record.current.release] if record.current else []
    if on_its_way and record.rollout is not None and record.rollout.kind == "deploy":
        others.append(record.rollout.candidate.release)
    others = [other for other in others if other.revision.sha != release.revision.sha]
    if not others:
        return None
    with open_source(service) as source:
        for other in others:
            try:
                if source.is_ancestor(release.revision.sha, other.revision.sha):
                    return other
            except RevisionNotFoundError as error:
                log.warning(
                    "Cannot tell whether %s is newer than %s, so it counts as not superseded: %s",
                    *(release.version, other.version, error),
                )
    return None


def actor_of(context: Any) -> str:
    """Return how this DAG run is named in a target's record."""
    run = context["dag_run"]
    return f"{run.dag_id}/{run.run_id}"
