"""
Which release of a service waits for its train.

Kept in the artifact store, where only workers write: at departure nobody has to be asked, and a train takes
what was ready by then, however many pipelines are under way.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_cd.exceptions import RevisionNotFoundError
from airflow_cd.hooks.adapters import open_source, open_store, store_url

if TYPE_CHECKING:
    from airflow_cd.model.release import ReleaseRef
    from airflow_cd.model.service import Service

log = logging.getLogger(__name__)

# Under this XCom key a member that stays behind tells why.
ABSENT = "absent"


def make_ready(service: Service, ref: ReleaseRef) -> bool:
    """
    Let the service's next train take this release, unless a newer one waits already.

    :return: whether it is this one that waits now
    :raises SourceError: the repository cannot be asked which one is newer
    """
    before = ready_release(service)
    if before is not None and before.revision != ref.revision and _is_newer(service, before, ref):
        log.info("%s waits already, which is newer than %s", before.version, ref.version)
        return False
    open_store(store_url(service)).put_ref(_name(service), {"release": ref.model_dump(mode="json")})
    return True


def ready_release(service: Service) -> ReleaseRef | None:
    """Return the release that waits, or ``None`` when none ever did."""
    from airflow_cd.model.release import ReleaseRef

    kept = open_store(store_url(service)).get_ref(_name(service))
    return None if kept is None else ReleaseRef.model_validate(kept["release"])


def _is_newer(service: Service, one: ReleaseRef, other: ReleaseRef) -> bool:
    with open_source(service) as source:
        try:
            return source.is_ancestor(other.revision, one.revision)
        except RevisionNotFoundError:  # force-pushed away: what was made ready last counts
            return False


def _name(service: Service) -> str:
    return f"ready/{service.name}"
