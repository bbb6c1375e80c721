"""A Lease object while it is held: it is renewed, until it is given back or found to be lost."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from airflow_cd.exceptions import DeployConflictError, TargetError
from airflow_cd.targets.kubernetes.cluster import NamespaceClient
from airflow_cd.targets.kubernetes.objects import PREFIX, Reference

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
            # That may have been an answer of ours that was lost, or somebody's label.
            found = self._cluster.get(self._reference.api_version, self._reference.kind, self._reference.name)
            if found is not None and found["spec"].get("holderIdentity") != self._identity:
                self._lost = f"somebody else took it: {described(found)}"
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
    try:
        holder = json.loads(annotations[HOLDER])
        seconds = max(time.time() - holder["since"], 0)
        return (
            f"{holder['actor']} brings {holder['what']}, for {seconds:.0f} s now "
            f"(process {holder['pid']} on {holder['machine']})"
        )
    except (KeyError, TypeError, ValueError):
        return "unknown"
