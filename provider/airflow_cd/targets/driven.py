"""Drives a rollout from where it stands, by looking and acting over and over."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Protocol

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.targets.record import Record
from airflow_cd.targets.rollouts import rollout_of

log = logging.getLogger(__name__)

POLL_SECONDS = 0.15
# Longer than the lease of somebody who died lasts.
_LONGEST_CONFLICT = 60.0


class Advancing(Protocol):
    """The part of a :class:`~airflow_cd.targets.base.ProgressiveTarget` that is needed here."""

    def advance(self, token: str) -> Record:
        """Look, decide and act once."""


def drive_to_completion(target: Advancing, record: Record, token: str) -> Iterator[Record]:
    """
    Yield the record before, and after each look, until the rollout is over; then it is the last one.

    Somebody else who drives the same rollout, as a triggerer may, is no error: the next look tells more.

    :param record: as it is now
    :param token: which rollout
    :raises DeployConflictError: for a minute, somebody kept every look from acting
    """
    before, acted = record, time.monotonic()
    yield record
    while rollout_of(record, token) is not None:
        if record == before:  # else there may be more to do at once
            time.sleep(POLL_SECONDS)
        before = record
        try:
            record, acted = target.advance(token), time.monotonic()
        except DeployConflictError as error:
            if time.monotonic() - acted > _LONGEST_CONFLICT:
                raise
            log.debug("Once more: %s", error)
        yield record
