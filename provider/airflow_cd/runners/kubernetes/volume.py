"""The workspace in the volume of a pod: how it gets there, and how it is fetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from airflow_cd.runners.kubernetes.execution import execute
from airflow_cd.runners.kubernetes.manifest import FETCHED, FILLED, HOLD, RECEIVE
from airflow_cd.runners.workspace import MOUNT

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from airflow_cd.runners.kubernetes.pod import Pod

# In every tar that fills a volume, after all the rest: with it, nothing is missing.
LAST = ".last"
# May be run again: what an earlier try left is removed. How long the tar is is said, since a program that
# reads is not told where the stream ends.
_FILL = f"""
cd {MOUNT} && rm -rf workspace home tmp {LAST} && mkdir -m 700 tmp || exit 1
head -c "$1" | tar -xpf - && mv {LAST} {FILLED}
"""
# A tar that is not root's can neither read what the command made unreadable, nor put anything into folders
# that are not to be written to, such as those of Go's modules.
_FETCH = f"""
cd {MOUNT} && : > {LAST} || exit 1
find "$@" -type d ! -perm -0500 -exec chmod u+rx {{}} \\;
find "$@" -type d ! -perm -0200 -exec chmod u+w {{}} +
find "$@" -type f ! -perm -0400 -exec chmod u+r {{}} +
exec tar -cf - "$@"
"""
_LET_GO = f": > {FETCHED}"
# The processes of one container see the same mounts, and those of another one other mounts; process 1 is the
# pod's own.
_END_COMMAND = """
own=$(readlink /proc/self/ns/mnt)
for again in 1 2 3 4 5 6 7 8 9 10; do
    ended=
    for process in /proc/[0-9]*; do
        number=${process#/proc/}
        [ "$number" = 1 ] || [ "$(readlink "$process/ns/mnt")" = "$own" ] || { kill -9 "$number" && ended=1; }
    done 2> /dev/null
    [ "$ended" ] || exit 0
done
"""


class WorkspaceVolume:
    """
    :param client: used for nothing else meanwhile
    :param pod: the pod that has it
    :param look: returns that pod as it is now
    """

    def __init__(self, client: ApiClient, namespace: str, pod: Pod, look: Callable[[], Pod | None]) -> None:
        self._client, self._namespace, self._pod, self._look = client, namespace, pod.name, look

    def fill(self, file: IO[bytes]) -> None:
        """
        Put the content of a tar into it, and let the command begin.

        :raises RunnerError: it could not be unpacked, as when there is no room for it
        """
        script = ["sh", "-c", _FILL, "fill", str(file.seek(0, 2))]
        execute(self._client, self._namespace, self._pod, RECEIVE, script, given=file, done=self._is_filled)

    def fetch(self, file: IO[bytes], *names: str) -> None:
        """
        Write a tar of these of its files and folders.

        :raises RunnerError: something could not be read
        """
        script = ["sh", "-c", _FETCH, "fetch", *names]
        execute(self._client, self._namespace, self._pod, HOLD, script, taken=file)
        file.seek(0)

    def let_go(self) -> None:
        """Let the pod end: what it holds is not needed any more."""
        execute(self._client, self._namespace, self._pod, HOLD, ["sh", "-c", _LET_GO], done=self._has_let_go)

    def end_command(self) -> None:
        """End the command and all that it started; the pod goes on holding."""
        execute(self._client, self._namespace, self._pod, HOLD, ["sh", "-c", _END_COMMAND])

    def _is_filled(self) -> bool:
        pod = self._look()
        return pod is not None and pod.filled

    def _has_let_go(self) -> bool:
        pod = self._look()
        return pod is None or not pod.holds
