"""Runs releases on a Kubernetes cluster: rolling, as canaries, or blue/green."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING

from airflow_cd.exceptions import ManifestError
from airflow_cd.targets.base import Difference
from airflow_cd.targets.kubernetes.address import url_of
from airflow_cd.targets.kubernetes.applying import adopting
from airflow_cd.targets.kubernetes.content import Objects
from airflow_cd.targets.kubernetes.driving import KubernetesRollouts
from airflow_cd.targets.kubernetes.objects import is_borrowed
from airflow_cd.targets.kubernetes.records import StoredRecord
from airflow_cd.targets.kubernetes.scene import RolloutContext
from airflow_cd.targets.kubernetes.slots import COLOURS, ReleaseVariant, place_of, slot_name
from airflow_cd.targets.kubernetes.wanted import DesiredState, check_route, steady_state
from airflow_cd.targets.kubernetes.watching import watch_namespace
from airflow_cd.targets.kubernetes.workload import (
    WORKLOADS,
    find_service,
    find_workload,
    image_of,
    is_scaled,
    name_of,
)
from airflow_cd.targets.record import Record, Rollout

if TYPE_CHECKING:
    from airflow_cd.artifacts.base import ArtifactStore
    from airflow_cd.model.release import Release
    from airflow_cd.targets.base import Changes

log = logging.getLogger(__name__)


class KubernetesTarget(KubernetesRollouts):
    """
    One service in one environment on a cluster; see :class:`airflow_cd.targets.base.DeclarativeTarget`.

    Not to be used by several threads at the same time.
    """

    def url(self) -> str | None:
        """Return where the service answers, ``None`` when nothing runs or nothing says where."""
        if self._settings.url is not None:
            return self._settings.url
        current = self.record().current
        if current is None:
            return None
        service = self._service_of(self._content.side(current, 0))
        live = self._cluster.get("v1", "Service", service) if service else None
        return url_of(live, self._settings) if live is not None else None

    def watching(self) -> AbstractAsyncContextManager[Changes]:
        """Watch what runs, on the running event loop."""
        connect = partial(
            self._access.kubernetes_watch_client, self._settings.conn_id, self._settings.context
        )
        return watch_namespace(connect, self._settings.namespace, self._records.labels)

    def preview(self, release: Release, store: ArtifactStore) -> list[Difference]:
        """Return what deploying ``release`` would change, as the cluster itself sees it."""
        objects = self._content.released(release, store)
        return self._differences(self._planned(self.record(), release, objects), take=self._takes)

    def drift(self) -> list[Difference]:
        """Return what is not as the running release set it."""
        record = self._load().record
        return self._differences(self._settled(record), take=True) if record.current else []

    def heal(self) -> Record:
        """Put right what is not as the running release set it, whoever changed it."""
        with self._leased("healing", "what runs"):
            stored = self._load()
            if stored.record.current is None or stored.record.rollout is not None:
                return stored.record
            return self._converged(stored, take=True).record

    def remove(self) -> None:
        """End the service in this environment, and forget what ran."""
        with self._leased("removal", "nothing"):
            self._applier.prune(self._load().inventory)
            self._records.remove()

    def _place(self, record: Record) -> str:
        return place_of(self._chosen, record.current.place if record.current else None)

    def _planned(self, record: Record, release: Release, objects: Objects) -> DesiredState:
        """Return what is to be there when a release runs that is not deployed yet."""
        side = ReleaseVariant(objects, self._place(record), release.digest, release.version, 0)
        route = RolloutContext.route_of(self._cluster, self._chosen)
        check_route(self._settings, self._chosen, side, route, self._records.labels)
        return steady_state(self._settings, self._chosen, side, None, scaled_down=True, route=route)

    def _prepare(self, record: Record, release: Release, store: ArtifactStore) -> None:
        """Let the cluster check everything, and keep it there, before anything that runs is touched."""
        objects = self._content.released(release, store)
        plan = self._planned(record, release, objects)
        adopted = self._content.refuse_others(plan.last.objects)
        for one in self._differences(plan, take=self._takes):
            log.info("%s:\n%s", one.name, one.text)
        self._content.keep(release.digest, adopting(objects, adopted))

    def _names(self, rollout: Rollout) -> dict[str, str]:
        names = {"namespace": self._settings.namespace}
        side = self._content.side(rollout.candidate, 0)
        strategy = rollout.candidate.strategy
        if strategy is None:
            return names
        workload = find_workload(side.objects, self._settings, image_of(side.objects, side.digest))
        slot = "canary" if strategy.canary is not None else side.place
        names["canary"] = slot_name(workload, slot)
        current = self._load().record.current
        place = current.place if current is not None and current.place in COLOURS else "stable"
        return {**names, "stable": slot_name(workload, str(place))}

    def _instances(self, stored: StoredRecord) -> int | None:
        """Return how many instances there are, where a HorizontalPodAutoscaler or a person says so."""
        current, rollout = stored.record.current, stored.record.rollout
        if rollout is not None:  # the number is its strategy's now
            return rollout.instances
        if current is None or current.place in COLOURS:
            return None
        side = self._content.side(current, 0)
        try:
            workload = find_workload(side.objects, self._settings, image_of(side.objects, side.digest))
        except ManifestError:  # a rolling release may have several, or none
            return None
        if workload["spec"].get("replicas") is not None and not is_scaled(side.objects, workload):
            return None
        live = self._cluster.get("apps/v1", "Deployment", name_of(workload))
        return None if live is None else live["spec"].get("replicas")

    def _differences(self, plan: DesiredState, *, take: bool) -> list[Difference]:
        own = [one for one in plan.last.objects if not is_borrowed(one)]
        found = self._cluster.diff(own, take=take)
        return [Difference(one.reference.described, one.text) for one in found]

    def _service_of(self, side: ReleaseVariant) -> str | None:
        workload = find_workload(
            side.objects,
            self._settings,
            image_of(side.objects, side.digest),
            kinds=WORKLOADS,
        )
        service = find_service(side.objects, self._settings, workload)
        return name_of(service) if service is not None else None
