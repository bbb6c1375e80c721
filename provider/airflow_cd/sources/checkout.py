"""Writes the files of a git tree: their very bytes, whatever filters the repository declares."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from airflow_cd.exceptions import SourceError, UnsafeTreeError
from airflow_cd.processes.disk import write_problem
from airflow_cd.sources.git_commands import BrokenMirrorError, GitOutputError, git, git_argv, git_env

_TIME = 315532800  # 1980-01-01: builds that look at file times see the same ones everywhere
_CHUNK = 1 << 20
_LINK = "120000"
_EXECUTABLE = "100755"
# More than any source needs; without an end, what walks through the folders later would run out of stack.
_MOST_FOLDERS = 200
_LONGEST_LINK = 4095  # bytes, what Linux takes
_LONGEST_ENTRY = 256  # bytes of a listing that a file takes on average, at most


class TreeLimits(NamedTuple):
    """
    How much a tree may hold. A few hundred bytes of git objects can stand for a million files.

    :param files: at most; ``[cd] source_max_files``
    :param size: bytes of all files at most; ``[cd] source_max_bytes``
    """

    files: int = 200_000
    size: int = 2 * 1024**3


class _Entry(NamedTuple):
    mode: str
    sha: str
    name: str
    size: int


def write_tree(mirror: Path, tree: str, into: Path, limits: TreeLimits | None = None) -> None:
    """
    Write the tree's files into the empty folder ``into``. When that fails, it is left empty.

    :raises UnsafeTreeError: the tree has a submodule, a link that leaves it, a name no folder may hold, or
        more than the limits
    :raises SourceError: the files cannot be written
    :raises BrokenMirrorError: the mirror lacks a file of the tree, or holds other bytes
    """
    if any(into.iterdir()):
        raise SourceError(f"{into} is not empty; check out into a new folder")
    try:
        entries = _entries(mirror, tree, limits or TreeLimits())
        with _Blobs(mirror).opened() as blobs:
            # Links come last: no file can be written through one.
            for entry in sorted(entries, key=lambda entry: entry.mode == _LINK):
                _write(blobs, entry, into)
        _check_links(into, [entry.name for entry in entries if entry.mode == _LINK])
        _normalize(into)
    except BaseException as error:
        _empty(into)
        if isinstance(error, OSError):
            raise SourceError(
                f"the files of tree {tree} cannot be written: {write_problem(error, into)}"
            ) from error
        raise


def _entries(mirror: Path, tree: str, limits: TreeLimits) -> list[_Entry]:
    too_many = UnsafeTreeError(
        f"tree {tree} holds more than {limits.files} files; remove some, narrow `path:` of the source, or "
        "raise [cd] source_max_files"
    )
    try:
        listing = git(
            *("ls-tree", "-r", "-l", "-z", "--full-tree", tree),
            folder=mirror,
            longest=limits.files * _LONGEST_ENTRY,
        )
    except GitOutputError as error:
        raise too_many from error
    except SourceError as error:
        raise BrokenMirrorError(f"the mirror {mirror} lacks tree {tree}: {error}") from error
    if listing.count(b"\0") > limits.files:
        raise too_many
    entries = [_entry(line) for line in listing.split(b"\0") if line]
    if (size := sum(entry.size for entry in entries)) > limits.size:
        raise UnsafeTreeError(
            f"the files of tree {tree} have {size >> 20} MiB, where {limits.size >> 20} MiB are the most; "
            "remove some, narrow `path:` of the source, or raise [cd] source_max_bytes"
        )
    return entries


def _entry(line: bytes) -> _Entry:
    head, _, raw = line.partition(b"\t")
    mode, kind, sha, size = head.decode().split()
    name = os.fsdecode(raw)
    if kind != "blob":
        raise UnsafeTreeError(f"{name!r} is a submodule, which is not supported; vendor its files instead")
    # Such names are refused by git's own tools, but anybody can write a tree by hand.
    parts = name.lower().split("/")
    if {"", ".", "..", ".git"} & set(parts):
        raise UnsafeTreeError(f"the tree holds the name {name!r}, which could reach outside of it; remove it")
    if len(parts) > _MOST_FOLDERS:
        raise UnsafeTreeError(
            f"{name[:80]!r}... lies in more than {_MOST_FOLDERS} folders; nest it less deeply"
        )
    # A file that the mirror lacks has no size; it is noticed when it is read.
    return _Entry(mode, sha, name, int(size) if size.isdigit() else 0)


def _write(blobs: _Blobs, entry: _Entry, into: Path) -> None:
    path = into / entry.name
    if entry.mode == _LINK:
        target = os.fsdecode(b"".join(blobs.read(entry.sha, _LONGEST_LINK)))
        if not target or "\0" in target:
            raise UnsafeTreeError(f"the link {entry.name!r} has a target no link can have; remove it")
        if any(parent.is_symlink() for parent in path.parents):
            raise UnsafeTreeError(f"{entry.name!r} lies below a link; remove one of them")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.writelines(blobs.read(entry.sha))
    path.chmod(0o755 if entry.mode == _EXECUTABLE else 0o644)


def _check_links(into: Path, names: list[str]) -> None:
    """Follow the links as they are on disk: one may lead through others."""
    root = into.resolve()
    for name in names:
        target = os.readlink(into / name)
        if os.path.isabs(target) or not Path(os.path.realpath(into / name)).is_relative_to(root):
            raise UnsafeTreeError(f"the link {name!r} points outside the source, to {target!r}; remove it")


def _normalize(folder: Path) -> None:
    """Give everything the same times and modes on every machine."""
    for path, folders, files in os.walk(folder, topdown=False):
        for name in [*folders, *files]:
            entry = os.path.join(path, name)
            if name in folders and not os.path.islink(entry):
                os.chmod(entry, 0o755)
            os.utime(entry, (_TIME, _TIME), follow_symlinks=False)
    os.utime(folder, (_TIME, _TIME))


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class _Blobs:
    """Reads blobs through one git process."""

    def __init__(self, mirror: Path) -> None:
        self._mirror = mirror
        self._stdin: IO[bytes]
        self._stdout: IO[bytes]

    @contextmanager
    def opened(self) -> Iterator[_Blobs]:
        with subprocess.Popen(
            git_argv("cat-file", "--batch"),
            cwd="/",
            env=git_env({"GIT_DIR": str(self._mirror)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            self._stdin, self._stdout = process.stdin, process.stdout
            try:
                yield self
            finally:
                process.kill()

    def read(self, sha: str, longest: int | None = None) -> Iterator[bytes]:
        """Yield the blob's bytes in pieces, and make sure in the end that they are those of its hash."""
        left = self._request(sha)
        if longest is not None and left > longest:
            raise UnsafeTreeError(f"blob {sha} has {left} bytes where {longest} are the most; remove it")
        digest = hashlib.sha1(b"blob %d\0" % left, usedforsecurity=False)
        while left:
            piece = self._stdout.read(min(left, _CHUNK))
            if not piece:
                raise self._broken(sha)
            digest.update(piece)
            left -= len(piece)
            yield piece
        self._stdout.read(1)
        if digest.hexdigest() != sha:
            raise self._broken(sha)

    def _request(self, sha: str) -> int:
        try:
            self._stdin.write(f"{sha}\n".encode())
            self._stdin.flush()
        except BrokenPipeError as error:
            raise self._broken(sha) from error
        header = self._stdout.readline().split()
        if len(header) != 3 or header[1] != b"blob":
            raise self._broken(sha)
        return int(header[2])

    def _broken(self, sha: str) -> BrokenMirrorError:
        return BrokenMirrorError(f"the mirror {self._mirror} lacks blob {sha}, or holds other bytes")
