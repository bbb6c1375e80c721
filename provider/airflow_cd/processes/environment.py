"""The environment commands and services start with: clean, and the same everywhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import gettempdir

# Build tools that write times write this one: https://reproducible-builds.org/specs/source-date-epoch/
SOURCE_DATE_EPOCH = "315532800"  # 1980-01-01, the first date a zip file can hold


def clean_environment() -> dict[str, str]:
    """
    Return what a command may see of its worker's environment.

    Airflow's own (``AIRFLOW__*``, connections, database and signing keys) is not part of it. The folder of
    the running interpreter comes first in ``PATH``, so that ``python`` is the Python Airflow runs on.
    """
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {
        "PATH": os.pathsep.join(path),
        "HOME": os.environ.get("HOME", "/"),
        "TMPDIR": gettempdir(),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONUNBUFFERED": "1",
    }
