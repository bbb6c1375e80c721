"""An artifact store in a folder, shared by any number of processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError, ArtifactNotFoundError

_DIGEST = re.compile(r"sha256:([0-9a-f]{2})([0-9a-f]{62})")
_REF = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")
_CHUNK = 1024 * 1024
_ABANDONED_SECONDS = 24 * 3600


class FilesystemStore:
    """
    Blobs at ``blobs/sha256/<2>/<62>``, references at ``refs/<name>.json``.

    A blob appears under its name whole and synced, or not at all; what a killed writer left is swept later.

    :param url: ``file:///absolute/folder``
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
            raise ArtifactError(f"{url!r} names no folder on this machine; write file:///absolute/folder")
        self.url = url
        self.root = Path(unquote(parts.path))

    def put_file(self, path: Path) -> str:
        """Store the file's bytes and return their digest."""
        with path.open("rb") as source:
            return self._put(iter(lambda: source.read(_CHUNK), b""), path.stat().st_size)

    def put_bytes(self, content: bytes) -> str:
        """Store the bytes and return their digest."""
        return self._put(iter([content]), len(content))

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there."""
        return self._blob(digest).is_file()

    def get_file(self, digest: str, into: Path) -> None:
        """Write the blob to the file ``into``, verified; see the protocol for the errors."""
        hasher = hashlib.sha256()
        with self._open(digest) as source, _written(into.parent) as (target, name):
            for chunk in iter(lambda: source.read(_CHUNK), b""):
                hasher.update(chunk)
                target.write(chunk)
            self._verify(digest, hasher.hexdigest())
            target.flush()
            os.replace(name, into)

    def get_bytes(self, digest: str) -> bytes:
        """Return the blob, verified."""
        with self._open(digest) as source:
            content = source.read()
        self._verify(digest, hashlib.sha256(content).hexdigest())
        return content

    def put_ref(self, name: str, value: dict[str, Any]) -> None:
        """Set the reference, replacing it atomically."""
        path = self._ref(name)
        content = json.dumps(value, sort_keys=True).encode()
        with self._writing(len(content)), _written(path.parent) as (target, temporary):
            target.write(content)
            _publish(target, temporary, path)

    def get_ref(self, name: str) -> dict[str, Any] | None:
        """Return the reference, or ``None`` when it was never set."""
        try:
            value: dict[str, Any] = json.loads(self._ref(name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ArtifactCorruptError(f"reference {name!r} in {self.url} is not JSON: {error}") from error
        return value

    def _put(self, chunks: Iterator[bytes], size: int) -> str:
        hasher = hashlib.sha256()
        incoming = self.root / "incoming"
        with self._writing(size), _written(incoming) as (target, temporary):
            for chunk in chunks:
                hasher.update(chunk)
                target.write(chunk)
            digest = f"sha256:{hasher.hexdigest()}"
            blob = self._blob(digest)
            # The same digest is written again rather than trusted: it mends a blob that rotted.
            _publish(target, temporary, blob)
        _sweep(incoming)
        return digest

    @contextmanager
    def _writing(self, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = f"the disk is full: {size} bytes are needed" if full else str(error)
            raise ArtifactError(f"cannot write to artifact store {self.url}: {what}") from error

    def _open(self, digest: str) -> IO[bytes]:
        try:
            return self._blob(digest).open("rb")
        except FileNotFoundError as error:
            raise ArtifactNotFoundError(f"artifact store {self.url} has no {digest}") from error

    def _verify(self, digest: str, found: str) -> None:
        if digest != f"sha256:{found}":
            raise ArtifactCorruptError(
                f"artifact store {self.url} holds other bytes under {digest}: they have sha256:{found}. "
                "Somebody or something changed them; build and package the revision again."
            )

    def _blob(self, digest: str) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise ArtifactError(f"{digest[:100]!r} is not a digest (sha256: and 64 hexadecimal digits)")
        return self.root / "blobs" / "sha256" / match[1] / match[2]

    def _ref(self, name: str) -> Path:
        if not _REF.fullmatch(name):
            raise ArtifactError(f"{name[:100]!r} is not a reference name (a-z, 0-9, '.', '_', '-', '/')")
        return self.root / "refs" / f"{name}.json"


@contextmanager
def _written(folder: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Open a new file in the folder; it is removed unless it was renamed meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".incoming-", delete=False) as target:
        try:
            yield target, target.name
        finally:
            Path(target.name).unlink(missing_ok=True)


def _publish(target: IO[bytes], temporary: str, path: Path) -> None:
    """Make the written file appear under its name, surviving a power cut."""
    target.flush()
    os.fsync(target.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed left, once nobody can be writing it any more."""
    for left in folder.glob(".incoming-*"):
        try:
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                left.unlink()
        except FileNotFoundError:
            continue
