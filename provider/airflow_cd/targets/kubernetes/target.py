"""Deploys releases to a Kubernetes cluster: rolling, as canaries, or blue/green."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import DeployConflictError, ManifestError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.lease import Lease
from airflow_cd.kubernetes.objects import (
    WORKLOADS,
    find_service,
    find_workload,
    image_of,
    is_borrowed,
    is_scaled,
    name_of,
)
from airflow_cd.kubernetes.watch import watch_namespace
from airflow_cd.kubernetes.workload_health import WorkloadHealth, read_workload_health
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.rollout import Observation, Phase
from airflow_cd.targets.base import Difference
from airflow_cd.targets.kubernetes.apply import SCALE_MANAGER, Applier, Inventory, adopting, merged, planned
from airflow_cd.targets.kubernetes.desired_state import DesiredState, check_route, steady_state
from airflow_cd.targets.kubernetes.release_manifests import Objects, ReleaseManifests
from airflow_cd.targets.kubernetes.rollout_context import RolloutContext
from airflow_cd.targets.kubernetes.state_store import StateStore, StoredRecord
from airflow_cd.targets.kubernetes.variants import COLOURS, ReleaseVariant, place_of, slot_name
from airflow_cd.targets.record import Record, Rollout
from airflow_cd.targets.rollout_controller import RolloutController

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.model.strategy import StrategyChoice
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.base import Access, Changes

log = logging.getLogger(__name__)

_USUAL = {"http": 80, "https": 443}


def url_of(
    service: Mapping[str, Any], settings: KubernetesTargetSettings, node: str | None = None
) -> str | None:
    """
    Return where a Service answers, without a trailing slash, or ``None`` where that is not known.

    That is what the settings say, else what the Service says itself: a port named ``http...``, else its
    first one. It is ``None`` for a headless Service, and for a load balancer that has no address yet.

    :param service: as the API gives it
    :param node: address of any node, where those can be reached: a NodePort is used at this address, and
        at the cluster's own otherwise
    """
    if settings.url is not None:
        return settings.url
    spec = service.get("spec") or {}
    port = _preferred(spec.get("ports") or [])
    if spec.get("type") == "ExternalName":
        return _url(spec.get("externalName"), port, (port or {}).get("port"))
    if port is None:
        return None
    if spec.get("type") == "LoadBalancer":
        return _url(_balancer(service), port, port["port"])
    if spec.get("type") == "NodePort" and node is not None and port.get("nodePort"):
        return _url(node, port, port["nodePort"])
    address = spec.get("clusterIP")
    return _url(None if address == "None" else address, port, port["port"])


def _preferred(ports: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    usable = [port for port in ports if port.get("protocol", "TCP") == "TCP"]
    named = [port for port in usable if _name(port) == "http"]
    related = [port for port in usable if _name(port).startswith("http")]
    return next(iter([*named, *related, *usable]), None)


def _balancer(service: Mapping[str, Any]) -> str | None:
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [{}]
    address = given[0].get("hostname") or given[0].get("ip")
    return str(address) if address else None


def _name(port: Mapping[str, Any]) -> str:
    return str(port.get("name") or "")


def _url(host: str | None, port: Mapping[str, Any] | None, number: int | None) -> str | None:
    if not host:
        return None
    port = port or {}
    # A name may say more than the protocol: ``https-web``. ``appProtocol`` is meant to say just this.
    secure = "https" in (_name(port).split("-")[0], port.get("appProtocol")) or port.get("port") == 443
    scheme = "https" if secure else "http"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if number in (None, _USUAL[scheme]) else f"{scheme}://{host}:{number}"


_TRIES = 10


class KubernetesRollouts(RolloutController[StoredRecord]):
    """Applies the desired state of a rollout to a namespace, wave by wave, and reads its progress."""

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
        # The last wave and progress that this process applied; another process applies it again.
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
        """Apply what is to be there; a route of another owner's may change between the look and that."""
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
    """Return the problems that may pass; permanent ones are reported separately."""
    return next((problem.summary for problem in seen.problems if not problem.certain), None)


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
        """Restore what differs from what the running release set."""
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
