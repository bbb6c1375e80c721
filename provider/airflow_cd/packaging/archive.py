"""Archives: reproducible, bounded when read, and unpacked inside their folder or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from gzip import GzipFile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError, UnsafeArchiveError
from airflow_cd.processes.disk import write_problem

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
        """
        Return the next bytes.

        :raises UnsafeArchiveError: more than allowed
        """
        self._check(self._stream.tell() + size if size >= 0 else -1)
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        """
        Skip forward.

        :raises UnsafeArchiveError: back, or further than allowed
        """
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


# Header blocks of one member, with names as long as a file system takes them.
HEADER_BYTES = 64 * 1024
_BLOCK = 512
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# A second opinion on links, where this Python has one.
_data_filter = getattr(tarfile, "data_filter", None)


def safe_members(
    archive: tarfile.TarFile, stream: BoundedReader, folder: Path, *, max_bytes: int, max_members: int
) -> Iterator[tarfile.TarInfo]:
    """
    Yield the members in order, each with a clean relative name.

    :param stream: what the archive is read from; it is allowed the bytes of the member that is yielded
    :param folder: where they are to be written
    :raises UnsafeArchiveError: at the first that cannot be written
    """
    seen: set[str] = set()
    links: set[str] = set()
    total = 0
    while (member := _next(archive, stream)) is not None:
        member.name = str(PurePosixPath(member.name))
        total += member.size
        if member.size < 0 or total > max_bytes or len(seen) >= max_members:
            raise UnsafeArchiveError(
                f"the archive holds more than {max_bytes} bytes or {max_members} members"
            )
        _check_name(member.name, seen, links)
        _check_kind(member)
        _check_twice(member, folder)
        seen.add(member.name)
        if member.issym():
            links.add(member.name)
        stream.allow(member.size + _BLOCK)
        yield member


def check_link(name: str, target: str) -> None:
    """
    Check a symbolic link by its text.

    Only ``../`` up to the folder and then names are allowed. Every link of a folder being like that, and none
    lying behind another, no chain of them leaves the folder; ``a/..`` could, when ``a`` is a link itself.

    :param name: of the link, relative to the folder
    :raises UnsafeArchiveError: the link leaves the folder, or could
    """
    parts = PurePosixPath(target).parts
    landing = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if not target or os.path.isabs(target) or landing == ".." or landing.startswith("../"):
        raise UnsafeArchiveError(f"the link {shown(name)} points outside the folder, to {shown(target)}")
    down = False
    for part in parts:
        if down and part == "..":
            raise UnsafeArchiveError(
                f"the link {shown(name)} goes down and up again, to {shown(target)}, which other links can "
                "turn into a way out of the folder; write its shortest form"
            )
        down = down or part != ".."


def shown(name: str) -> str:
    """Return a name from outside, fit for a log line."""
    return repr(_UNPRINTABLE.sub("?", name)[:200])


def native(name: str) -> str:
    """Return the name of an archive, which is UTF-8, as this process names files."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def portable(name: str | bytes) -> str:
    """Return the name of a file as archives hold it, whatever the locale of this process."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _next(archive: tarfile.TarFile, stream: BoundedReader) -> tarfile.TarInfo | None:
    stream.allow(HEADER_BYTES)
    # Python 3.10 goes on reading before the begin of an archive that has no members at all.
    if archive.firstmember is None and archive.offset == 0:  # type: ignore[attr-defined]
        return None
    # The first one was read when the archive was opened; next() then hands it out again.
    return archive.next()


def _check_name(name: str, seen: set[str], links: set[str]) -> None:
    path = PurePosixPath(name)
    if name in seen:
        raise UnsafeArchiveError(f"{shown(name)} is in the archive twice")
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UnsafeArchiveError(f"{shown(name)} would be written outside the folder")
    if not links.isdisjoint(map(str, path.parents)):
        raise UnsafeArchiveError(f"{shown(name)} would be written through a link")


def _check_kind(member: tarfile.TarInfo) -> None:
    if member.issym():
        check_link(member.name, member.linkname)
    elif member.issparse() or not (member.isreg() or member.isdir()):
        raise UnsafeArchiveError(f"{shown(member.name)} is neither a file, a folder nor a symbolic link")


def _check_twice(member: tarfile.TarInfo, folder: Path) -> None:
    # Of files and folders the name says all there is to say, and asking costs a third of the unpacking.
    if _data_filter is None or not member.issym():
        return
    renamed = member.replace(name=native(member.name), linkname=native(member.linkname), deep=False)
    try:
        _data_filter(renamed, str(folder))
    except tarfile.TarError as error:
        raise UnsafeArchiveError(f"{shown(member.name)} is not safe to unpack: {error}") from error


_WILD = re.compile(r"(?:\*\*/)+|/\*\*$|\*\*|\*|\?")
_MEANING = {"/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class Patterns:
    """
    Several patterns; a path matches if one of them does.

    ``*`` and ``?`` stay within a folder, ``**`` crosses folders. A pattern whose last part has no wildcard
    (``src``, ``**/node_modules``) also stands for everything below such a folder, and ``.`` for everything.
    Names are relative, with ``/``.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._expressions = [_expression(pattern) for pattern in patterns]

    def match(self, name: str) -> bool:
        """Tell whether one of the patterns matches this name."""
        return any(expression.fullmatch(name) for expression in self._expressions)


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    pattern = "**" if pattern in (".", "./") else pattern.removeprefix("./").rstrip("/")
    for found in _WILD.finditer(pattern):
        # Several `**/` in a row mean one, which also keeps hostile patterns from taking for ever.
        parts += [re.escape(pattern[end : found.start()]), _MEANING.get(found.group(), "(?:.*/)?")]
        end = found.end()
    parts.append(re.escape(pattern[end:]))
    below = "" if re.search(r"[*?]", pattern.rpartition("/")[2]) else "(?:/.*)?"
    return re.compile("".join(parts) + below, re.DOTALL)


# 1980-01-01 UTC: member times say nothing about the content, so they are all the same.
_TIME = 315532800
_LEVEL = 6
_MAX_BYTES = 8 * 1024**3
_MAX_MEMBERS = 500_000
# PAX: names of any length, in UTF-8 whatever the locale. Its other records (times, owners) are never needed.
_FORMAT: dict[str, Any] = {"format": tarfile.PAX_FORMAT, "encoding": "utf-8", "errors": "surrogateescape"}
_NO_ARCHIVE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError)


def pack(folder: Path, into: Path, *, include: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """
    Write what matches to the ``.tar.gz`` file ``into`` and return the names, sorted.

    The bytes depend on names, contents, executable bits and link targets, and on nothing else of the files
    or the machine; a Python whose zlib compresses otherwise (zlib-ng) writes other bytes. Folders are kept
    when they are empty.

    :param include: patterns; ``**`` crosses folders, ``*`` does not, a folder stands for all below it
    :param exclude: patterns of what to leave out of that
    :raises ArtifactError: an include pattern matches nothing, or a file cannot be read or written
    :raises UnsafeArchiveError: a link leaves the folder, or a file is neither file nor link
    """
    if folder.resolve() in into.resolve().parents:
        raise ArtifactError(f"the archive {into} would lie in the folder it is made of, {folder}")
    try:
        chosen = _chosen(folder, include, exclude)
        _write(folder, into, chosen)
    except OSError as error:
        raise ArtifactError(f"cannot pack {folder} to {into}: {write_problem(error, into.parent)}") from error
    return chosen


def unpack(
    archive: Path, into: Path, *, max_bytes: int = _MAX_BYTES, max_members: int = _MAX_MEMBERS
) -> None:
    """
    Unpack a ``.tar.gz`` file to the new folder ``into``, which appears whole or not at all.

    :param max_bytes: what all files together may hold
    :raises UnsafeArchiveError: a member is not what :func:`pack` writes (``..``, absolute names, devices,
        links that leave the folder, a name twice), or there is more of it than allowed
    :raises ArtifactError: it is not an archive, ``into`` exists, or it cannot be written
    """
    if os.path.lexists(into):
        raise ArtifactError(f"cannot unpack to {into}: it exists")
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
        try:
            _extract_all(archive, temporary, max_bytes, max_members)
            os.rename(temporary, into)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        problem = write_problem(error, into.parent)
        raise ArtifactError(f"cannot unpack {archive.name} to {into}: {problem}") from error


def _chosen(folder: Path, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    names = sorted(_walk(folder))
    excluded = Patterns(exclude)
    chosen: set[str] = set()
    for pattern in include:
        one = Patterns([pattern])
        found = {name for name in names if one.match(name)}
        # `**` of an empty tree is an empty archive; a name that is not there is a mistake.
        if not found and pattern != "**":
            raise ArtifactError(f"the package pattern {pattern!r} matches no file; correct `include:`")
        chosen |= found
    return [name for name in names if name in chosen and not excluded.match(name)]


def _walk(folder: Path) -> Iterator[str]:
    """Yield files, links and empty folders. What cannot be listed is an error, not an absence."""
    for path, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        for name in (*files, *links):
            yield portable(os.path.relpath(os.path.join(path, name), folder))
        if not folders and not files and path != str(folder):
            yield portable(os.path.relpath(path, folder))


def _raise(error: OSError) -> None:
    raise error


def _write(folder: Path, into: Path, names: Sequence[str]) -> None:
    try:
        with into.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as zipped:
            with tarfile.open(fileobj=zipped, mode="w", **_FORMAT) as archive:
                for name in names:
                    _add(archive, folder, name)
    except BaseException:
        into.unlink(missing_ok=True)
        raise


def _add(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    path = folder / native(name)
    status = path.lstat()
    info = tarfile.TarInfo(name)
    info.mtime = _TIME
    info.mode = 0o755 if status.st_mode & 0o100 else 0o644
    if stat.S_ISREG(status.st_mode):
        info.size = status.st_size
        with path.open("rb") as content:
            archive.addfile(info, content)
        return
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, portable(os.readlink(path)), 0o644
        check_link(name, info.linkname)
    elif stat.S_ISDIR(status.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        raise UnsafeArchiveError(f"{shown(name)} is neither a file nor a link; exclude it")
    archive.addfile(info)


@contextmanager
def opened(
    archive: Path, folder: Path, *, max_bytes: int = _MAX_BYTES, max_members: int = _MAX_MEMBERS
) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """
    Open a ``.tar.gz`` file to go through its members once, each checked before it is given.

    :param folder: where they are to be written, or would be
    :raises UnsafeArchiveError: as :func:`unpack`
    :raises ArtifactError: it is not an archive, or cannot be read
    """
    try:
        with gzip.open(archive, "rb") as zipped:
            stream = BoundedReader(zipped)
            stream.allow(HEADER_BYTES)
            reader: Any = stream
            with tarfile.open(fileobj=reader, mode="r:", **_FORMAT) as tar:
                yield tar, safe_members(tar, stream, folder, max_bytes=max_bytes, max_members=max_members)
            if not stream.finish():
                raise tarfile.ReadError("there is something behind its end")
    except _NO_ARCHIVE as error:
        raise ArtifactError(f"{archive.name} is not a .tar.gz archive: {error}") from error


def _extract_all(archive: Path, folder: Path, max_bytes: int, max_members: int) -> None:
    links: list[tuple[Path, str]] = []
    with opened(archive, folder, max_bytes=max_bytes, max_members=max_members) as (tar, members):
        for member in members:
            path = folder / native(member.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                links.append((path, native(member.linkname)))
            else:
                _extract(tar, member, path)
    # Last, so that no file is written through one, whatever names the file system holds to be the same.
    for path, target in links:
        path.symlink_to(target)
    for path_of_folder, _, _ in os.walk(folder):
        os.chmod(path_of_folder, 0o755)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(exist_ok=True)
        return
    content = archive.extractfile(member)
    assert content is not None
    with content, path.open("xb") as target:
        shutil.copyfileobj(content, target)
    # Neither owner nor setuid bits are taken over, only whether it can be run.
    os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)
    os.utime(path, (_TIME, _TIME))


_MOST_NAMES = 20


class Contents(NamedTuple):
    """
    :param members: path -> ``sha256:<hex>`` (then `` executable``), ``link:<where to>`` or ``folder``
    :param problem: why the archive could not be read any further, ``None`` when it was read to its end
    """

    members: dict[str, str]
    problem: str | None = None


def contents(archive: Path) -> Contents:
    """Read an archive as far as that is possible."""
    members: dict[str, str] = {}
    try:
        with opened(archive, archive.parent) as (tar, found):
            for member in found:
                members[member.name] = _described(tar, member)
    except (ArtifactError, OSError) as error:
        return Contents(members, str(error))
    return Contents(members)


def list_of(archive: Path) -> bytes:
    """
    Return the list of an archive's members as canonical JSON: an object of path and what is there.

    :raises ArtifactError: it cannot be read
    """
    members, problem = contents(archive)
    if problem is not None:
        raise ArtifactError(problem)
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def parsed(document: bytes) -> dict[str, str]:
    """
    Return the list that :func:`list_of` gave.

    :raises ArtifactCorruptError: it is something else
    """
    try:
        members = json.loads(document)
    except ValueError as error:
        raise ArtifactCorruptError("the list of members is not JSON") from error
    if not isinstance(members, dict):
        raise ArtifactCorruptError("the list of members is not a JSON object")
    return members


def differences(recorded: Mapping[str, str], now: Contents) -> str:
    """Say which members were changed, added and removed, with at most 20 names each."""
    both = recorded.keys() & now.members.keys()
    changed = [name for name in both if recorded[name] != now.members[name]]
    added = now.members.keys() - recorded.keys()
    missing = recorded.keys() - now.members.keys()
    parts = [
        f"{what}: {_names(names)}"
        for what, names in (
            ("changed", changed),
            ("added", added),
            ("not readable" if now.problem else "removed", missing),
        )
        if names
    ]
    if now.problem:
        parts.append(f"it cannot be read to its end: {now.problem}")
    if not parts:
        return "no member differs: its compression, order or padding was changed"
    return "; ".join(parts)


def _described(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.isdir():
        return "folder"
    if member.issym():
        return f"link:{member.linkname}"
    content = tar.extractfile(member)
    assert content is not None
    hasher = hashlib.sha256()
    with content:
        while chunk := content.read(1024 * 1024):
            hasher.update(chunk)
    return f"sha256:{hasher.hexdigest()}" + (" executable" if member.mode & 0o100 else "")


def _names(names: set[str] | list[str]) -> str:
    few = [shown(name) for name in sorted(names)[:_MOST_NAMES]]
    more = len(names) - len(few)
    return ", ".join(few) + (f" and {more} more" if more else "")
