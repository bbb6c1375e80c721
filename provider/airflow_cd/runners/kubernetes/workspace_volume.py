"""Copies a workspace into the volume of a pod and back, by programs executed in a container."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from airflow_cd.exceptions import RunnerError
from airflow_cd.runners.kubernetes.job_manifest import FETCHED, FILLED, HOLD, RECEIVE
from airflow_cd.runners.workspace import MOUNT, BoundedFile

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from websocket import WebSocket

    from airflow_cd.runners.kubernetes.jobs import Pod

# Of the protocol v4.channel.k8s.io: the first byte of a message says what it belongs to.
_STDIN, _STDOUT, _STDERR, _RESULT = 0, 1, 2, 3
_PROTOCOL = "v4.channel.k8s.io"
_CHUNK_BYTES = 256 * 1024
# A connection over which nothing comes or goes for that long is dead.
_QUIET_SECONDS = 120
_TRIES, _AGAIN_SECONDS = 4, 2
_MOST_TOLD = 2000
_BROKEN = (ConnectionError, TimeoutError, ssl.SSLError)


def execute(
    client: ApiClient,
    namespace: str,
    pod: str,
    container: str,
    argv: Sequence[str],
    *,
    given: IO[bytes] | None = None,
    taken: IO[bytes] | None = None,
    done: Callable[[], bool] = lambda: False,
) -> None:
    """
    Run a program that may be run again, until it ended well; again when the connection broke meanwhile.

    :param given: what it reads, from the beginning of the file; it does not see the end of the file
    :param taken: gets what it writes
    :param done: returns whether the program did its work; asked when it seems that it did not. Where the
        container ends by what the program does, how the program ended may be lost with the container
    :raises RunnerError: it ended with an error
    :raises websocket.WebSocketException: the connection broke again and again; or was refused
    """
    from websocket import WebSocketConnectionClosedException

    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
    for left in reversed(range(_TRIES)):
        try:
            _once(client, path, container, argv, given, taken)
            return
        except Exception as error:
            with suppress(Exception):  # who cannot be asked either may be there at the next try
                if done():
                    return
            if not left and isinstance(error, _BROKEN):
                raise WebSocketConnectionClosedException(str(error)) from error
            if not left or not _may_pass(error):
                raise
        time.sleep(_AGAIN_SECONDS)


def _may_pass(error: Exception) -> bool:
    from websocket import WebSocketBadStatusException, WebSocketException

    if isinstance(error, WebSocketBadStatusException):
        return error.status_code >= 500 or error.status_code == 429
    return isinstance(error, (WebSocketException, *_BROKEN))


def _once(
    client: ApiClient,
    path: str,
    container: str,
    argv: Sequence[str],
    given: IO[bytes] | None,
    taken: IO[bytes] | None,
) -> None:
    socket = _connect(client, path, container, argv, given is not None)
    try:
        if given is not None:
            _give(socket, given)
        told, result = _take(socket, taken)
    finally:
        socket.shutdown()  # type: ignore[no-untyped-call, unused-ignore]
    if result.get("status") != "Success":
        why = told.decode(errors="replace").strip() or result.get("message") or "no reason given"
        raise RunnerError(f"container {container} of the pod at {path}: {why}")


def _connect(client: ApiClient, path: str, container: str, argv: Sequence[str], reads: bool) -> WebSocket:
    # Not by way of `kubernetes.stream`: it decodes, waits on the socket while TLS has the rest already, and
    # replaces a method of the client while others use it.
    from kubernetes.stream.ws_client import create_websocket, get_websocket_url

    headers: dict[str, str] = {"sec-websocket-protocol": _PROTOCOL}
    query: list[tuple[str, Any]] = [("container", container), ("stdout", "true"), ("stderr", "true")]
    query += [("stdin", "true")] if reads else []
    client.update_params_for_auth(headers, query, ["BearerToken"])
    url = get_websocket_url(client.configuration.host + path, [*query, ("command", list(argv))])
    socket: WebSocket = create_websocket(client.configuration, url, headers)
    socket.settimeout(_QUIET_SECONDS)
    return socket


def _give(socket: WebSocket, file: IO[bytes]) -> None:
    from websocket import WebSocketConnectionClosedException

    file.seek(0)
    try:
        while chunk := file.read(_CHUNK_BYTES):
            socket.send_binary(bytes([_STDIN]) + chunk)
    except (WebSocketConnectionClosedException, *_BROKEN):
        # It ended early; why is what it said, if that can still be read.
        return


def _take(socket: WebSocket, file: IO[bytes] | None) -> tuple[bytes, dict[str, Any]]:
    """Return the end of what it said of errors, and how it ended."""
    from websocket import WebSocketConnectionClosedException

    if file is not None:
        file.seek(0)
        file.truncate()
    taken = BoundedFile(file) if file is not None else None
    told = b""
    for channel, data in _messages(socket):
        if channel == _STDOUT and taken is not None:
            taken.write(data)
        elif channel == _STDERR:
            told = (told + data)[-_MOST_TOLD:]
        elif channel == _RESULT:
            return told, json.loads(data)
    raise WebSocketConnectionClosedException("the connection ended before the program did")


def _messages(socket: WebSocket) -> Iterator[tuple[int, bytes]]:
    from websocket import ABNF

    while True:
        kind, message = socket.recv_data(control_frame=False)
        if kind == ABNF.OPCODE_CLOSE:
            return
        if message:
            yield message[0], message[1:]


# In every tar that fills a volume, after all the rest: with it, nothing is missing.
LAST = ".last"
# May be run again: what an earlier try left is removed. How long the tar is is said, since a program that
# reads does not see the end of the stream.
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
