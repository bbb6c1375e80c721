"""Remembers what a services file says, since every task that starts reads the file again."""

from __future__ import annotations

import os
import stat
import tempfile
from hashlib import sha256
from pathlib import Path

from airflow_cd import __version__
from airflow_cd.dag_factories.excerpts import pack, unpack, unpack_one
from airflow_cd.model.document import Document
from airflow_cd.model.freeze import with_written_dates

# Below this the YAML is parsed in a few milliseconds.
_SMALLEST = 16 * 1024
# Enough for the files of many teams, and for the versions of each that running tasks still use.
_KEPT = 100


def cached_document(text: str, path: str, only: str | None = None) -> Document:
    """
    Return the parsed file, as remembered when this very content was parsed before.

    The copy lies in the data folder, under the hash of the content, and every part of it carries a hash of
    its own: it cannot be stale, and what is damaged, incomplete or somebody else's is not believed. Losing
    it, or not being able to write it, costs only time.

    :param only: name of the one service that is needed; a remembered file then yields no other one
    :raises DefinitionError: it is not valid YAML
    """
    if len(text) < _SMALLEST:
        return Document(text, path)
    key = sha256(f"{__version__} {os.geteuid()}\n{text}".encode()).digest()
    file = _folder() / f"{key.hex()}.services"
    try:
        data = _own(file)
        content = unpack(data, key) if only is None else unpack_one(data, key, only)
        return Document(text, path, content=content)
    except (OSError, ValueError):
        document = Document(text, path)
        _remember(document, file, key)
        return document


def _folder() -> Path:
    from airflow_cd.hooks.adapters import data_dir

    return data_dir() / "parsed"


def _own(file: Path) -> bytes:
    """Read a file that nobody else can have written. :raises ValueError: somebody else can"""
    with file.open("rb") as opened:
        status = os.fstat(opened.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"{file} may be somebody else's")
        return opened.read()


def _remember(document: Document, file: Path, key: bytes) -> None:
    try:
        data = pack(with_written_dates(document.content), key)
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent)  # readable and writable by nobody else
        with open(descriptor, "wb") as opened:
            opened.write(data)
        os.replace(temporary, file)
        old = sorted(file.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT]
        for path in old:
            path.unlink(missing_ok=True)
    except (OSError, ValueError):
        return
