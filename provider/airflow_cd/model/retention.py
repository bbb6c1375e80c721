"""What is kept of an artifact store: the policy, what runs use, and the decision about each of these uses."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from airflow_cd.model.base import Duration, Frozen, format_duration
from airflow_cd.model.release import Digest, Release, ReleaseRef, Sha
from airflow_cd.model.window import Cron, ZoneName


class Retention(Frozen):
    """
    What is kept of a service's releases, beside all that an environment runs or can go back to, and all
    whose pipeline or train has not ended.

    :param keep: the newest releases, this many
    :param younger_than: everything that was made or used within this time, built workspaces among it
    """

    keep: Annotated[int, Field(ge=1)] = 20
    younger_than: Duration = timedelta(days=30)


class Maintenance(Frozen):
    """
    The DAG ``cd_maintenance``, which removes what no service keeps.

    :param schedule: cron expression of its runs, in ``timezone``
    :param timezone: zone of ``schedule``
    :param owner: owner of the DAG's tasks in Airflow
    """

    schedule: Cron = "30 4 * * *"
    timezone: ZoneName = "UTC"
    owner: str = "airflow"


class Use(Frozen):
    """
    What one run uses of the artifact store. Stores know no other way from a service to its blobs.

    :param dag_id: the pipeline or the train
    :param at: when the run began to use it
    :param kind: a workspace that was built, or a release
    :param name: key of the build, or digest of the release
    :param revision: commit it is made of
    :param version: its version
    :param manifest: digest of the release's manifest
    :param blobs: digests of everything in the store that it consists of
    """

    dag_id: str
    run_id: str
    at: datetime
    kind: Literal["workspace", "release"]
    name: str
    revision: Sha
    version: str
    manifest: Digest | None = None
    blobs: tuple[Digest, ...]

    @property
    def run(self) -> tuple[str, str]:
        """Return the run: DAG id and run id."""
        return self.dag_id, self.run_id

    @property
    def key(self) -> str:
        """Return the name of this use among those of its service; the same for every try of a task."""
        content = "\n".join((self.dag_id, self.run_id, self.kind, self.name, self.manifest or ""))
        return hashlib.sha256(content.encode()).hexdigest()


def use_of_release(release: Release, ref: ReleaseRef, run: tuple[str, str], at: datetime) -> Use:
    """Return what a run uses with a release."""
    envelopes = (ref.envelopes.manifest, ref.envelopes.provenance) if ref.envelopes else ()
    return Use(
        dag_id=run[0],
        run_id=run[1],
        at=at,
        kind="release",
        name=release.digest,
        revision=release.revision.sha,
        version=release.version,
        manifest=ref.manifest,
        blobs=(*blobs_of(release), ref.manifest, *envelopes),
    )


def blobs_of(release: Release) -> tuple[str, ...]:
    """Return the digests of what a release consists of in the store, but for manifest and signatures."""
    archive = () if release.image is not None else (release.digest,)
    documents = (release.contents, release.provenance, release.sbom, *release.manifests.values())
    return (*archive, *(one for one in documents if one is not None))


def reasons_to_keep(
    uses: Iterable[Use], policy: Retention, in_environments: Mapping[str, str], now: datetime
) -> dict[Use, str | None]:
    """
    Return why each use is kept, ``None`` for those that only an unfinished run could keep.

    :param uses: those of one service
    :param in_environments: digest of a release -> where it is needed
    """
    uses = list(uses)
    newest = _newest(uses, policy.keep)
    return {use: _reason(use, policy, in_environments, newest, now) for use in uses}


def _newest(uses: Collection[Use], count: int) -> set[str | None]:
    """Return the manifests of the newest releases; a release that was used again counts from then on."""
    last: dict[str | None, datetime] = {}
    for use in uses:
        if use.kind == "release":
            last[use.manifest] = max(use.at, last.get(use.manifest, use.at))
    return set(sorted(last, key=lambda manifest: last[manifest], reverse=True)[:count])


def _reason(
    use: Use,
    policy: Retention,
    in_environments: Mapping[str, str],
    newest: Collection[str | None],
    now: datetime,
) -> str | None:
    if use.kind == "release" and use.name in in_environments:
        return in_environments[use.name]
    if now - use.at < policy.younger_than:
        return f"younger than {format_duration(policy.younger_than)}"
    if use.kind == "release" and use.manifest in newest:
        return f"among the newest {policy.keep}"
    return None
