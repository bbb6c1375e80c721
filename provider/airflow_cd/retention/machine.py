"""Removes from this machine's data folder what dead tasks left there, and git caches that nobody uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_cd.exceptions import SourceError
from airflow_cd.processes import private_folder
from airflow_cd.processes.scratch import remove_abandoned, size_of
from airflow_cd.releases.adapters import data_dir
from airflow_cd.retention.report import Row, Tally

if TYPE_CHECKING:
    from airflow_cd.model.service import Service

_NOBODY = "-"


def collect_machine(
    services: Sequence[Service], revisions: set[str] | None, older_than: timedelta, *, dry_run: bool
) -> Iterator[Row]:
    """
    Remove, and yield what was removed.

    :param services: all of the services file
    :param revisions: commits that are needed; ``None`` where that is not known, and all are kept
    :param older_than: how long nobody has used it
    """
    yield Row(_NOBODY, "scratch folders", Tally(*remove_abandoned(data_dir() / "scratch", dry_run=dry_run)))
    if not dry_run:
        private_folder.sweep()
    cache = data_dir() / "git"
    yield _stale_mirrors(cache, services, older_than, dry_run=dry_run)
    if revisions is None:
        why = "it is not known which commits are needed"
        yield Row(_NOBODY, "commits of git caches", why=why, is_complete=False)
    else:
        yield _commits(cache, services, revisions, older_than, dry_run=dry_run)


def _stale_mirrors(cache: Path, services: Sequence[Service], age: timedelta, *, dry_run: bool) -> Row:
    from airflow_cd.sources.stale_mirrors import remove_mirror, stale_mirrors

    removed = Tally()
    for folder in stale_mirrors(cache, {service.source.repository for service in services}, age):
        size = size_of(folder)
        if dry_run or remove_mirror(folder):
            removed = removed.plus(Tally(1, size))
    left = [folder for folder in cache.glob("*.git") if folder.is_dir()]
    kept = Tally(len(left) - removed.count * dry_run, sum(map(size_of, left)) - removed.size * dry_run)
    why = "named by a service, or used lately" if kept.count else ""
    return Row(_NOBODY, "git caches", removed, kept, why)


def _commits(
    cache: Path, services: Sequence[Service], revisions: set[str], age: timedelta, *, dry_run: bool
) -> Row:
    from airflow_cd.sources.mirror import Mirror

    count, problems = 0, []
    for repository in sorted({service.source.repository for service in services}):
        try:
            count += Mirror(repository, cache).forget(revisions, age, dry_run=dry_run)
        except SourceError as error:
            problems.append(str(error))
    return Row(
        _NOBODY, "commits of git caches", Tally(count), why="; ".join(problems), is_complete=not problems
    )
