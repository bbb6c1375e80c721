"""A file that takes long to make, made once for all who need a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def copy_or_make(template: Path, file: Path, make: Callable[[], None]) -> None:
    """
    Copy a template to ``file``; when there is none yet, make ``file``, and keep a copy as the template.

    However many processes ask at the same time, one makes it, and the others wait for it.

    :param make: makes ``file``
    """
    template.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{template}.lock"):
        if not template.exists():
            make()
            unfinished = template.with_suffix(".new")
            shutil.copyfile(file, unfinished)
            unfinished.replace(template)
            return
    shutil.copyfile(template, file)
