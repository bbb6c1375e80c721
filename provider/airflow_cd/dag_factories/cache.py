"""Remembers what a services file says, since every task that starts reads the file again."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

from airflow_cd import __version__
from airflow_cd.model.document import Document

# Below this the YAML is parsed in a few milliseconds.
_SMALLEST = 16 * 1024
_KEPT = 5


def cached_document(text: str, path: str) -> Document:
    """
    Return the parsed file, from its JSON form when this very content was parsed before.

    The cache is a copy under the content's hash in the data folder: it cannot be stale, and losing it, or
    not being able to write it, costs only time.

    :raises DefinitionError: it is not valid YAML
    """
    if len(text) < _SMALLEST:
        return Document(text, path)
    key = sha256(__version__.encode() + b"\n" + text.encode()).hexdigest()
    file = _folder() / f"{key}.json"
    try:
        return Document(text, path, content=json.loads(file.read_bytes()))
    except (OSError, ValueError):
        document = Document(text, path)
        _remember(document, file)
        return document


def _folder() -> Path:
    from airflow_cd.hooks.adapters import data_dir

    return data_dir() / "parsed"


def _remember(document: Document, file: Path) -> None:
    try:
        content = json.dumps(document.content)
        # YAML knows more types than JSON; what would come back as something else is not kept.
        if json.loads(content) != document.content:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(content)
        os.replace(temporary, file)
        old = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_KEPT]
        for path in old:
            path.unlink(missing_ok=True)
    except (OSError, TypeError, ValueError):
        return
