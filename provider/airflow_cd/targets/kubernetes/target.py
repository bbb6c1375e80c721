"""Deploys releases to a Kubernetes cluster: rolling, as canaries, or blue/green."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from airflow_cd.exceptions import DeployConflictError, LeaseLostError, ManifestError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
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
from airflow_cd.model.rollout import HOLDING, Observation, Phase
from airflow_cd.targets.base import Difference
from airflow_cd.targets.kubernetes.apply import SCALE_MANAGER, Applier, Inventory, adopting, merged, planned
from airflow_cd.targets.kubernetes.desired_state import DesiredState, check_route, steady_state
from airflow_cd.targets.kubernetes.fencing import LateWriteError
from airflow_cd.targets.kubernetes.release_manifests import Objects, ReleaseManifests, kept_under
from airflow_cd.targets.kubernetes.rollout_context import RolloutContext
from airflow_cd.targets.kubernetes.state_store import StateStore, StoredRecord, UnreadableError
from airflow_cd.targets.kubernetes.variants import COLOURS, ReleaseVariant, place_of, slot_name
from airflow_cd.targets.record import Deployed, Record, Rollout, rollout_of
from airflow_cd.targets.rollout_controller import RolloutController

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
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
# As long as others may hold the lease; it is only asked for where this process did harm.
_BRING_BACK_SECONDS = 120.0


class KubernetesBackend:
    """Applies the desired state of a rollout to a namespace, wave by wave, and reads its progress."""

    def __init__(self, service: str, environment: Environment, access: Access) -> None:
        settings = environment.target.kubernetes
        assert settings is not None, "the environment's target is of this kind"
        self.service, self.environment, self.keep = service, environment.name, settings.keep
        self.settings, self.strategy = settings, environment.strategy
        where = f"{service} in {environment.name} ({settings.described})"
        connect = partial(access.client_factory("kubernetes"), settings.conn_id, settings.context)
        self.cluster = NamespaceClient(connect, settings.namespace, where)
        scaling = NamespaceClient(connect, settings.namespace, where, SCALE_MANAGER)
        self.records = StateStore(self.cluster, service, environment.name)
        self.applier = Applier(self.cluster, scaling, self.records.writer, self.records.labels)
        self._lease = self.records.lease
        self.manifests = ReleaseManifests(
            service, environment.name, settings, self.cluster, self.records, access.secret
        )
        # The last wave and progress that this process applied; another process applies it again.
        self._applied: tuple[object, ...] | None = None
        # What the look that found nothing to be applied saw, so that it is not asked for again.
        self._seen: tuple[StoredRecord, RolloutContext] | None = None

    @property
    def deadline(self) -> timedelta:
        return self.settings.progress_deadline

    def load(self) -> StoredRecord:
        return self.records.read()

    def save(self, stored: StoredRecord, record: Record) -> StoredRecord:
        return self.records.write(record, stored.inventory, stored.version)

    @contextmanager
    def leased(self, actor: str, what: str) -> Iterator[None]:
        try:
            with self._lease.held(actor, what):
                yield
        except LateWriteError as error:
            log.warning("%s", error)
            self._bring_back(actor)
            raise

    def _bring_back(self, actor: str) -> None:
        """
        Apply what the record says, over what this process wrote after it lost the lease.

        :raises DeployConflictError: another process holds the lease for minutes
        """
        retrying = Retrying(
            retry=retry_if_exception_type(DeployConflictError),
            wait=wait_fixed(1),
            stop=stop_after_delay(_BRING_BACK_SECONDS),
            reraise=True,
        )
        retrying(self._apply_record, actor)

    def _apply_record(self, actor: str) -> None:
        with self._lease.held(actor, "what was written too late"):
            stored = self.load()
            if stored.record.rollout is None:
                self.restore(stored, take=True)
            else:
                done = self.apply(stored)
                self.save(done, done.record)

    @property
    def takes(self) -> bool:
        return self.settings.on_conflict == "take"

    def is_restorable(self, deployed: Deployed) -> bool:
        try:
            return self.manifests.kept(deployed) is not None
        except UnreadableError as error:
            log.error("%s cannot be gone back to: %s", deployed.release.version, error)
            return False

    def apply(self, stored: StoredRecord) -> StoredRecord:
        context = self.context_of(stored)
        number, stage = context.reached()
        self._lease.check()
        stored = self._foreseen(stored, stage)
        inventory = merged(stored.inventory, self.applier.put(stage, take=context.takes))
        stored = stored._replace(inventory=self.applier.remove(stage, inventory))
        self._applied = (context.key, number)
        return stored

    def _foreseen(self, stored: StoredRecord, stage: DesiredState) -> StoredRecord:
        """Write down what is about to be made, so that it is found even when this process is killed then."""
        known = {one.key for one in stored.inventory}
        new = tuple(one for one in planned(stage) if one.key not in known)
        if not new:
            return stored
        return self.records.write(stored.record, merged(stored.inventory, new), stored.version)

    def proceed(self, stored: StoredRecord) -> StoredRecord:
        """Apply the next stage of a phase, when what it waited for is ready."""
        context = self.context_of(stored)
        number, _ = context.reached()
        if self._applied == (context.key, number):
            self._seen = stored, context
            return stored
        rollout = context.rollout
        with self.leased(rollout.candidate.actor, rollout.candidate.release.version):
            # Another process may have changed it meanwhile, such as by an answer. What it says now is applied
            # here, too: what this process has not applied counts as not ready, and would be aborted.
            again = self.load()
            if rollout_of(again.record, rollout.token) is None:
                return again
            done = self.apply(again)
            same = (done.inventory, done.version) == (again.inventory, again.version)
            return done if same else self.save(done, done.record)

    def observe(self, stored: StoredRecord) -> Observation:
        context = (
            self._seen[1] if self._seen is not None and self._seen[0] is stored else self.context_of(stored)
        )
        number, stage = context.reached()
        # A stage that can be applied by now, and was not a moment ago, is still to be applied.
        plan, last = context.plan, stage.then is None and self._applied == (context.key, number)
        if context.rollout.progress.phase is Phase.ABORTING:
            seen = read_workload_health(self.cluster, plan.last.stable)
            trouble = _trouble(seen)
            return Observation(ready=False, count=seen.count, trouble=trouble, restored=last and seen.ready)
        seen = read_workload_health(self.cluster, plan.last.candidate)
        # While it holds, all stages were applied: that an earlier one looks unready for a moment, as after
        # another process applied it again, is no loss of the candidate.
        reached = last or context.rollout.progress.phase in HOLDING
        return Observation(
            ready=reached and seen.ready,
            count=seen.count,
            trouble=_trouble(seen),
            broken=seen.broken,
            weight=context.achieved(sum(seen.ready_pods.values())),
        )

    def apply_steady_state(self, stored: StoredRecord) -> StoredRecord:
        return self.restore(stored, take=self.takes)

    def restore(self, stored: StoredRecord, *, take: bool) -> StoredRecord:
        record = stored.record
        if record.current is None:
            self.applier.prune(stored.inventory)
            inventory: Inventory = ()
        else:
            stored, plan, applied = self._put_steady_state(stored, take)
            inventory = self.applier.remove(plan, merged(stored.inventory, applied))
            if self.settings.prune:
                self.applier.prune(inventory, applied)
                inventory = applied
        kept = [*([record.current] if record.current else []), *record.previous]
        self.records.forget_objects({kept_under(one) for one in kept})
        return self.records.write(record, inventory, stored.version)

    def _put_steady_state(
        self, stored: StoredRecord, take: bool
    ) -> tuple[StoredRecord, DesiredState, Inventory]:
        """Apply what is to be there; a route of another owner's may change between the look and that."""
        for _ in range(_TRIES):
            plan = self.steady_state_of(stored.record).last
            stored = self._foreseen(stored, plan)
            try:
                return stored, plan, self.applier.put(plan, take=take)
            except LeaseLostError:
                raise
            except DeployConflictError:
                continue
        raise TargetError(f"{self.cluster.where}: the HTTPRoute changes too often to be given back")

    def steady_state_of(self, record: Record) -> DesiredState:
        """Return what is to be there when nothing is on its way in."""
        current = record.current
        assert current is not None
        strategy = current.strategy
        delay = strategy.blue_green.scale_down_delay if strategy and strategy.blue_green else timedelta()
        # What a rollback replaced was bad, and what is older than that is of no use beside it.
        before = record.previous[0] if record.previous and current.rolled_back_from is None else None
        previous = None
        if before is not None and self.is_restorable(before):
            previous = self.manifests.side(before, record.generation)
        return steady_state(
            self.settings,
            strategy,
            self.manifests.side(current, record.generation),
            previous,
            scaled_down=datetime.now(timezone.utc) >= current.deployed_at + delay,
            route=RolloutContext.route_of(self.cluster, strategy),
        )

    def context_of(self, stored: StoredRecord) -> RolloutContext:
        return RolloutContext(self.cluster, self.manifests, self.settings, stored.record)

    def track(self, record: Record) -> str:
        return place_of(self.strategy, record.current.place if record.current else None)

    def planned_state(self, record: Record, release: Release, objects: Objects) -> DesiredState:
        """Return what is to be there when a release runs that is not deployed yet."""
        side = ReleaseVariant(objects, self.track(record), release.digest, release.version, 0)
        route = RolloutContext.route_of(self.cluster, self.strategy)
        check_route(self.settings, self.strategy, side, route, self.records.labels)
        return steady_state(self.settings, self.strategy, side, None, scaled_down=True, route=route)

    def prepare(self, record: Record, release: Release, store: ArtifactStore) -> str:
        """Let the cluster check everything, and keep it there, before anything that runs is touched."""
        objects = self.manifests.released(release, store)
        plan = self.planned_state(record, release, objects)
        adopted = self.manifests.refuse_others(plan.last.objects)
        for one in self.differences(plan, take=self.takes):
            log.info("%s:\n%s", one.name, one.text)
        return self.manifests.keep(release, adopting(objects, adopted))

    def names(self, rollout: Rollout) -> dict[str, str]:
        names = {"namespace": self.settings.namespace}
        side = self.manifests.side(rollout.candidate, 0)
        strategy = rollout.candidate.strategy
        if strategy is None:
            return names
        workload = find_workload(side.objects, self.settings, image_of(side.objects, side.digest))
        slot = "canary" if strategy.canary is not None else side.place
        names["canary"] = slot_name(workload, slot)
        current = self.load().record.current
        place = current.place if current is not None and current.place in COLOURS else "stable"
        return {**names, "stable": slot_name(workload, str(place))}

    def instances(self, stored: StoredRecord) -> int | None:
        """Return how many instances there are, where a HorizontalPodAutoscaler or a person says so."""
        current, rollout = stored.record.current, stored.record.rollout
        if rollout is not None:  # the number is its strategy's now
            return rollout.instances
        if current is None or current.place in COLOURS:
            return None
        side = self.manifests.side(current, 0)
        try:
            workload = find_workload(side.objects, self.settings, image_of(side.objects, side.digest))
        except ManifestError:  # a rolling release may have several, or none
            return None
        if workload["spec"].get("replicas") is not None and not is_scaled(side.objects, workload):
            return None
        live = self.cluster.get("apps/v1", "Deployment", name_of(workload))
        return None if live is None else live["spec"].get("replicas")

    def differences(self, plan: DesiredState, *, take: bool) -> list[Difference]:
        own = [one for one in plan.last.objects if not is_borrowed(one)]
        found = self.cluster.diff(own, take=take)
        return [Difference(one.reference.described, one.text) for one in found]


def _trouble(seen: WorkloadHealth) -> str | None:
    """Return the problems that may pass; permanent ones are reported separately."""
    return next((problem.summary for problem in seen.problems if not problem.certain), None)


class KubernetesTarget(RolloutController[StoredRecord]):
    """
    One service in one environment on a cluster; see :class:`airflow_cd.targets.base.DeclarativeTarget`.

    Not to be used by several threads at the same time.
    """

    def __init__(self, service: str, environment: Environment, access: Access) -> None:
        self._access = access
        self._k8s = KubernetesBackend(service, environment, access)
        super().__init__(self._k8s)

    def url(self) -> str | None:
        """Return where the service answers, ``None`` when nothing runs or nothing says where."""
        if self._k8s.settings.url is not None:
            return self._k8s.settings.url
        current = self.record().current
        if current is None:
            return None
        service = self._service_of(self._k8s.manifests.side(current, 0))
        live = self._k8s.cluster.get("v1", "Service", service) if service else None
        return url_of(live, self._k8s.settings) if live is not None else None

    def watching(self) -> AbstractAsyncContextManager[Changes]:
        """Watch what runs, on the running event loop."""
        settings, create = self._k8s.settings, self._access.client_factory("kubernetes_watch")
        connect = partial(create, settings.conn_id, settings.context)
        return watch_namespace(connect, settings.namespace, self._k8s.records.labels)

    def preview(self, release: Release, store: ArtifactStore) -> list[Difference]:
        """Return what deploying ``release`` would change, as the cluster itself sees it."""
        objects = self._k8s.manifests.released(release, store)
        return self._k8s.differences(
            self._k8s.planned_state(self.record(), release, objects), take=self._k8s.takes
        )

    def drift(self) -> list[Difference]:
        """Return what is not as the running release set it."""
        record = self._k8s.load().record
        return self._k8s.differences(self._k8s.steady_state_of(record), take=True) if record.current else []

    def heal(self) -> Record:
        """Restore what differs from what the running release set."""
        with self._k8s.leased("healing", "what runs"):
            stored = self._k8s.load()
            if stored.record.current is None or stored.record.rollout is not None:
                return stored.record
            return self._k8s.restore(stored, take=True).record

    def remove(self) -> None:
        """End the service in this environment, and forget what ran."""
        with self._k8s.leased("removal", "nothing"):
            self._k8s.applier.prune(self._k8s.load().inventory)
            self._k8s.records.remove()

    def _service_of(self, side: ReleaseVariant) -> str | None:
        workload = find_workload(
            side.objects,
            self._k8s.settings,
            image_of(side.objects, side.digest),
            kinds=WORKLOADS,
        )
        service = find_service(side.objects, self._k8s.settings, workload)
        return name_of(service) if service is not None else None
