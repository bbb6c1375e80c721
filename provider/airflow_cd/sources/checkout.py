"""Writes the files of a git tree: their very bytes, whatever filters the repository declares."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from airflow_cd.exceptions import SourceError
from airflow_cd.sources.git_commands import git, git_argv, git_env

_TIME = 315532800  # 1980-01-01: builds that look at file times see the same ones everywhere


def write_tree(mirror: Path, tree: str, into: Path) -> None:
    """
    Write the tree's files into the empty folder ``into``.

    :raises SourceError: the tree has a submodule, or a link that leaves it
    """
    reader = subprocess.Popen(
        git_argv("cat-file", "--batch"),
        cwd=mirror,
        env=git_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert reader.stdin is not None and reader.stdout is not None
    try:
        for mode, sha, name in _entries(mirror, tree):
            _write(mode, _blob(reader.stdin, reader.stdout, sha), name, into)
    finally:
        reader.stdin.close()
        reader.stdout.close()
        reader.wait()
    _set_times(into)


def _entries(mirror: Path, tree: str) -> Iterator[tuple[str, str, str]]:
    for line in git("ls-tree", "-r", "-z", "--full-tree", tree, cwd=mirror).split(b"\0"):
        if not line:
            continue
        head, _, raw = line.partition(b"\t")
        mode, kind, sha = head.decode().split()
        name = os.fsdecode(raw)
        if kind != "blob":
            raise SourceError(f"{name!r} is a submodule, which is not supported; vendor its files instead")
        yield mode, sha, name


def _blob(stdin: IO[bytes], stdout: IO[bytes], sha: str) -> bytes:
    stdin.write(f"{sha}\n".encode())
    stdin.flush()
    header = stdout.readline().split()
    if len(header) != 3:
        raise SourceError(f"the git mirror lacks object {sha}; remove its folder, it will be fetched again")
    content = stdout.read(int(header[2]))
    stdout.read(1)
    return content


def _write(mode: str, content: bytes, name: str, into: Path) -> None:
    path = into / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "120000":
        target = os.fsdecode(content)
        landing = os.path.normpath(os.path.join(os.path.dirname(name), target))
        if os.path.isabs(target) or landing == ".." or landing.startswith("../"):
            raise SourceError(f"the link {name!r} points outside the source, to {target!r}; remove it")
        os.symlink(target, path)
        return
    with path.open("xb") as file:
        file.write(content)
    os.chmod(path, 0o755 if mode == "100755" else 0o644)


def _set_times(folder: Path) -> None:
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            os.utime(os.path.join(path, name), (_TIME, _TIME), follow_symlinks=False)
        os.utime(path, (_TIME, _TIME))
