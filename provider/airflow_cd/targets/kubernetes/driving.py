"""Drives rollouts on a Kubernetes cluster: applies what a phase wants, and looks what became of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING

from airflow_cd.exceptions import DeployConflictError, TargetError
from airflow_cd.model.progress import Observation, Phase
from airflow_cd.targets.kubernetes.applying import Applier, Inventory, merged, planned
from airflow_cd.targets.kubernetes.cluster import NamespaceClient
from airflow_cd.targets.kubernetes.content import ReleaseManifests
from airflow_cd.targets.kubernetes.lease import Lease
from airflow_cd.targets.kubernetes.observing import WorkloadHealth, read_workload_health
from airflow_cd.targets.kubernetes.records import StateStore, StoredRecord
from airflow_cd.targets.kubernetes.scaling import SCALE_MANAGER
from airflow_cd.targets.kubernetes.scene import RolloutContext
from airflow_cd.targets.kubernetes.wanted import DesiredState, steady_state
from airflow_cd.targets.progressive import RolloutController
from airflow_cd.targets.record import Record

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.model.strategy import StrategyChoice
    from airflow_cd.targets.base import Access

log = logging.getLogger(__name__)

_TRIES = 10


class KubernetesRollouts(RolloutController[StoredRecord]):
    """Applies what a rollout wants in a namespace, stage by stage, and looks how much of it is so."""

    def __init__(self, service: str, environment: Environment, access: Access) -> None:
        settings = environment.target.kubernetes
        assert settings is not None, "the environment's target is of this kind"
        self.service, self.environment, self.keep = service, environment.name, settings.keep
        self._settings, self._access, self._chosen = settings, access, environment.strategy
        where = f"{service} in {environment.name} ({settings.described})"
        connect = partial(access.kubernetes_client, settings.conn_id, settings.context)
        self._cluster = NamespaceClient(connect, settings.namespace, where)
        scaling = NamespaceClient(connect, settings.namespace, where, SCALE_MANAGER)
        self._records = StateStore(self._cluster, service, environment.name)
        self._applier = Applier(self._cluster, scaling, self._records.labels)
        self._lease = Lease(self._cluster, self._records.name)
        self._content = ReleaseManifests(
            service, environment.name, settings, self._cluster, self._records, access.secret
        )
        # Which stage of which rollout's progress this process has applied; another one does it again.
        self._applied: tuple[object, ...] | None = None
        # What the look that found nothing to be applied saw, so that it is not asked for again.
        self._seen: tuple[StoredRecord, RolloutContext] | None = None

    @property
    def _strategy(self) -> StrategyChoice | None:
        return self._chosen

    @property
    def _deadline(self) -> timedelta:
        return self._settings.progress_deadline

    def _load(self) -> StoredRecord:
        return self._records.read()

    def _save(self, stored: StoredRecord, record: Record) -> StoredRecord:
        return self._records.write(record, stored.inventory, stored.version)

    @contextmanager
    def _leased(self, actor: str, what: str) -> Iterator[None]:
        with self._lease.held(actor, what):
            yield

    @property
    def _takes(self) -> bool:
        return self._settings.on_conflict == "take"

    def _is_restorable(self, release: Release) -> bool:
        return self._content.kept(release.digest) is not None

    def _apply(self, stored: StoredRecord) -> StoredRecord:
        scene = self._scene(stored)
        number, stage = scene.reached()
        self._lease.check()
        stored = self._foreseen(stored, stage)
        inventory = merged(stored.inventory, self._applier.put(stage, take=scene.takes))
        stored = stored._replace(inventory=self._applier.remove(stage, inventory))
        self._applied = (scene.key, number)
        return stored

    def _foreseen(self, stored: StoredRecord, stage: DesiredState) -> StoredRecord:
        """Write down what is about to be made, so that it is found even when this process is killed then."""
        known = {one.key for one in stored.inventory}
        new = tuple(one for one in planned(stage) if one.key not in known)
        if not new:
            return stored
        return self._records.write(stored.record, merged(stored.inventory, new), stored.version)

    def _continue(self, stored: StoredRecord) -> StoredRecord:
        """Apply the next stage of a phase, when what it waited for is ready."""
        scene = self._scene(stored)
        number, _ = scene.reached()
        if self._applied == (scene.key, number):
            self._seen = stored, scene
            return stored
        rollout = scene.rollout
        with self._leased(rollout.candidate.actor, rollout.candidate.release.version):
            again = self._load()
            if again.version != stored.version:
                return again
            done = self._apply(again)
            same = (done.inventory, done.version) == (again.inventory, again.version)
            return done if same else self._save(done, done.record)

    def _observe(self, stored: StoredRecord) -> Observation:
        scene = self._seen[1] if self._seen is not None and self._seen[0] is stored else self._scene(stored)
        number, stage = scene.reached()
        # A stage that can be applied by now, and was not a moment ago, is still to be applied.
        plan, last = scene.plan, stage.then is None and self._applied == (scene.key, number)
        if scene.rollout.progress.phase is Phase.ABORTING:
            seen = read_workload_health(self._cluster, plan.last.stable)
            trouble = _trouble(seen)
            return Observation(ready=False, count=seen.count, trouble=trouble, restored=last and seen.ready)
        seen = read_workload_health(self._cluster, plan.last.candidate)
        return Observation(
            ready=last and seen.ready,
            count=seen.count,
            trouble=_trouble(seen),
            broken=seen.broken,
            weight=scene.achieved(sum(seen.ready_pods.values())),
        )

    def _converge(self, stored: StoredRecord) -> StoredRecord:
        return self._converged(stored, take=self._takes)

    def _converged(self, stored: StoredRecord, *, take: bool) -> StoredRecord:
        record = stored.record
        if record.current is None:
            self._applier.prune(stored.inventory)
            inventory: Inventory = ()
        else:
            stored, plan, applied = self._put_settled(stored, take)
            inventory = self._applier.remove(plan, merged(stored.inventory, applied))
            if self._settings.prune:
                self._applier.prune(inventory, applied)
                inventory = applied
        kept = [*([record.current] if record.current else []), *record.previous]
        self._records.forget_objects({one.release.digest for one in kept})
        return self._records.write(record, inventory, stored.version)

    def _put_settled(self, stored: StoredRecord, take: bool) -> tuple[StoredRecord, DesiredState, Inventory]:
        """Apply what is to be there; a route of somebody else's may change between the look and that."""
        for _ in range(_TRIES):
            plan = self._settled(stored.record).last
            stored = self._foreseen(stored, plan)
            with suppress(DeployConflictError):
                return stored, plan, self._applier.put(plan, take=take)
        raise TargetError(f"{self._cluster.where}: the HTTPRoute changes too often to be given back")

    def _settled(self, record: Record) -> DesiredState:
        """Return what is to be there when nothing is on its way in."""
        current = record.current
        assert current is not None
        strategy = current.strategy
        delay = strategy.blue_green.scale_down_delay if strategy and strategy.blue_green else timedelta()
        # What a rollback replaced was bad, and what is older than that is of no use beside it.
        before = record.previous[0] if record.previous and current.rolled_back_from is None else None
        previous = None
        if before is not None and self._is_restorable(before.release):
            previous = self._content.side(before, record.generation)
        return steady_state(
            self._settings,
            strategy,
            self._content.side(current, record.generation),
            previous,
            scaled_down=datetime.now(timezone.utc) >= current.deployed_at + delay,
            route=RolloutContext.route_of(self._cluster, strategy),
        )

    def _scene(self, stored: StoredRecord) -> RolloutContext:
        return RolloutContext(self._cluster, self._content, self._settings, stored.record)


def _trouble(seen: WorkloadHealth) -> str | None:
    """Return what may pass; what will not is told by itself."""
    return next((problem.summary for problem in seen.problems if not problem.certain), None)
