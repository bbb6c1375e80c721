"""Collects the garbage of all that services of one file have in common: their stores, and this machine."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from airflow_cd.exceptions import ArtifactError
from airflow_cd.model.retention import Retention
from airflow_cd.model.service import Service
from airflow_cd.releases.adapters import open_store, store_url
from airflow_cd.retention.artifacts import Options, StoreCollector, UnfinishedRuns
from airflow_cd.retention.machine import collect_machine
from airflow_cd.retention.report import Row
from airflow_cd.stores.base import CollectableStore

log = logging.getLogger(__name__)


def collect(
    services: Sequence[Service],
    unfinished: UnfinishedRuns,
    options: Options,
    chosen: Collection[str] | None = None,
    *,
    whole_file: bool = True,
    say: Callable[[str], None] = log.info,
) -> Iterator[Row]:
    """
    Remove what nobody keeps, and yield what was removed and kept.

    :param services: all of the services file, since they share blobs and git caches
    :param chosen: names of the services whose releases are looked at; ``None`` means all, and what
        belongs to no service as well
    :param whole_file: whether these are really all; otherwise only their own releases are looked at
    :param say: receives what happens, a sentence each
    """
    if not whole_file:
        options = replace(options, unrecorded=None)
    revisions: set[str] | None = set()
    now = datetime.now(timezone.utc)
    for url, members in _by_store(services).items():
        wanted = {one.name for one in members if chosen is None or one.name in chosen}
        if not wanted:
            continue
        store = open_store(url)
        if not isinstance(store, CollectableStore):
            yield from (Row(name, "releases", why=f"left to the rules of {url}") for name in sorted(wanted))
            revisions = None
            continue
        collector = StoreCollector(store, members, wanted, unfinished, options, now, say)
        try:
            yield from collector.collect()
        except ArtifactError as error:
            say(f"The collection of {url} stopped: {error}")
            yield Row("-", "artifact store", why=str(error), is_complete=False)
            revisions = None
        if revisions is not None:
            revisions = revisions | collector.revisions if collector.is_complete else None
    if chosen is None and whole_file:
        age = options.younger_than or max((one.retention.younger_than for one in services), default=None)
        age = age or Retention().younger_than
        yield from collect_machine(services, revisions, age, dry_run=options.dry_run)


def _by_store(services: Sequence[Service]) -> dict[str, list[Service]]:
    found: dict[str, list[Service]] = defaultdict(list)
    for service in services:
        found[store_url(service)].append(service)
    return found
