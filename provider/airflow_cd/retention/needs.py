"""What the environments and the train of a service need, whatever its policy says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactNotFoundError
from airflow_cd.model.release import Release, ReleaseRef
from airflow_cd.model.retention import blobs_of
from airflow_cd.releases.adapters import open_environment

if TYPE_CHECKING:
    from airflow_cd.model.service import Service
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.record import Record


@dataclass
class Needs:
    """
    :param releases: digest -> where it is needed
    :param blobs: digests in the store
    :param revisions: commits of these releases
    """

    releases: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)
    revisions: set[str] = field(default_factory=set)

    def add(self, release: Release, where: str) -> None:
        """Add a release; what was said of it first stays."""
        self.releases.setdefault(release.digest, where)
        self.blobs.update(blobs_of(release))
        self.revisions.add(release.revision.sha)


def needs_of(service: Service, store: ArtifactStore) -> Needs:
    """
    Ask every environment of the service.

    :raises CdError: one cannot be asked, so that it is not known what it needs
    :raises OSError: likewise
    :raises ValueError: likewise: its record cannot be read
    """
    needs = Needs()
    for environment in service.environments:
        record = open_environment(service.name, environment, looks_only=True).record()
        for release, what in _releases_in(record):
            needs.add(release, f"{what} {environment.name}")
        if record.aborted is not None:
            needs.releases.setdefault(record.aborted.release.digest, f"aborted in {environment.name}")
    _add_ready(service, store, needs)
    return needs


def _releases_in(record: Record) -> Iterator[tuple[Release, str]]:
    if record.current is not None:
        yield record.current.release, "runs in"
    for deployed in record.previous:
        yield deployed.release, "can be gone back to in"
    if record.rollout is not None:
        yield record.rollout.candidate.release, "on its way into"
        for deployed in record.rollout.before:
            yield deployed.release, "can be gone back to in"


def _add_ready(service: Service, store: ArtifactStore, needs: Needs) -> None:
    """Add the release that waits for the service's train; see :mod:`airflow_cd.trains.select`."""
    kept = store.get_ref(f"ready/{service.name}")
    if kept is None:
        return
    try:
        ref = ReleaseRef.model_validate(kept["release"])
        needs.blobs.add(ref.manifest)
        needs.blobs.update(ref.envelopes.model_dump().values() if ref.envelopes else ())
        needs.releases.setdefault(ref.digest, "waits for the train")
        needs.add(Release.model_validate_json(store.get_bytes(ref.manifest)), "waits for the train")
    except ArtifactNotFoundError:
        return  # no train can take it any more
    except (KeyError, ValidationError) as error:
        raise ArtifactCorruptError(f"ready/{service.name} in {store.url} is no release: {error}") from error
