"""A Lease object as a lock: acquired, renewed while it is held, and taken over when its holder dies."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from airflow_cd.exceptions import DeployConflictError, LeaseLostError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import PREFIX, Reference
from airflow_cd.processes import lease_holder

log = logging.getLogger(__name__)

# Others wait that long for a sign of life. An answer that took longer to come than the second is too old.
DURATION_SECONDS = 10.0
FRESH_SECONDS = 8.0
_RENEWED_EVERY = 3.0
_TRIES = 2
# Annotation with what people want to know of the holder.
HOLDER = f"{PREFIX}holder"


class HeldLease:
    """
    A lease that was taken.

    :param lease: as it was then
    """

    def __init__(self, cluster: NamespaceClient, reference: Reference, lease: dict[str, Any]) -> None:
        self._cluster, self._reference, self._lease = cluster, reference, lease
        self.fence: int = lease["spec"]["leaseTransitions"]
        self._identity = lease["spec"]["holderIdentity"]
        self.token = f"{self.fence}-{self._identity.rpartition('/')[2][:12]}"
        self._lost: str | None = None
        self._over = threading.Event()
        # One at a time: each renewal expects what the one before wrote.
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"lease {reference.name}", daemon=True)

    def begin(self) -> None:
        """Begin to renew it."""
        self._thread.start()

    def end(self) -> dict[str, Any] | None:
        """Give the lease back, and return what is left of it."""
        self._over.set()
        with self._turn:
            if self._lost is None:
                # Else it runs out by itself.
                with suppress(TargetError):
                    return self._write({"holderIdentity": None})
        return None

    def renew(self) -> None:
        """
        Renew it once.

        :raises LeaseLostError: it is lost
        """
        with self._turn:
            if self._lost is None:
                self._renew()
            if self._lost is not None:
                raise LeaseLostError(
                    f"the lease on {self._cluster.where} was lost ({self._lost}); nothing more was changed"
                )

    def _keep(self) -> None:
        while not self._over.wait(_RENEWED_EVERY) and self._lost is None:
            with self._turn:
                if self._over.is_set():
                    return
                try:
                    self._renew()
                except TargetError as error:
                    log.warning("The lease on %s could not be renewed: %s", self._cluster.where, error)

    def _renew(self) -> None:
        """Renew it, however long ago that was done: what nobody took meanwhile was held all the time."""
        for _ in range(_TRIES):
            asked = time.monotonic()
            renewed = self._write({"renewTime": written_now()})
            if renewed is None:
                self._lost = self._lost or "it was removed"
                return
            if time.monotonic() - asked < FRESH_SECONDS:
                return
        self._lost = "the cluster takes too long to answer"

    def _write(self, spec: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the lease as it was changed, ``None`` when it is lost."""
        try:
            written = self._merge(spec)
        except DeployConflictError:
            # That may have been an answer of ours that was lost, or a person's label.
            found = self._cluster.get(self._reference.api_version, self._reference.kind, self._reference.name)
            if found is not None and found["spec"].get("holderIdentity") != self._identity:
                self._lost = f"another process took it: {described(found)}"
                return None
            self._lease = found or self._lease
            written = self._merge(spec)
        self._lease = written or self._lease
        return written

    def _merge(self, spec: Mapping[str, Any]) -> dict[str, Any] | None:
        version = self._lease["metadata"]["resourceVersion"]
        return self._cluster.merge(self._reference, {"metadata": {"resourceVersion": version}, "spec": spec})


def written_now() -> str:
    """Return the time as Lease objects have it. Nothing is decided by it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def described(lease: Mapping[str, Any] | None) -> str:
    """Return who holds a lease, for people."""
    annotations = ((lease or {}).get("metadata") or {}).get("annotations") or {}
    return lease_holder.described(annotations.get(HOLDER))


# A holder that is only about to end its work is waited for.
_PATIENCE = 3.0
_POLLED_EVERY = 0.3


class Lease:
    """
    A Lease that its holder renews, by one request every three seconds.

    No clocks are compared: a waiting process takes the lease after it saw no change for the duration
    of the lease, by its own clock. Acquiring and releasing take a request each, and one more when another
    process had the lease in between.

    :param name: of the Lease object; it stays when nobody holds it, since it counts its holders
    """

    def __init__(self, cluster: NamespaceClient, name: str) -> None:
        self._cluster = cluster
        self._reference = Reference(api_version="coordination.k8s.io/v1", kind="Lease", name=name)
        self._seen: dict[str, Any] | None = None
        self._hold: HeldLease | None = None

    @property
    def fence(self) -> int:
        """Return the number of this holder, larger than that of all before."""
        assert self._hold is not None, "asked by its holder"
        return self._hold.fence

    @property
    def token(self) -> str:
        """Return what tells this holder from all others, even when the Lease object was deleted between."""
        assert self._hold is not None, "asked by its holder"
        return self._hold.token

    @contextmanager
    def held(self, actor: str, what: str) -> Iterator[None]:
        """
        Hold the lease. :raises DeployConflictError: another holds it, and is alive

        :param actor: who wants it
        :param what: what for
        """
        hold = self._take(_Terms(actor, what))
        self._hold = hold
        hold.begin()
        try:
            yield
        finally:
            self._hold = None
            self._seen = hold.end()

    def check(self) -> None:
        """
        Renew the lease: it is held for some seconds then.

        :raises LeaseLostError: it is not held any more
        """
        assert self._hold is not None, "checked by its holder"
        self._hold.renew()

    def _take(self, terms: _Terms) -> HeldLease:
        hold = self._try(terms, self._seen) if self._seen is not None else None
        began, watched = time.monotonic(), _Watched()
        while hold is None:
            seen = self._cluster.get(**self._named)
            watched.see(seen)
            if watched.is_free or terms.are_of(seen):
                hold = self._try(terms, seen)
            elif time.monotonic() - began > _PATIENCE and watched.is_alive:
                raise DeployConflictError(
                    f"{self._cluster.where} is being deployed by another run: {described(seen)}"
                )
            else:
                time.sleep(_POLLED_EVERY)
        return hold

    def _try(self, terms: _Terms, seen: Mapping[str, Any] | None) -> HeldLease | None:
        """Take the lease as it was seen; ``None`` when another process was faster."""
        asked = time.monotonic()
        try:
            lease = self._written(terms, seen)
        except DeployConflictError:  # or this did it, and the answer was lost: it is found to be ours then
            return None
        if lease is None or time.monotonic() - asked > FRESH_SECONDS:
            return None
        return HeldLease(self._cluster, self._reference, lease)

    def _written(self, terms: _Terms, seen: Mapping[str, Any] | None) -> dict[str, Any] | None:
        metadata: dict[str, Any] = {"name": self._reference.name, "annotations": terms.annotations}
        if seen is None:
            kind = {"apiVersion": self._reference.api_version, "kind": self._reference.kind}
            return self._cluster.create({**kind, "metadata": metadata, "spec": terms.spec(1)})
        count = int(seen["spec"].get("leaseTransitions") or 0) + 1
        metadata["resourceVersion"] = seen["metadata"]["resourceVersion"]
        return self._cluster.merge(self._reference, {"metadata": metadata, "spec": terms.spec(count)})

    @property
    def _named(self) -> dict[str, str]:
        return {
            "api_version": self._reference.api_version,
            "kind": self._reference.kind,
            "name": self._reference.name,
        }


class _Terms:
    """What a holder writes into the lease. The identity is never used twice."""

    def __init__(self, actor: str, what: str) -> None:
        self._identity = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        holder = lease_holder.LeaseHolder.of_this_process(actor, what)
        self.annotations = {HOLDER: holder.to_json()}

    def are_of(self, lease: Mapping[str, Any] | None) -> bool:
        return lease is not None and lease["spec"].get("holderIdentity") == self._identity

    def spec(self, count: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION_SECONDS),
            "acquireTime": written_now(),
            "renewTime": written_now(),
            "leaseTransitions": count,
        }


class _Watched:
    """A lease of another process, as it was seen again and again."""

    def __init__(self) -> None:
        self._lease: Mapping[str, Any] | None = None
        self._since = time.monotonic()
        self.is_alive = False

    def see(self, lease: Mapping[str, Any] | None) -> None:
        version = None if lease is None else lease["metadata"]["resourceVersion"]
        before = None if self._lease is None else self._lease["metadata"]["resourceVersion"]
        if version != before:
            # A change is a sign of life of any holder.
            self.is_alive = self._lease is not None
            self._since = time.monotonic()
        self._lease = lease

    @property
    def is_free(self) -> bool:
        spec = (self._lease or {}).get("spec") or {}
        if not spec.get("holderIdentity"):
            return True
        lasts = float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)
        return time.monotonic() - self._since > lasts
