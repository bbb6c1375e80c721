"""Users of the operating system that build and test commands run as, each for one job at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from airflow_cd.exceptions import RunnerError

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class BuildUser:
    """
    One of them.

    :param name: of its entry in ``/etc/passwd``
    :param uid: the number of the user
    :param gid: the number of its group
    :param home: a folder that is its own alone: workspaces lie there
    """

    name: str
    uid: int
    gid: int
    home: Path

    def command(self, argv: Sequence[str]) -> list[str]:
        """
        Return what runs a command as this user: in no other group, without rights, and unable to gain any.

        Root changes the user itself, others by sudo(8): the rule it needs names the group of the build
        users, so that a worker becomes one of them and nobody else.
        """
        switch = ["setpriv", "--inh-caps=-all", "--no-new-privs"]
        if is_root():
            ids = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--bounding-set=-all"]
            return [*switch, *ids, "--", *argv]
        return ["sudo", "-n", "-u", self.name, "--", *switch, "--", *argv]


def is_root() -> bool:
    """Return whether this process can become any user."""
    return os.geteuid() == 0


def users_of(group: str) -> tuple[BuildUser, ...]:
    """
    Return the members of a group, in the order of ``/etc/group``.

    :raises RunnerError: it does not exist, has no members, or one of them must not run builds
    """
    import grp
    import pwd

    try:
        names = grp.getgrnam(group).gr_mem
        entries = [pwd.getpwnam(name) for name in names]
    except KeyError as error:
        raise _cannot(group, str(error).strip("'\"")) from None
    if not entries:
        raise _cannot(group, "the group has no members")
    for entry in entries:
        if entry.pw_uid in (0, os.geteuid()):
            raise _cannot(group, f"its member {entry.pw_name!r} is root or the worker's own user")
    return tuple(BuildUser(one.pw_name, one.pw_uid, one.pw_gid, Path(one.pw_dir)) for one in entries)


def _cannot(group: str, reason: str) -> RunnerError:
    remedy = (
        "make a group whose members run nothing but builds (see docs/security.md), or leave the option empty"
    )
    return RunnerError(f"[cd] build_group is {group!r}, but {reason}: {remedy}")


@contextmanager
def borrowed(users: Sequence[BuildUser], on_wait: Callable[[], None]) -> Iterator[BuildUser]:
    """
    Lend a user to this process alone, and wait while none is free.

    The kernel gives a user back when its borrower dies. Processes and files that it left are the next
    borrower's to end and to remove.

    :param on_wait: called once, before the waiting
    :raises RunnerError: the locks cannot be kept
    """
    from filelock import FileLock, Timeout

    folder = _lock_folder()
    waited = False
    while True:
        for user in users:
            lock = FileLock(folder / f"{user.uid}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield user
            finally:
                lock.release()
            return
        if not waited:
            waited = True
            on_wait()
        time.sleep(_POLL_SECONDS)


def _lock_folder() -> Path:
    """Return a folder of this machine (a container is one): its users are no other machine's."""
    folder = Path(gettempdir()) / f"airflow-cd-build-users-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022 or folder.is_symlink():
        raise RunnerError(
            f"the locks of build users cannot be kept in {folder}: another user can write there"
        )
    return folder
