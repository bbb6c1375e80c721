"""What a deployment would change, for those who decide about it, as Markdown."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_cd.exceptions import CdError

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import Target

log = logging.getLogger(__name__)

_LONGEST = 8000


def preview_of(
    service: Service, environment: Environment, target: Target, release: Release, store_url: str
) -> str | None:
    """
    Return what deploying the release would change, where the target can tell; else ``None``.

    A target that does not answer, or would refuse, costs no question: it is told in the preview's place.
    """
    from airflow_cd.hooks.adapters import open_store
    from airflow_cd.targets.base import DeclarativeTarget

    if not isinstance(target, DeclarativeTarget):
        return None
    try:
        found = target.preview(release, open_store(store_url))
    except (CdError, OSError) as error:
        log.warning("What deploying would change cannot be told: %s", error)
        return _fenced(str(error))
    if not found:
        return "Nothing but what runs already."
    text = "\n".join(f"# {one.name}\n{one.text.rstrip()}" for one in found)
    log.info("Deploying %s %s to %s would change:\n%s", service.name, release.version, environment.name, text)
    return _fenced(text, "diff")


def _fenced(text: str, language: str = "") -> str:
    """Nothing in the text can end the block: manifests are anybody's words."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n... and more, see the log"
    return f"````{language}\n{cut.replace('````', '` ` ` `')}\n````"
