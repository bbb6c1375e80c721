"""Finds and removes mirrors of repositories that nobody has used for a long time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from airflow_cd.sources.mirror import mirror_name


def stale_mirrors(cache_dir: Path, repositories: Collection[str], older_than: timedelta) -> Iterator[Path]:
    """
    Yield the mirrors that were not used for this long, but for those of these repositories.

    :param cache_dir: where mirrors lie
    """
    named = {f"{mirror_name(one)}.git" for one in repositories}
    for folder in sorted(cache_dir.glob("*.git")):
        if folder.name not in named and time.time() - folder.stat().st_mtime > older_than.total_seconds():
            yield folder


def remove_mirror(folder: Path) -> bool:
    """
    Remove a mirror, unless it is being written. Return whether it is gone.

    A mirror may vanish at any time: a process that reads it makes it again.
    """
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            # As the mirror itself does: what is left when this is killed is removed by the next one.
            old = folder.with_suffix(".old")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)
            return True
    except (FileNotFoundError, Timeout):
        return False
