"""Caches parsed services files: every task that starts parses its DAG again."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow_cd import __version__
from airflow_cd.model.services_file.yaml_lines import Document
from airflow_cd.model.window import with_written_dates

_NO_NAME, _END = b"null", b"end"


def pack(content: Any, key: bytes) -> bytes:
    """
    Return the content as lines.

    :raises ValueError: JSON cannot say all of it, or it has no services
    """
    if not isinstance(content, dict) or not isinstance(content.get("services"), list):
        raise ValueError("there are no services")
    others = {name: value for name, value in content.items() if name != "services"}
    lines = [_line(_NO_NAME, others, key), *(_line(_name(one), one, key) for one in content["services"])]
    data = b"".join(lines)
    return data + b"\t".join((_END, _hash(key, data))) + b"\n"


def unpack(data: bytes, key: bytes) -> dict[str, Any]:
    """
    Return the content.

    :raises ValueError: a part is missing or damaged
    """
    start = data.rfind(b"\n", 0, -1) + 1
    if data[start:] != b"\t".join((_END, _hash(key, data[:start]))) + b"\n":
        raise ValueError("not what was written")
    parts = [line.rpartition(b"\t")[2] for line in data[:start].splitlines()]
    others, *services = json.loads(b"[" + b",".join(parts) + b"]")
    return {**others, "services": services}


def unpack_one(data: bytes, key: bytes, name: str) -> dict[str, Any]:
    """
    Return the content with no service but the first one of this name.

    :raises ValueError: there is none, or a part that is needed is damaged
    """
    others = _value(data, 0, _NO_NAME, key)
    wanted = json.dumps(name).encode()
    start = data.find(b"\n" + wanted + b"\t") + 1
    if not start:
        raise ValueError(f"no service {name!r}")
    return {**others, "services": [_value(data, start, wanted, key)]}


def _name(service: Any) -> bytes:
    name = service.get("name") if isinstance(service, dict) else None
    return json.dumps(name).encode() if isinstance(name, str) else _NO_NAME


def _line(name: bytes, value: Any, key: bytes) -> bytes:
    try:
        text = json.dumps(value)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    # YAML knows more types than JSON; what would come back as something else is not kept.
    if json.loads(text) != value:
        raise ValueError("not JSON")
    return b"\t".join((name, _hash(key, name + text.encode()), text.encode())) + b"\n"


def _value(data: bytes, start: int, name: bytes, key: bytes) -> Any:
    found, digest, text = data[start : data.index(b"\n", start)].split(b"\t")
    if found != name or digest != _hash(key, name + text):
        raise ValueError("not what was written")
    return json.loads(text)


def _hash(key: bytes, data: bytes) -> bytes:
    return sha256(key + data).hexdigest().encode()


# Below this the YAML is parsed in a few milliseconds.
_SMALLEST = 16 * 1024
# Enough for the files of many teams, and for the versions of each that running tasks still use.
_KEPT = 100


def cached_document(text: str, path: str, only: str | None = None) -> Document:
    """
    Return the parsed file, as remembered when this very content was parsed before.

    The copy lies in the data folder, under the hash of the content, and every part of it carries a hash of
    its own: it cannot be stale, and what is damaged, incomplete or owned by another user is not used. Losing
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
    from airflow_cd.releases.adapters import data_dir

    return data_dir() / "parsed"


def _own(file: Path) -> bytes:
    """
    Read a file that only this user can write.

    :raises ValueError: others can write it
    """
    with file.open("rb") as opened:
        status = os.fstat(opened.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"{file} can be written by other users")
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
