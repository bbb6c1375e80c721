"""An artifact store in a folder, shared by any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError, ArtifactNotFoundError
from airflow_cd.processes.disk import is_full
from airflow_cd.stores.base import Discarded, Stored
from airflow_cd.stores.trash import Identity, Thrown, Trash

_DIGEST = re.compile(r"sha256:([0-9a-f]{2})([0-9a-f]{62})")
_REF = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")
_CHUNK = 1024 * 1024
_ABANDONED_SECONDS = 24 * 3600
_INCOMING = "incoming"

T = TypeVar("T")


class FilesystemStore:
    """
    Blobs at ``blobs/sha256/<2>/<62>``, references at ``refs/<name>.json``.

    A blob appears under its name whole and synced, or not at all; what a killed writer left is swept later.
    What a collector removed is in ``trash`` for a while, see :mod:`airflow_cd.stores.trash`.

    :param url: ``file:///absolute/folder``
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        path = unquote(parts.path)
        # A `#` or `?` that was not escaped would silently name another folder.
        odd = parts.netloc or parts.query or parts.fragment or "\0" in path
        if parts.scheme != "file" or odd or not path.startswith("/"):
            raise ArtifactError(
                f"{url!r} names no folder on this machine; write file:///absolute/folder, "
                "with %23 for # and %3F for ? in it"
            )
        self.url = url
        self.root = Path(path)
        self._trash = Trash(self.root)
        self._bags: dict[datetime, Path] = {}

    def put_file(self, path: Path) -> str:
        """Store the file's bytes and return their digest."""
        try:
            source = path.open("rb")
        except OSError as error:
            raise ArtifactError(f"cannot store {path} in {self.url}: {error}") from error
        with source:
            size = os.fstat(source.fileno()).st_size
            return self._put(iter(lambda: source.read(_CHUNK), b""), size)

    def put_bytes(self, content: bytes) -> str:
        """Store the bytes and return their digest."""
        return self._put(iter([content]), len(content))

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there."""
        return self._is_there(self._blob(digest))

    def touch(self, digest: str) -> bool:
        """Say that the blob is used from now on, and tell whether it is there."""
        path = self._blob(digest)
        with self._writing(0), suppress(FileNotFoundError):
            os.utime(path)
            # Looked for afterwards: a collector that moved it away in between did not see the new time.
            path.stat()
            return True
        return self._is_there(path)

    def get_file(self, digest: str, into: Path) -> None:
        """Write the blob to the file ``into``, verified; see the protocol for the errors."""
        hasher = hashlib.sha256()
        with self._open(digest) as source:
            size = os.fstat(source.fileno()).st_size
            what = f"cannot copy {digest} from artifact store {self.url} to {into}"
            with _explained(what, size), _written(into.parent) as (target, name):
                for chunk in iter(lambda: source.read(_CHUNK), b""):
                    hasher.update(chunk)
                    target.write(chunk)
                self._verify(digest, hasher.hexdigest())
                target.flush()
                os.chmod(name, 0o644)
                os.replace(name, into)

    def get_unverified(self, digest: str, into: Path) -> None:
        """Write the blob to the file ``into`` as it is stored, whatever it is."""
        what = f"cannot copy {digest} from artifact store {self.url} to {into}"
        with self._open(digest) as source, _explained(what), into.open("wb") as target:
            shutil.copyfileobj(source, target)

    def get_bytes(self, digest: str) -> bytes:
        """Return the blob, verified."""
        with self._open(digest) as source, _explained(f"cannot read artifact store {self.url}"):
            content = source.read()
        self._verify(digest, hashlib.sha256(content).hexdigest())
        return content

    def put_ref(self, name: str, value: dict[str, Any]) -> None:
        """Set the reference, replacing it atomically."""
        path = self._ref(name)
        content = json.dumps(value, sort_keys=True).encode()
        with self._writing(len(content)), _written(self.root / _INCOMING) as (target, temporary):
            target.write(content)
            _publish(target, temporary, path)

    def get_ref(self, name: str) -> dict[str, Any] | None:
        """Return the reference, or ``None`` when it was never set."""
        path = self._ref(name)
        return self._read_ref(name, partial(self._taking_back, path, path.read_bytes))

    def look(self, kind: Literal["blob", "ref"], name: str) -> Stored | None:
        """Return what is stored under this name, ``None`` for nothing."""
        return self._stored(kind, name, self._blob(name) if kind == "blob" else self._ref(name))

    def blobs(self) -> Iterator[Stored]:
        """Yield all blobs."""
        for path in (self.root / "blobs" / "sha256").glob("*/*"):
            name = f"sha256:{path.parent.name}{path.name}"
            if _DIGEST.fullmatch(name) and (found := self._stored("blob", name, path)):
                yield found

    def refs(self, prefix: str) -> Iterator[Stored]:
        """Yield the references whose names begin with this one and a slash."""
        for path in self._ref(prefix).with_suffix("").rglob("*.json"):
            name = str(path.relative_to(self.root / "refs").with_suffix(""))
            if found := self._stored("ref", name, path):
                yield found

    def discard(self, one: Stored, owner: str, at: datetime) -> bool:
        """Remove it, unless it was used since it was seen; see the protocol."""
        bag = self._bags.setdefault(at, self._trash.new_bag(at.timestamp()))
        path = self._blob(one.name) if one.kind == "blob" else self._ref(one.name)
        with self._writing(0):
            return self._trash.throw(path.relative_to(self.root), one.mark, bag, owner)

    def discarded(self) -> Iterator[Discarded]:
        """Yield what was removed and can still be taken back."""
        for thrown in self._trash.thrown():
            first, *others = thrown.place.parts
            kind: Literal["blob", "ref"] = "blob" if first == "blobs" else "ref"
            name = f"sha256:{''.join(others[1:])}" if kind == "blob" else "/".join(others)[: -len(".json")]
            at = datetime.fromtimestamp(thrown.at, timezone.utc)
            yield Discarded(kind, name, thrown.size, thrown.owner, at, thrown)

    def read_discarded(self, one: Discarded) -> dict[str, Any] | None:
        """Return a removed reference, which stays removed; ``None`` when it is gone by now."""
        thrown: Thrown = one.mark
        return self._read_ref(one.name, thrown.path.read_bytes)

    def take_back(self, one: Discarded) -> bool:
        """Undo the removal, as if it was used just now. Return whether that was possible."""
        thrown: Thrown = one.mark
        return self._taken_back(self.root / thrown.place)

    def delete(self, one: Discarded) -> bool:
        """Delete it for good. Return whether it was still there."""
        with self._writing(0):
            return self._trash.delete(one.mark)

    def _stored(self, kind: Literal["blob", "ref"], name: str, path: Path) -> Stored | None:
        try:
            seen = Identity.of(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        changed = datetime.fromtimestamp(seen.changed / 1e9, timezone.utc)
        return Stored(kind, name, seen.size, changed, seen)

    def _taken_back(self, path: Path) -> bool:
        """Take back what a collector removed, or return that nothing was."""
        with self._writing(0):
            return self._trash.take_back(path.relative_to(self.root))

    def _is_there(self, path: Path) -> bool:
        """Tell whether there is such a file, if need be by taking it back."""
        # Twice: a collector that puts it back does so between the first look and the one into the trash.
        return path.is_file() or self._taken_back(path) or path.is_file()

    def _taking_back(self, path: Path, read: Callable[[], T]) -> T:
        """Return what ``read`` returns. A file that it misses is taken back, if a collector removed it."""
        try:
            return read()
        except FileNotFoundError:
            if not self._is_there(path):
                raise
            return read()  # it was used just now, and so is left alone

    def _read_ref(self, name: str, read: Callable[[], bytes]) -> dict[str, Any] | None:
        try:
            value = json.loads(read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ArtifactError(f"cannot read reference {name!r} in {self.url}: {error}") from error
        except ValueError as error:
            raise self._corrupt_ref(name, str(error)) from error
        if not isinstance(value, dict):
            raise self._corrupt_ref(name, "it is something else")
        return value

    def _put(self, chunks: Iterator[bytes], size: int) -> str:
        hasher = hashlib.sha256()
        incoming = self.root / _INCOMING
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

    def _writing(self, size: int) -> AbstractContextManager[None]:
        return _explained(f"cannot write to artifact store {self.url}", size)

    def _open(self, digest: str) -> IO[bytes]:
        path = self._blob(digest)
        try:
            return self._taking_back(path, lambda: path.open("rb"))
        except FileNotFoundError as error:
            raise ArtifactNotFoundError(f"artifact store {self.url} has no {digest}") from error
        except OSError as error:
            raise ArtifactError(f"cannot read {digest} in artifact store {self.url}: {error}") from error

    def _corrupt_ref(self, name: str, problem: str) -> ArtifactCorruptError:
        return ArtifactCorruptError(f"reference {name!r} in {self.url} is not a JSON object: {problem}")

    def _verify(self, digest: str, found: str) -> None:
        if digest != f"sha256:{found}":
            raise ArtifactCorruptError(
                f"artifact store {self.url} is corrupt: the content stored as {digest} has sha256:{found}. "
                "Its files were changed. Build and package the revision again."
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
def _explained(what: str, size: int = 0) -> Iterator[None]:
    """Turn what the system says into our error; ``size`` is how many bytes were to be written."""
    try:
        yield
    except OSError as error:
        needed = f"the disk is full: {size} bytes are needed; make room there, then try again"
        why = needed if is_full(error) else str(error)
        raise ArtifactError(f"{what}: {why}") from error


@contextmanager
def _written(folder: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Open a new file in the folder; it is removed unless it was renamed meanwhile."""
    _make_folder(folder)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".incoming-", delete=False) as target:
        try:
            yield target, target.name
        finally:
            Path(target.name).unlink(missing_ok=True)


def _publish(target: IO[bytes], temporary: str, path: Path) -> None:
    """Make the written file appear under its name, surviving a power cut."""
    target.flush()
    os.fsync(target.fileno())
    _make_folder(path.parent)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """Create it with its parents, each synced: a power cut must not lose the folder of a synced file."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed left, once nobody can be writing it any more."""
    for left in folder.glob(".incoming-*"):
        try:
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                left.unlink()
        except OSError:  # another process swept it, or it is not ours to remove
            continue
