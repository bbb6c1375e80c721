"""What an artifact store does: immutable blobs by digest, and small named references to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


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
