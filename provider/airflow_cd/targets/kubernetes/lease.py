"""Who may change what runs: a Lease object that somebody else takes from a holder that dies."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.targets.kubernetes.cluster import NamespaceClient
from airflow_cd.targets.kubernetes.holding import (
    DURATION_SECONDS,
    FRESH_SECONDS,
    HOLDER,
    HeldLease,
    described,
    written_now,
)
from airflow_cd.targets.kubernetes.objects import Reference

# A holder that is only about to end its work is waited for.
_PATIENCE = 3.0
_POLLED_EVERY = 0.3


class Lease:
    """
    A Lease that its holder renews, by one request every three seconds.

    No clocks are compared: whoever waits takes the lease when it saw no change for as long as the lease says,
    by its own clock. Taking it and giving it back are a request each, and one more when somebody else had it
    in between.

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
        """Renew the lease: it is held for some seconds then. :raises DeployConflictError: it was lost"""
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
                    f"{self._cluster.where} is being deployed by somebody else: {described(seen)}"
                )
            else:
                time.sleep(_POLLED_EVERY)
        return hold

    def _try(self, terms: _Terms, seen: Mapping[str, Any] | None) -> HeldLease | None:
        """Take the lease as it was seen; ``None`` when somebody else was faster."""
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
        holder = {"actor": actor, "what": what, "since": time.time(), "pid": os.getpid()}
        self.annotations = {HOLDER: json.dumps({**holder, "machine": socket.gethostname()})}

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
    """A lease of somebody else, as it was seen again and again."""

    def __init__(self) -> None:
        self._lease: Mapping[str, Any] | None = None
        self._since = time.monotonic()
        self.is_alive = False

    def see(self, lease: Mapping[str, Any] | None) -> None:
        version = None if lease is None else lease["metadata"]["resourceVersion"]
        before = None if self._lease is None else self._lease["metadata"]["resourceVersion"]
        if version != before:
            # A change is a sign of life, whoever holds it by now.
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
