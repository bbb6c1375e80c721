"""
Ends what a command or an instance leaves behind, also in a session of its own.

A process inherits the environment it was started with, however it left its group, session and parent. What
has the cookie of a command in it was started by that command. Jenkins ends the processes of a build in this
way (https://wiki.jenkins.io/display/JENKINS/ProcessTreeKiller). What is meant to stay, such as the daemon of
a build tool, is started without the variable: ``env -u CD_PROCESS_COOKIE gradle build``.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

COOKIE = "CD_PROCESS_COOKIE"
# While one is ended, it may start the next; after so many rounds it is not ours to win.
_ROUNDS = 20


def new_cookie() -> str:
    """Return a cookie that no other command has."""
    return uuid.uuid4().hex


def end_marked(cookie: str) -> int:
    """End every process of this user that has the cookie, and return how many there were."""
    import psutil

    ended = 0
    for _ in range(_ROUNDS):
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # it ended just now, or is another user's
                if process.environ().get(COOKIE) == cookie and process.status() != psutil.STATUS_ZOMBIE:
                    process.kill()
                    found.append(process)
        if not found:
            break
        ended += len(found)
        psutil.wait_procs(found, timeout=1)
    return ended
