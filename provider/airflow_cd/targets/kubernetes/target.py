"""Runs releases on a Kubernetes cluster: rolling, as canaries, or blue/green."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING

from airflow_cd.exceptions import DeployConflictError, ManifestError, TargetError
from airflow_cd.model.progress import Observation, Phase
from airflow_cd.targets.base import Difference
from airflow_cd.targets.kubernetes.address import url_of
from airflow_cd.targets.kubernetes.applying import Applier, Inventory, adopting, merged, planned
from airflow_cd.targets.kubernetes.cluster import Cluster
from airflow_cd.targets.kubernetes.content import Content, Objects
from airflow_cd.targets.kubernetes.lease import Lease
from airflow_cd.targets.kubernetes.objects import is_borrowed
from airflow_cd.targets.kubernetes.observing import Seen, observe
from airflow_cd.targets.kubernetes.records import Records, Stored
from airflow_cd.targets.kubernetes.scaling import SCALE_MANAGER
from airflow_cd.targets.kubernetes.scene import Scene
from airflow_cd.targets.kubernetes.slots import COLOURS, Side, place_of, slot_name
from airflow_cd.targets.kubernetes.wanted import Wanted, check_route, settled
from airflow_cd.targets.kubernetes.watching import watching
from airflow_cd.targets.kubernetes.workload import (
    WORKLOADS,
    find_service,
    find_workload,
    image_of,
    is_scaled,
    name_of,
)
from airflow_cd.targets.progressive import SteppedTarget
from airflow_cd.targets.record import Record, Rollout

if TYPE_CHECKING:
    from airflow_cd.artifacts.base import ArtifactStore
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Environment
    from airflow_cd.model.strategy import StrategyChoice
    from airflow_cd.targets.base import Access, Changes

log = logging.getLogger(__name__)

_TRIES = 10


class KubernetesTarget(SteppedTarget[Stored]):
    """
    One service in one environment on a cluster; see :class:`airflow_cd.targets.base.DeclarativeTarget`.

    Not to be used by several threads at the same time.
    """

    def __init__(self, service: str, environment: Environment, access: Access) -> None:
        settings = environment.target.kubernetes
        assert settings is not None, "the environment's target is of this kind"
        self.service, self.environment, self.keep = service, environment.name, settings.keep
        self._settings, self._access, self._chosen = settings, access, environment.strategy
        where = f"{service} in {environment.name} ({settings.described})"
        connect = partial(access.kubernetes_client, settings.conn_id, settings.context)
        self._cluster = Cluster(connect, settings.namespace, where)
        scaling = Cluster(connect, settings.namespace, where, SCALE_MANAGER)
        self._records = Records(self._cluster, service, environment.name)
        self._applier = Applier(self._cluster, scaling, self._records.labels)
        self._lease = Lease(self._cluster, self._records.name)
        self._content = Content(
            service, environment.name, settings, self._cluster, self._records, access.secret
        )
        # Which stage of which rollout's progress this process has applied; another one does it again.
        self._applied: tuple[object, ...] | None = None

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
        return watching(connect, self._settings.namespace, self._records.labels)

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

    @property
    def _strategy(self) -> StrategyChoice | None:
        return self._chosen

    @property
    def _deadline(self) -> timedelta:
        return self._settings.progress_deadline

    def _load(self) -> Stored:
        return self._records.read()

    def _save(self, stored: Stored, record: Record) -> Stored:
        return self._records.write(record, stored.inventory, stored.version)

    @contextmanager
    def _leased(self, actor: str, what: str) -> Iterator[None]:
        with self._lease.held(actor, what):
            yield

    def _place(self, record: Record) -> str:
        return place_of(self._chosen, record.current.place if record.current else None)

    @property
    def _takes(self) -> bool:
        return self._settings.on_conflict == "take"

    def _planned(self, record: Record, release: Release, objects: Objects) -> Wanted:
        """Return what is to be there when a release runs that is not deployed yet."""
        side = Side(objects, self._place(record), release.digest, release.version, 0)
        route = Scene.route_of(self._cluster, self._chosen)
        check_route(self._settings, self._chosen, side, route)
        return settled(self._settings, self._chosen, side, None, scaled_down=True, route=route)

    def _prepare(self, record: Record, release: Release, store: ArtifactStore) -> None:
        """Let the cluster check everything, and keep it there, before anything that runs is touched."""
        objects = self._content.released(release, store)
        plan = self._planned(record, release, objects)
        adopted = self._content.refuse_others(plan.last.objects)
        for one in self._differences(plan, take=self._takes):
            log.info("%s:\n%s", one.name, one.text)
        self._content.keep(release.digest, adopting(objects, adopted))

    def _is_restorable(self, release: Release) -> bool:
        return self._content.kept(release.digest) is not None

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

    def _instances(self, stored: Stored) -> int | None:
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

    def _apply(self, stored: Stored) -> Stored:
        scene = self._scene(stored)
        number, stage = scene.reached()
        self._lease.check()
        stored = self._foreseen(stored, stage)
        inventory = merged(stored.inventory, self._applier.put(stage, take=scene.takes))
        stored = stored._replace(inventory=self._applier.remove(stage, inventory))
        self._applied = (scene.key, number)
        return stored

    def _foreseen(self, stored: Stored, stage: Wanted) -> Stored:
        """Write down what is about to be made, so that it is found even when this process is killed then."""
        known = {one.key for one in stored.inventory}
        new = tuple(one for one in planned(stage) if one.key not in known)
        if not new:
            return stored
        return self._records.write(stored.record, merged(stored.inventory, new), stored.version)

    def _continue(self, stored: Stored) -> Stored:
        """Apply the next stage of a phase, when what it waited for is ready."""
        scene = self._scene(stored)
        number, _ = scene.reached()
        if self._applied == (scene.key, number):
            return stored
        rollout = scene.rollout
        with self._leased(rollout.candidate.actor, rollout.candidate.release.version):
            again = self._load()
            if again.version != stored.version:
                return again
            done = self._apply(again)
            same = (done.inventory, done.version) == (again.inventory, again.version)
            return done if same else self._save(done, done.record)

    def _observe(self, stored: Stored) -> Observation:
        scene = self._scene(stored)
        number, stage = scene.reached()
        # A stage that can be applied by now, and was not a moment ago, is still to be applied.
        plan, last = scene.plan, stage.then is None and self._applied == (scene.key, number)
        if scene.rollout.progress.phase is Phase.ABORTING:
            seen = observe(self._cluster, plan.last.stable)
            trouble = _trouble(seen)
            return Observation(ready=False, count=seen.count, trouble=trouble, restored=last and seen.ready)
        seen = observe(self._cluster, plan.last.candidate)
        return Observation(
            ready=last and seen.ready,
            count=seen.count,
            trouble=_trouble(seen),
            broken=seen.broken,
            weight=scene.achieved(sum(seen.ready_pods.values())),
        )

    def _converge(self, stored: Stored) -> Stored:
        return self._converged(stored, take=self._takes)

    def _converged(self, stored: Stored, *, take: bool) -> Stored:
        record = stored.record
        if record.current is None:
            self._applier.prune(stored.inventory)
            inventory: Inventory = ()
        else:
            plan = self._settled(record).last
            stored = self._foreseen(stored, plan)
            plan, applied = self._put_settled(record, take)
            inventory = self._applier.remove(plan, merged(stored.inventory, applied))
            if self._settings.prune:
                self._applier.prune(inventory, applied)
                inventory = applied
        kept = [*([record.current] if record.current else []), *record.previous]
        self._records.forget_objects({one.release.digest for one in kept})
        return self._records.write(record, inventory, stored.version)

    def _put_settled(self, record: Record, take: bool) -> tuple[Wanted, Inventory]:
        """Apply what is to be there; a route of somebody else's may change between the look and that."""
        for _ in range(_TRIES):
            with suppress(DeployConflictError):
                plan = self._settled(record).last
                return plan, self._applier.put(plan, take=take)
        raise TargetError(f"{self._cluster.where}: the HTTPRoute changes too often to be given back")

    def _settled(self, record: Record) -> Wanted:
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
        return settled(
            self._settings,
            strategy,
            self._content.side(current, record.generation),
            previous,
            scaled_down=datetime.now(timezone.utc) >= current.deployed_at + delay,
            route=Scene.route_of(self._cluster, strategy),
        )

    def _scene(self, stored: Stored) -> Scene:
        return Scene(self._cluster, self._content, self._settings, stored.record)

    def _differences(self, plan: Wanted, *, take: bool) -> list[Difference]:
        own = [one for one in plan.last.objects if not is_borrowed(one)]
        found = self._cluster.diff(own, take=take)
        return [Difference(one.reference.described, one.text) for one in found]

    def _service_of(self, side: Side) -> str | None:
        workload = find_workload(
            side.objects,
            self._settings,
            image_of(side.objects, side.digest),
            kinds=WORKLOADS,
        )
        service = find_service(side.objects, self._settings, workload)
        return name_of(service) if service is not None else None


def _trouble(seen: Seen) -> str | None:
    """Return what may pass; what will not is told by itself."""
    return next((problem.summary for problem in seen.problems if not problem.certain), None)
