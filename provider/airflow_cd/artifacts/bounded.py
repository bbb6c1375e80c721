"""A reader that goes forward only and no further than it was told: what stops decompression bombs."""

from __future__ import annotations

from gzip import GzipFile

from airflow_cd.exceptions import UnsafeArchiveError

_CHUNK = 64 * 1024
# Writers of tar files pad them with zeros to a multiple of their record size.
_PADDING = 1024 * 1024


class BoundedReader:
    """
    Stands between tarfile and the decompressed bytes, so that no header makes tarfile read or skip at will.

    :param stream: the decompressed bytes
    """

    def __init__(self, stream: GzipFile) -> None:
        self._stream = stream
        self._end = 0

    def allow(self, size: int) -> None:
        """Let the next bytes be read, from here on; what was allowed before and not read is forgotten."""
        self._end = self._stream.tell() + size

    def tell(self) -> int:
        """Return the position in the decompressed bytes."""
        return self._stream.tell()

    def read(self, size: int) -> bytes:
        """Return the next bytes. :raises UnsafeArchiveError: more than allowed"""
        self._check(self._stream.tell() + size if size >= 0 else -1)
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        """Skip forward. :raises UnsafeArchiveError: back, or further than allowed"""
        self._check(position)
        return self._stream.seek(position)

    def finish(self) -> bool:
        """Read to the end, which checks gzip's checksum, and tell whether only padding was left."""
        self.allow(_PADDING)
        while chunk := self._stream.read(_CHUNK):
            self._check(self._stream.tell())
            if chunk.strip(b"\0"):
                return False
        return True

    def _check(self, position: int) -> None:
        if not self._stream.tell() <= position <= self._end:
            raise UnsafeArchiveError("the archive's headers state sizes that its members do not have")
