"""A user that the machine has no entry for, to run build commands as. Only root can become another user."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_cd.processes.build_users import BuildUser

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv (util-linux), to run commands as another user",
)
# A number of their own for all processes that run tests at the same time: a user's processes end together.
_FIRST = 2_000_000


@contextmanager
def build_user(number: int = 0) -> Iterator[BuildUser]:
    """
    Yield a user whose home folder is gone afterwards.

    :param number: tells the users of one test apart
    """
    uid = _FIRST + 8 * os.getpid() + number
    # Not below the folder of the test, which is closed to others.
    home = Path(tempfile.mkdtemp(prefix=f"cd-home-{number}-"))
    os.chown(home, uid, uid)
    try:
        yield BuildUser(f"cd-test-{number}", uid, uid, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
