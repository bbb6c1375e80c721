"""What to say when the system refuses to write."""

from __future__ import annotations

import errno
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Programs that write for us say it in these words.
NO_SPACE = ("no space left on device", "disk quota exceeded")


def is_full(error: OSError) -> bool:
    """Tell whether a disk, or this user's share of it, is full."""
    return error.errno in _FULL


def write_problem(error: OSError, folder: Path) -> str:
    """Return what is wrong, with the folder it is about and, where that helps, what to do."""
    if is_full(error):
        return f"{error.strerror}: make room on the disk of {folder}, then try again"
    return str(error)
