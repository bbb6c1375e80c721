"""Whose work a release would bring to an environment, from the commits themselves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_cd.exceptions import RevisionNotFoundError, SourceError
from airflow_cd.releases.adapters import open_source

if TYPE_CHECKING:
    from airflow_cd.model.approval import Approval
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.record import Record

log = logging.getLogger(__name__)


def authors_now(
    service: Service, release: Release, record: Record, policy: Approval | None
) -> tuple[str, ...]:
    """
    Return the e-mail addresses of authors and co-authors of all commits that deploying would bring.

    They are those since what runs now: it may be an older release than the one that ran when this one was
    packaged. A first release has no beginning to count from, so its newest commit alone counts.

    :param policy: nobody is looked for where it does not matter
    :raises SourceError: the repository cannot be read, or has lost the commit while production changed
    """
    if policy is not None and policy.self_approval:
        return ()
    since = record.current.release.revision.sha if record.current else None
    try:
        with open_source(service) as source:
            found = source.authors(since, release.revision.sha)
    except RevisionNotFoundError:
        # Force-pushed away, for good. The manifest names the authors, as long as production is where it was.
        if since != release.since:
            raise
        return release.authors
    return tuple(dict.fromkeys((*found, *release.authors)))


def authors_known(
    service: Service, release: Release, record: Record, policy: Approval | None
) -> tuple[str, ...]:
    """
    Return the same, or the authors the manifest names while the repository cannot be read.

    For who asks: a person's answer must not be lost because the git host is down, and ``deploy`` looks again.
    """
    try:
        return authors_now(service, release, record, policy)
    except SourceError as error:
        log.warning("Cannot tell all authors now; `deploy` looks again before anything happens: %s", error)
        return release.authors
