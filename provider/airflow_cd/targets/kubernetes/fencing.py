"""
Writes of the holder of a lease, which change nothing any more once another process holds it.

A holder can be stopped between the moment at which it made sure that it holds the lease and its next write:
its machine hangs, or was moved. When it goes on, another holder may have finished. So each write says what it
saw: the API refuses it when the object is another version by now (resourceVersion,
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions). That the version changes with
each holder is what the label :data:`FENCE` is for: an application that changes nothing leaves it as
it was. Fencing tokens are from Kleppmann, "How to do distributed locking" (2016).

What did not exist has no version, and neither has, in this sense, another owner's object, which gets no
label. After such writes the lease is looked at again, and what was written too late is undone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cd.exceptions import DeployConflictError, LeaseLostError, TargetError
from airflow_cd.kubernetes.objects import FENCE, Reference, reference_of

if TYPE_CHECKING:
    from airflow_cd.kubernetes.client import NamespaceClient
    from airflow_cd.kubernetes.lease import Lease

log = logging.getLogger(__name__)

# How often a status may change just then.
_TRIES = 10


class LateWriteError(LeaseLostError):
    """Raised when an object was changed after the lease was lost, and must be brought back."""


class _Written(NamedTuple):
    """
    An object after it was applied.

    :param blind: whether there was none before, so that no version could be expected
    :param is_new: whether it was made by that
    """

    now: dict[str, Any]
    blind: bool
    is_new: bool


class FencedWriter:
    """
    Applies and deletes objects for the holder of a lease.

    An object costs a request to read it and one to write it; the lease is renewed once per call, and once
    more where something was made.
    """

    def __init__(self, cluster: NamespaceClient, lease: Lease) -> None:
        self._cluster, self._lease = cluster, lease

    def apply(self, objects: Sequence[Mapping[str, Any]], *, take: bool = False) -> list[dict[str, Any]]:
        """
        Apply objects, one after the other, and return what they are now.

        :param take: fields that another manager owns are taken over
        :raises LeaseLostError: the lease was lost; nothing was changed since, or it was undone
        :raises LateWriteError: the lease was lost, and what another holder made was changed
        """
        seen = [self._seen(reference_of(obj)) for obj in objects]
        self.check()
        written: list[_Written] = []
        try:
            for obj, live in zip(objects, seen, strict=True):
                written.append(self._apply(obj, live, take))
        finally:  # also of what was made before a later one failed
            if blind := [one for one in written if one.blind]:
                self._confirm(blind)
        return [one.now for one in written]

    def apply_seen(
        self, by: NamespaceClient, see: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]] | None]
    ) -> None:
        """
        Apply what is computed from what the cluster has, without leaving a mark.

        :param by: as which manager
        :param see: returns an object as it is and as it should be; ``None`` when nothing is to be done
        :raises LeaseLostError: the lease was lost
        """
        for _ in range(_TRIES):
            if (found := see()) is None:
                return
            live, wanted = found
            self.check()
            with suppress(DeployConflictError):
                by.apply_seen(wanted, live, take=True)
                return
        raise self._restless(reference_of(wanted))

    def delete(self, reference: Reference, labels: Mapping[str, str]) -> bool:
        """
        Delete an object, and return whether there was one to delete.

        :param labels: that it must have, or it is left alone; so it is when it has another uid
        :raises LeaseLostError: the lease was lost
        """
        for _ in range(_TRIES):
            live = self._cluster.deletable(reference, labels)
            if live is None:
                return False
            self.check()
            with suppress(DeployConflictError):
                return self._cluster.delete_seen(live)
            # What has its name by the next look is not what was to be deleted.
            reference = reference.model_copy(update={"uid": live["metadata"]["uid"]})
        raise self._restless(reference)

    def check(self) -> None:
        """:raises LeaseLostError: the lease is not held any more"""
        self._lease.check()

    def confirm(self, what: str) -> None:
        """
        Make sure that the lease was still held when something without a mark of ours was changed.

        :raises LateWriteError: it was not
        """
        try:
            self.check()
        except LeaseLostError as error:
            raise _late(error, what) from error

    def _apply(self, obj: Mapping[str, Any], live: Mapping[str, Any] | None, take: bool) -> _Written:
        stamped, reference = self._stamped(obj), reference_of(obj)
        for _ in range(_TRIES):
            with suppress(DeployConflictError):
                now, is_new = self._cluster.apply_seen(stamped, live, take=take)
                return _Written(now, live is None, is_new)
            live = self._seen(reference)
            self.check()
        raise self._restless(reference)

    def _confirm(self, blind: Sequence[_Written]) -> None:
        """Take back what was made without a lease."""
        try:
            self.check()
        except LeaseLostError as error:
            left = [one.now for one in blind if not self._is_taken_back(one)]
            if not left:
                raise
            raise _late(error, ", ".join(reference_of(one).described for one in left)) from error

    def _is_taken_back(self, written: _Written) -> bool:
        reference = reference_of(written.now)
        live = self._seen(reference)
        if live is None or live["metadata"]["uid"] != written.now["metadata"]["uid"]:
            return True
        if (live["metadata"].get("labels") or {}).get(FENCE) != self._lease.token:
            return True  # another holder applied it meanwhile, as it should be
        if not written.is_new:
            return False
        with suppress(DeployConflictError):
            self._cluster.delete_seen(live)
            log.warning("%s was made after the lease was lost, and deleted again", reference.described)
            return True
        return False

    def _seen(self, reference: Reference) -> dict[str, Any] | None:
        return self._cluster.get(reference.api_version, reference.kind, reference.name)

    def _stamped(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        metadata = obj["metadata"]
        labels = {**(metadata.get("labels") or {}), FENCE: self._lease.token}
        return {**obj, "metadata": {**metadata, "labels": labels}}

    def _restless(self, reference: Reference) -> TargetError:
        return TargetError(f"{self._cluster.where}: {reference.described} changes too often to be written")


def _late(error: LeaseLostError, what: str) -> LateWriteError:
    return LateWriteError(f"{error}; but {what} was written after that, and is brought back")
