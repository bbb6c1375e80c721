"""Records in the artifact store what a run uses of it, so that it is known what nobody uses any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_cd.exceptions import ArtifactCorruptError

if TYPE_CHECKING:
    from airflow_cd.model.release import Release, ReleaseRef, Revision
    from airflow_cd.model.retention import Use
    from airflow_cd.stores.base import ArtifactStore

USES = "uses"


def record_release(context: Any, store: ArtifactStore, release: Release, ref: ReleaseRef) -> None:
    """Record that this run uses a release. This comes last: all that it names is in the store by then."""
    from airflow_cd.model.retention import use_of_release

    _put(store, release.service, use_of_release(release, ref, _run(context), datetime.now(timezone.utc)))


def record_workspace(
    context: Any, store: ArtifactStore, service: str, revision: Revision, build: str, workspace: str
) -> None:
    """
    Record that this run uses a workspace, which may be one that was built long ago.

    :param build: key of the build
    :param workspace: its digest
    """
    from airflow_cd.model.retention import Use

    dag_id, run_id = _run(context)
    use = Use(
        dag_id=dag_id,
        run_id=run_id,
        at=datetime.now(timezone.utc),
        kind="workspace",
        name=build,
        revision=revision.sha,
        version=revision.version,
        blobs=(workspace,),
    )
    _put(store, service, use)
    store.touch(workspace)


def use_in(name: str, value: dict[str, Any] | None) -> Use | None:
    """
    Return the use that a reference says.

    :param value: ``None`` when it was removed meanwhile
    :raises ArtifactCorruptError: it says something else; what it stands for is then not known
    """
    from airflow_cd.model.retention import Use

    try:
        return None if value is None else Use.model_validate(value)
    except ValidationError as error:
        raise ArtifactCorruptError(f"reference {name} does not say what a run uses: {error}") from error


def service_of(name: str) -> str:
    """Return the service in the name of a reference to a use."""
    return name.split("/")[1]


def recorded_uses(store: Any) -> Iterator[tuple[str, Use]]:
    """Yield the names of the references and what they say, of all services in the store."""
    for stored in store.refs(USES):
        if use := use_in(stored.name, store.get_ref(stored.name)):
            yield stored.name, use


def _put(store: ArtifactStore, service: str, use: Use) -> None:
    store.put_ref(f"{USES}/{service}/{use.key}", use.model_dump(mode="json"))


def _run(context: Any) -> tuple[str, str]:
    run = context["dag_run"]
    return run.dag_id, run.run_id
