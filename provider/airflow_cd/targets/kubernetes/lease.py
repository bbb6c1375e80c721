"""Who may change what runs: a Lease object that somebody else takes from a holder that dies."""

from __future__ import annotations

import json
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

from airflow_cd.exceptions import DeployConflictError, TargetError
from airflow_cd.targets.kubernetes.cluster import Cluster
from airflow_cd.targets.kubernetes.objects import PREFIX, Reference

log = logging.getLogger(__name__)

# Others wait that long for a sign of life; the holder stops believing in its lease before.
_DURATION = 10.0
_BELIEVED = 8.0
_RENEWED_EVERY = 3.0
# A holder that is only about to end its work is waited for.
_PATIENCE = 3.0
_POLLED_EVERY = 0.3
_HOLDER = f"{PREFIX}holder"


class Lease:
    """
    A Lease that its holder renews, by one request every three seconds.

    No clocks are compared: whoever waits takes the lease when it saw no change for as long as the lease says,
    by its own clock. Taking it and giving it back are a request each, and one more when somebody else had it
    in between.

    :param name: of the Lease object; it stays when nobody holds it, since it counts its holders
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._reference = Reference(api_version="coordination.k8s.io/v1", kind="Lease", name=name)
        self._seen: dict[str, Any] | None = None
        self._hold: _Hold | None = None

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

    def _take(self, terms: _Terms) -> _Hold:
        began = time.monotonic()
        watched = _Watched()
        seen = self._seen
        while True:
            if seen is None:
                seen = self._cluster.get(**self._named)
            watched.see(seen)
            if watched.is_free:
                taken = self._try(terms, seen)
                if taken is not None:
                    return _Hold(self._cluster, self._reference, taken)
            elif time.monotonic() - began > _PATIENCE and watched.is_alive:
                raise DeployConflictError(
                    f"{self._cluster.where} is being deployed by somebody else: {_described(seen)}"
                )
            else:
                time.sleep(_POLLED_EVERY)
            seen = None

    def _try(self, terms: _Terms, seen: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return the lease as it was taken, ``None`` when somebody else was faster."""
        with suppress(DeployConflictError):
            if seen is None:
                return self._cluster.create(
                    {
                        "apiVersion": self._reference.api_version,
                        "kind": self._reference.kind,
                        "metadata": {"name": self._reference.name, "annotations": terms.annotations},
                        "spec": terms.spec(1),
                    }
                )
            count = int(seen["spec"].get("leaseTransitions") or 0) + 1
            metadata = {
                "resourceVersion": seen["metadata"]["resourceVersion"],
                "annotations": terms.annotations,
            }
            return self._cluster.merge(self._reference, {"metadata": metadata, "spec": terms.spec(count)})
        return None

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
        self.annotations = {_HOLDER: json.dumps({**holder, "machine": socket.gethostname()})}

    def spec(self, count: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(_DURATION),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": count,
        }


class _Watched:
    """A lease of somebody else, as it was seen again and again."""

    def __init__(self) -> None:
        self._lease: Mapping[str, Any] | None = None
        self._since = time.monotonic()
        self._holder: str | None = None
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
        lasts = float(spec.get("leaseDurationSeconds") or _DURATION)
        return time.monotonic() - self._since > lasts


class _Hold:
    """A lease while it is held."""

    def __init__(self, cluster: Cluster, reference: Reference, lease: dict[str, Any]) -> None:
        self._cluster, self._reference, self._lease = cluster, reference, lease
        self.fence: int = lease["spec"]["leaseTransitions"]
        self._identity = lease["spec"]["holderIdentity"]
        self._sure_since = time.monotonic()
        self._lost: str | None = None
        self._over = threading.Event()
        # One at a time: each renewal expects what the one before wrote.
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"lease {reference.name}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> dict[str, Any] | None:
        """Give the lease back, and return what is left of it."""
        self._over.set()
        with self._turn:
            if self._lost is None:
                # Else it runs out by itself.
                with suppress(TargetError):
                    return self._merge({"holderIdentity": None})
        return None

    def renew(self) -> None:
        """Renew it once. :raises DeployConflictError: it is lost"""
        with self._turn:
            if self._lost is None:
                self._renew()
            if self._lost is not None:
                raise DeployConflictError(
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
        asked = time.monotonic()
        if asked - self._sure_since > _BELIEVED:
            self._lost = f"it could not be renewed for {asked - self._sure_since:.0f} s"
            return
        try:
            renewed = self._merge({"renewTime": _now()})
        except DeployConflictError:
            renewed = self._again()
        if renewed is None:
            self._lost = self._lost or "it was removed"
        elif time.monotonic() - asked > _BELIEVED:
            self._lost = "the cluster took too long to answer"
        else:
            self._lease, self._sure_since = renewed, asked

    def _again(self) -> dict[str, Any] | None:
        """Renew it, although somebody changed it: that may have been an answer of ours that was lost."""
        found = self._cluster.get(self._reference.api_version, self._reference.kind, self._reference.name)
        if found is None:
            return None
        if found["spec"].get("holderIdentity") != self._identity:
            self._lost = f"somebody else took it: {_described(found)}"
            return None
        self._lease = found
        return self._merge({"renewTime": _now()})

    def _merge(self, spec: Mapping[str, Any]) -> dict[str, Any] | None:
        version = self._lease["metadata"]["resourceVersion"]
        return self._cluster.merge(self._reference, {"metadata": {"resourceVersion": version}, "spec": spec})


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _described(lease: Mapping[str, Any] | None) -> str:
    annotations = ((lease or {}).get("metadata") or {}).get("annotations") or {}
    try:
        holder = json.loads(annotations[_HOLDER])
        seconds = max(time.time() - holder["since"], 0)
        return (
            f"{holder['actor']} brings {holder['what']}, for {seconds:.0f} s now "
            f"(process {holder['pid']} on {holder['machine']})"
        )
    except (KeyError, TypeError, ValueError):
        return "unknown"
