"""What the pod of a command says about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_cd.exceptions import CommandError, RunnerError
from airflow_cd.runners.kubernetes.manifest import COMMAND, HOLD, RECEIVE

# How a command ends that somebody else ended: nothing is known about it then.
_INTERRUPTED = (137, 143, 255)
# How container runtimes say that a program could not be run: for good, and before they try it again.
_NOT_RUN = ("ContainerCannotRun", "StartError", "RunContainerError", "CreateContainerError")
_NO_PROGRAM = re.compile(
    r"executable file not found|no such file or directory|exec format error|not a directory|is a directory"
)
_NOT_ALLOWED = re.compile(r"permission denied")


class End(NamedTuple):
    """How a command ended. :param out_of_memory: it used more than it may"""

    code: int
    out_of_memory: bool = False


class Pod:
    """
    A pod of a command, as the cluster last told of it.

    :param content: as the API gives it
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self._status: Mapping[str, Any] = content.get("status") or {}

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.content["metadata"]["name"])

    @property
    def waits(self) -> bool:
        """Return whether it waits for the workspace."""
        return "running" in self._state(RECEIVE)

    @property
    def filled(self) -> bool:
        """Return whether it got the workspace."""
        return (self._state(RECEIVE).get("terminated") or {}).get("exitCode") == 0

    @property
    def holds(self) -> bool:
        """Return whether it got the workspace, and it still is there or will be."""
        return self.filled and not self.is_leaving and "terminated" not in self._state(HOLD)

    @property
    def usable(self) -> bool:
        """Return whether a command can be gone on with: nobody else ended it, and its workspace is there."""
        return self.holds and not ((end := self.end) and self._interrupted(end))

    @property
    def begun(self) -> bool:
        """Return whether the command runs, or ran."""
        return any(state in self._state(COMMAND) for state in ("running", "terminated"))

    @property
    def is_leaving(self) -> bool:
        """Return whether somebody ended it, or is about to."""
        disrupted = self._condition("DisruptionTarget").get("status") == "True"
        evicted = self._status.get("phase") == "Failed" and self._status.get("reason") is not None
        return bool(self.content["metadata"].get("deletionTimestamp")) or disrupted or evicted

    @property
    def end(self) -> End | None:
        """Return how the command ended; ``None`` when it has not."""
        ended = self._state(COMMAND).get("terminated")
        if ended is None:
            return None
        return End(int(ended["exitCode"]), ended.get("reason") == "OOMKilled")

    def need_program(self, argv: Sequence[str], image: str) -> None:
        """
        Make sure that the command could be started, as far as is known.

        :raises CommandError: the image has no such program (127), or may not run it (126)
        :raises RunnerError: it could not for another reason
        """
        state = self._state(COMMAND)
        said = state.get("terminated") or state.get("waiting") or {}
        if said.get("reason") not in _NOT_RUN:
            return
        why = " ".join(str(said.get("message") or "").split())
        reason = f"{argv[0]!r} cannot be run in {image}: {why}"
        if _NO_PROGRAM.search(why):
            raise CommandError(argv, 127, [reason])
        if _NOT_ALLOWED.search(why):
            raise CommandError(argv, 126, [reason])
        if "terminated" in state:
            raise RunnerError(reason)

    def need_own_end(self) -> None:
        """
        Make sure that the command was not ended from outside.

        :raises RunnerError: its pod was evicted or removed, or its node failed
        """
        end = self.end
        lost = self.is_leaving or (end is not None and end.code and not self.holds and self._interrupted(end))
        if not lost:
            return
        disrupted = self._condition("DisruptionTarget")
        why = [
            *(self._status.get("reason"), self._status.get("message")),
            *(disrupted.get("reason"), disrupted.get("message")),
        ]
        told = ": ".join(dict.fromkeys(str(part) for part in why if part)) or "it was deleted"
        raise RunnerError(f"the cluster ended pod {self.name} before its command was done: {told}")

    def _interrupted(self, end: End) -> bool:
        return end.code in _INTERRUPTED and not end.out_of_memory

    def _condition(self, kind: str) -> Mapping[str, Any]:
        conditions = self._status.get("conditions") or []
        return next((one for one in conditions if one.get("type") == kind), {})

    def _state(self, container: str) -> Mapping[str, Any]:
        kinds = ("initContainerStatuses", "containerStatuses")
        statuses = [one for kind in kinds for one in self._status.get(kind) or []]
        return next((one.get("state") or {} for one in statuses if one["name"] == container), {})
