"""A rollout as it is on the cluster: the desired state of its phase, and how much of it is reached."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import PREFIX, Object, find_workload, image_of, name_of
from airflow_cd.kubernetes.workload_health import rollout_status
from airflow_cd.model.rollout import Phase
from airflow_cd.targets.kubernetes.desired_state import DesiredState, desired_state
from airflow_cd.targets.kubernetes.release_manifests import ReleaseManifests
from airflow_cd.targets.kubernetes.variants import CANARY, STABLE, ReleaseVariant, slot_name
from airflow_cd.targets.record import Record, Rollout

if TYPE_CHECKING:
    from airflow_cd.model.kubernetes import KubernetesTargetSettings
    from airflow_cd.model.strategy import StrategyChoice

_ROUTES = ("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1")


class RolloutContext:
    """One look at a rollout; what was asked of the cluster is not asked again."""

    def __init__(
        self,
        cluster: NamespaceClient,
        content: ReleaseManifests,
        settings: KubernetesTargetSettings,
        record: Record,
    ) -> None:
        assert record.rollout is not None, "there is nothing to be seen otherwise"
        self._cluster, self._content, self._settings, self._record = cluster, content, settings, record
        self.rollout: Rollout = record.rollout
        self._live: dict[tuple[str, str], dict[str, Any] | None] = {}

    @property
    def key(self) -> tuple[object, ...]:
        """Return what tells this phase from others."""
        progress = self.rollout.progress
        return self.rollout.token, progress.phase, progress.step, progress.weight

    @property
    def takes(self) -> bool:
        """Return whether fields that another manager owns are taken over: giving back must not wait."""
        urgent = self.rollout.progress.phase is Phase.ABORTING or self.rollout.kind == "rollback"
        return urgent or self._settings.on_conflict == "take"

    @cached_property
    def plan(self) -> DesiredState:
        """Return what the phase wants there."""
        strategy = self.rollout.candidate.strategy
        stable = self._stable
        canary = strategy is not None and strategy.canary is not None and not self.rollout.fast
        return desired_state(
            self._settings,
            strategy,
            self.rollout.progress,
            self._candidate,
            stable,
            fast=self.rollout.fast,
            replicas=self.rollout.instances,
            occupied=canary and self._is_occupied(),
            serving=self._serving() if stable is not None else None,
            route=self.route_of(self._cluster, strategy),
        )

    def reached(self) -> tuple[int, DesiredState]:
        """Return which stage of the plan is to be applied now, and its number."""
        stage = self.plan.reached(self._is_ready)
        return list(self.plan.stages).index(stage), stage

    def achieved(self, ready: int) -> float | None:
        """
        Return what percentage the new release really gets, where the number of instances says so.

        :param ready: how many instances of it are ready
        """
        strategy, progress = self.rollout.candidate.strategy, self.rollout.progress
        if strategy is None or strategy.canary is None or self.rollout.fast or strategy.canary.route:
            return None
        if progress.phase is Phase.PROMOTING:
            return None
        others = self._serving() or 0
        return 100 * ready / (ready + others) if ready + others else None

    @staticmethod
    def route_of(cluster: NamespaceClient, strategy: StrategyChoice | None) -> dict[str, Any] | None:
        """Return the live HTTPRoute that a strategy names, if it names one that is there."""
        name = strategy.route if strategy is not None else None
        if name is None:
            return None
        for api_version in _ROUTES:
            try:
                if found := cluster.get(api_version, "HTTPRoute", name):
                    return found
            except ManifestError:  # the cluster has not this version of the kind
                continue
        return None

    @cached_property
    def _candidate(self) -> ReleaseVariant:
        return self._content.side(self.rollout.candidate, self._record.generation + 1)

    @cached_property
    def _stable(self) -> ReleaseVariant | None:
        current = self._record.current
        return None if current is None else self._content.side(current, self._record.generation)

    def _is_occupied(self) -> bool:
        """Return whether another release than the candidate still runs as the canary."""
        side = self._candidate
        try:
            workload = find_workload(side.objects, self._settings, image_of(side.objects, side.digest))
        except ManifestError:  # the caller that needs it reports this; an abort does not need it
            return False
        live = self._get("Deployment", slot_name(workload, CANARY))
        if live is None or not (live.get("spec") or {}).get("replicas"):
            return False
        return bool(_annotations(live).get(f"{PREFIX}digest") != side.digest)

    def _serving(self) -> int | None:
        """Return how many instances of what ran before are ready."""
        side = self._stable
        assert side is not None
        try:
            workload = find_workload(side.objects, self._settings, image_of(side.objects, side.digest))
        except ManifestError:
            return None
        live = self._get("Deployment", slot_name(workload, side.place or STABLE))
        return int((live.get("status") or {}).get("readyReplicas") or 0) if live is not None else None

    def _is_ready(self, workload: Object) -> bool:
        """Return whether the cluster has a workload exactly like this one, and it is ready."""
        live = self._get(workload["kind"], name_of(workload))
        if live is None or _annotations(live) != {**_annotations(live), **_annotations(workload)}:
            return False
        replicas = workload["spec"].get("replicas")
        return replicas in (None, live["spec"].get("replicas")) and rollout_status(live).done

    def _get(self, kind: str, name: str) -> dict[str, Any] | None:
        if (kind, name) not in self._live:
            found = self._cluster.get("apps/v1", kind, name)
            if found is not None:
                found.setdefault("kind", kind)
            self._live[kind, name] = found
        return self._live[kind, name]


def _annotations(obj: Object) -> dict[str, str]:
    return dict(obj["metadata"].get("annotations") or {})
