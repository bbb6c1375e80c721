"""What an artifact store does: immutable blobs by digest, and small named references to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable


class ArtifactStore(Protocol):
    """
    A content-addressed store. Writes are idempotent and atomic: a killed writer leaves nothing half-written.

    Digests are ``sha256:<64 hex digits>``. Reference names are slash-separated paths of ``[a-z0-9._-]``.
    """

    url: str

    def put_file(self, path: Path) -> str:
        """Store the file's bytes and return their digest."""

    def put_bytes(self, content: bytes) -> str:
        """Store the bytes and return their digest."""

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there."""

    def touch(self, digest: str) -> bool:
        """
        Say that the blob is used from now on, as far as a collector is concerned; tell whether it is there.

        A blob that is written needs no such word.
        """

    def get_file(self, digest: str, into: Path) -> None:
        """
        Write the blob to the file ``into``, verified.

        :raises ArtifactNotFoundError: no such blob
        :raises ArtifactCorruptError: the stored bytes have another digest; ``into`` is not written
        """

    def get_unverified(self, digest: str, into: Path) -> None:
        """
        Write the blob to the file ``into`` as it is stored: for saying what is wrong with it, nothing else.

        :raises ArtifactNotFoundError: no such blob
        """

    def get_bytes(self, digest: str) -> bytes:
        """Return the blob, verified. Raises as :meth:`get_file`."""

    def put_ref(self, name: str, value: dict[str, Any]) -> None:
        """Set the reference (a small JSON object), replacing it atomically."""

    def get_ref(self, name: str) -> dict[str, Any] | None:
        """Return the reference, or ``None`` when it was never set."""


class Stored(NamedTuple):
    """
    A blob or a reference, as it was seen.

    :param name: a digest, or the name of a reference
    :param size: bytes
    :param changed: when it was written or touched
    :param mark: the store's own note of what it looked like
    """

    kind: Literal["blob", "ref"]
    name: str
    size: int
    changed: datetime
    mark: Any


class Discarded(NamedTuple):
    """
    A blob or a reference that was removed, and can still be taken back.

    :param owner: on whose behalf it was removed
    :param at: when it was removed
    """

    kind: Literal["blob", "ref"]
    name: str
    size: int
    owner: str
    at: datetime
    mark: Any


@runtime_checkable
class CollectableStore(ArtifactStore, Protocol):
    """
    A store whose content can be listed and removed, beside tasks that use it.

    What is removed stays for a while, and every use takes it back: see :mod:`airflow_cd.stores.trash`. Of a
    store without this, its own retention (such as rules of a bucket) is all there is.
    """

    def look(self, kind: Literal["blob", "ref"], name: str) -> Stored | None:
        """Return what is stored under this name, ``None`` for nothing."""

    def blobs(self) -> Iterator[Stored]:
        """Yield all blobs."""

    def refs(self, prefix: str) -> Iterator[Stored]:
        """Yield the references whose names begin with this one and a slash."""

    def discard(self, one: Stored, owner: str, at: datetime) -> bool:
        """
        Remove it, unless it was used since it was seen. Return whether it is removed.

        :param at: the same for all that one collector removes
        :raises ArtifactError: the store cannot be written
        """

    def discarded(self) -> Iterator[Discarded]:
        """Yield what was removed and can still be taken back."""

    def read_discarded(self, one: Discarded) -> dict[str, Any] | None:
        """Return a removed reference, which stays removed; ``None`` when it is gone by now."""

    def take_back(self, one: Discarded) -> bool:
        """Undo the removal, as if it was used just now. Return whether that was possible."""

    def delete(self, one: Discarded) -> bool:
        """Delete it for good. Return whether it was still there."""
