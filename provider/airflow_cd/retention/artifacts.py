"""
Removes from an artifact store what no run, no environment and no policy keeps.

Only what a run recorded as its use (:mod:`airflow_cd.releases.uses`) is removed: so it is known whose it is,
and that no other run uses it. What was stored before uses were recorded, or without one, stays, unless the
options name an age for it. What is not known is kept: a service whose environments cannot be asked, or whose
runs Airflow does not answer for, loses nothing; a use that cannot be read stops the collection of its store.

How this is safe beside running tasks: :mod:`airflow_cd.stores.trash`. A use is removed after all it names, so
that a collector that was killed is continued by the next one.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow_cd.exceptions import ArtifactError, CdError
from airflow_cd.model.retention import Retention, Use, reasons_to_keep
from airflow_cd.releases.uses import USES, recorded_uses, service_of, use_in
from airflow_cd.retention.needs import Needs, needs_of
from airflow_cd.retention.report import Row, Tally, summed

if TYPE_CHECKING:
    from airflow_cd.model.service import Service
    from airflow_cd.stores.base import CollectableStore, Discarded, Stored

# DAG id, ids of some of its runs -> those of them that have not ended. Raises CdError when that is not known.
UnfinishedRuns = Callable[[str, Collection[str]], Collection[str]]

# What was used within this time is left alone, and what was removed can be taken back for this time.
GRACE = timedelta(days=1)
# Who needs what is read once; after this time, it is not relied on any more.
_LONGEST_SECONDS = 3600.0
# Documents of releases are smaller. Without a record of their use they stay: they are what names the others.
_SMALLEST_UNRECORDED = 1024 * 1024
_UNRECORDED = "_unrecorded"
_NOT_OVER = "its run has not ended"
_JUST_USED = "used within a day"


@dataclass(frozen=True)
class Options:
    """
    :param dry_run: whether nothing is to be removed
    :param keep: instead of what services say in ``retention: {keep: ...}``
    :param younger_than: instead of what services say in ``retention: {younger_than: ...}``
    :param unrecorded: what no use names is removed from this age on; ``None`` keeps it
    """

    dry_run: bool = False
    keep: int | None = None
    younger_than: timedelta | None = None
    unrecorded: timedelta | None = None

    def policy_of(self, service: Service) -> Retention:
        """Return what is kept of a service."""
        given = {"keep": self.keep, "younger_than": self.younger_than}
        return service.retention.model_copy(update={k: v for k, v in given.items() if v is not None})


class StoreCollector:
    """
    One collection of one store.

    :param services: all that use the store, as far as the services file says
    :param chosen: names of those whose releases are looked at
    :param unfinished: see :data:`UnfinishedRuns`
    :param say: receives what happens, a sentence each
    """

    def __init__(
        self,
        store: CollectableStore,
        services: Sequence[Service],
        chosen: Collection[str],
        unfinished: UnfinishedRuns,
        options: Options,
        now: datetime,
        say: Callable[[str], None],
    ) -> None:
        self._store, self._services, self._chosen = store, services, chosen
        self._unfinished, self._options, self._now = unfinished, options, now
        self._say, self._began = say, time.monotonic()
        self._uses: dict[str, Use] = {}  # by reference
        self._live: set[str] = set()  # references of those that are not in the trash
        self._reasons: dict[str, str | None] = {}  # by reference, of the services that were judged
        self._needs: dict[str, Needs] = {}
        self._problems: dict[str, str] = {}
        self._over: dict[tuple[str, str], bool] = {}
        self._rows: list[Row] = []
        self._counted: set[tuple[str, str]] = set()  # of a dry run

    def collect(self) -> list[Row]:
        """
        Remove, and return what was removed and kept.

        :raises ArtifactError: the store cannot be used; what was removed until then can be taken back
        """
        discarded = list(self._store.discarded())
        self._read_uses(discarded)
        for service in self._services:
            self._ask(service)
        for service in self._services:
            if service.name in self._chosen and service.name not in self._problems:
                self._judge(service)
        self._spare_what_was_just_used()
        for service in self._services:
            if service.name in self._chosen:
                self._collect(service)
        self._report_foreign()
        if self._options.unrecorded is not None:
            self._collect_unrecorded(self._options.unrecorded)
        self._empty_trash(discarded)
        return self._rows

    @property
    def revisions(self) -> set[str]:
        """Return the commits that are needed after the collection."""
        used = {use.revision for use in self._kept()}
        return used.union(*(needs.revisions for needs in self._needs.values()))

    @property
    def is_complete(self) -> bool:
        """Return whether it is known of all services of the file what they need."""
        return not self._problems

    def _read_uses(self, discarded: Iterable[Discarded]) -> None:
        for one in discarded:
            if one.kind == "ref" and one.name.startswith(f"{USES}/"):
                if use := use_in(one.name, self._store.read_discarded(one)):
                    self._uses[one.name] = use
        live = dict(recorded_uses(self._store))
        self._uses.update(live)
        self._live = set(live)

    def _ask(self, service: Service) -> None:
        try:
            self._needs[service.name] = needs_of(service, self._store)
        except (CdError, OSError, ValueError) as error:
            self._say(f"{service.name}: not known what its environments need: {error}")
            self._problems[service.name] = f"nothing is removed, not all of its environments answer: {error}"

    def _judge(self, service: Service) -> None:
        own = self._uses_of[service.name]
        policy = self._options.policy_of(service)
        reasons = reasons_to_keep(own.values(), policy, self._needs[service.name].releases, self._now)
        try:
            over = self._ended({use.run for use, reason in reasons.items() if reason is None})
        except CdError as error:
            self._say(f"{service.name}: not known which of its runs have ended: {error}")
            self._problems[service.name] = f"nothing is removed, its runs are not known: {error}"
            return
        for name, use in own.items():
            reason = reasons[use]
            self._reasons[name] = _NOT_OVER if reason is None and not over[use.run] else reason

    def _ended(self, runs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], bool]:
        """Tell of each run whether it has ended. :raises CdError: that is not known"""
        asked: dict[str, set[str]] = defaultdict(set)
        for dag_id, run_id in runs:
            if (dag_id, run_id) not in self._over:
                asked[dag_id].add(run_id)
        for dag_id, run_ids in asked.items():
            unfinished = self._unfinished(dag_id, run_ids)
            self._over.update({(dag_id, run_id): run_id not in unfinished for run_id in run_ids})
        return self._over

    def _kept(self) -> list[Use]:
        """Return the uses that stay, those of services that were not judged among them."""
        return [use for name, use in self._uses.items() if self._reasons.get(name, "not judged") is not None]

    def _spare_what_was_just_used(self) -> None:
        needed, fresh = self._needed, set()
        dropped = [name for name, reason in self._reasons.items() if reason is None and name in self._live]
        for digest in {digest for name in dropped for digest in self._uses[name].blobs} - needed:
            stored = self._store.look("blob", digest)
            if stored is not None and self._is_fresh(stored):
                fresh.add(digest)
        for name in dropped:
            use = self._uses[name]
            if self._now - use.at < GRACE or not fresh.isdisjoint(use.blobs):
                self._reasons[name] = _JUST_USED
        del self._needed

    @cached_property
    def _needed(self) -> set[str]:
        """Return the digests of blobs that stay."""
        environments = (needs.blobs for needs in self._needs.values())
        return set().union(*(use.blobs for use in self._kept()), *environments)

    @cached_property
    def _kept_results(self) -> set[tuple[str, str]]:
        return {(use.kind, use.name) for use in self._kept()}

    @cached_property
    def _uses_of(self) -> Mapping[str, Mapping[str, Use]]:
        """Return service -> its uses by reference."""
        found: dict[str, dict[str, Use]] = defaultdict(dict)
        for name, use in self._uses.items():
            found[service_of(name)][name] = use
        return found

    @cached_property
    def _images(self) -> Mapping[str, list[str]]:
        """Return the digest of an image -> references by which it is found again."""
        found: dict[str, list[str]] = defaultdict(list)
        for stored in self._store.refs("images"):
            if not stored.name.startswith("images/newest/"):
                found[str((self._store.get_ref(stored.name) or {}).get("digest"))].append(stored.name)
        return found

    def _is_fresh(self, stored: Stored) -> bool:
        return self._now - stored.changed < GRACE

    def _collect(self, service: Service) -> None:
        if problem := self._problems.get(service.name):
            own = [name for name in self._uses_of[service.name] if name in self._live]
            self._rows.append(Row(service.name, "releases", Tally(), Tally(len(own)), problem, False))
            return
        self._say(f"{service.name}: collecting what is not kept")
        decisions = self._collect_decisions(service.name)
        for kind in ("release", "workspace"):
            self._rows.append(self._collect_uses(service.name, kind))
        self._rows.append(decisions)

    def _report_foreign(self) -> None:
        known = {service.name for service in self._services}
        for name in sorted(set(self._uses_of) - known):
            kept = Tally(sum(one in self._live for one in self._uses_of[name]))
            self._rows.append(Row(name, "releases", kept=kept, why="not a service of this file"))

    def _collect_uses(self, service: str, kind: str) -> Row:
        own = {name: use for name, use in self._uses_of[service].items() if use.kind == kind}
        removed, gone = 0, set()
        for name, use in own.items():
            if self._reasons[name] is None and name in self._live:
                size = self._remove_use(name, use, service)
                if size is not None:
                    gone.add(use.manifest or use.name)
                    removed += size
        kept = {use.manifest or use.name: why for name, use in own.items() if (why := self._reasons[name])}
        blobs = {digest for name, use in own.items() if self._reasons[name] for digest in use.blobs}
        count = Tally(len(gone - set(kept)), removed)
        return Row(service, f"{kind}s", count, Tally(len(kept), self._size_of(blobs)), summed(kept.values()))

    def _remove_use(self, name: str, use: Use, service: str) -> int | None:
        """Return how many bytes went with it, ``None`` where a part of it is used again."""
        sizes = [self._remove("blob", digest, service) for digest in set(use.blobs) - self._needed]
        pointers = [self._remove("ref", one, service) for one in self._pointers_to(use)]
        if None in sizes or None in pointers or self._remove("ref", name, service) is None:
            return None
        return sum(size or 0 for size in sizes)

    def _pointers_to(self, use: Use) -> Sequence[str]:
        """Return what leads later builds to a use's result, unless others keep that."""
        if (use.kind, use.name) in self._kept_results:
            return ()
        if use.kind == "workspace":
            return (f"builds/{use.name}",)
        return () if use.name in use.blobs else self._images[use.name]

    def _size_of(self, digests: Iterable[str]) -> int:
        return sum(stored.size for one in digests if (stored := self._store.look("blob", one)))

    def _remove(self, kind: Literal["blob", "ref"], name: str, owner: str) -> int | None:
        """
        Remove something. Return its size: 0 where there is none, ``None`` where it was used meanwhile.

        :raises ArtifactError: what is needed was read too long ago
        """
        if time.monotonic() - self._began > _LONGEST_SECONDS:
            raise ArtifactError("the collection took too long to rely on what it knows; run it again")
        stored = self._store.look(kind, name)
        if stored is None:
            return 0
        if self._options.dry_run:
            is_new = (kind, name) not in self._counted
            self._counted.add((kind, name))
            return stored.size if is_new else 0
        if self._is_fresh(stored):
            return None
        if not self._store.discard(stored, owner, self._now):
            return None if self._store.look(kind, name) else 0
        return stored.size

    def _collect_decisions(self, service: str) -> Row:
        """Decisions go with the release they are about."""
        removed, kept, reasons = Tally(), Tally(), []
        policy = next(self._options.policy_of(one) for one in self._services if one.name == service)
        for stored in self._store.refs(f"approvals/{service}"):
            reason = self._reason_of_decision(stored, service, self._store.get_ref(stored.name), policy)
            size = None if reason else self._remove("ref", stored.name, service)
            if size is None:
                kept = kept.plus(Tally(1, stored.size))
                reasons.append(reason or _JUST_USED)
            else:
                removed = removed.plus(Tally(1, size))
        return Row(service, "decisions", removed, kept, summed(reasons))

    def _reason_of_decision(
        self, stored: Stored, service: str, value: dict[str, Any] | None, policy: Retention
    ) -> str | None:
        if self._now - stored.changed < max(policy.younger_than, GRACE):
            return "young"
        run, manifest = _asked(value)
        own = self._uses_of[service].items()
        about = [name for name, use in own if use.run == run or (manifest and use.manifest == manifest)]
        if any(self._reasons[name] is not None for name in about):
            return "about a release that is kept"
        old = self._options.unrecorded is not None and self._now - stored.changed > self._options.unrecorded
        if not about and not old:
            return "about a release without a record of its use"
        try:
            return None if self._ended({run})[run] else _NOT_OVER
        except CdError as error:
            return f"not known whether its run has ended: {error}"

    def _collect_unrecorded(self, age: timedelta) -> None:
        """Remove what no use names, where everything in the store is known."""
        if problem := self._why_not_all_is_known():
            self._rows.append(Row("-", "unrecorded", why=problem, is_complete=False))
            return
        named = {digest for use in self._uses.values() for digest in use.blobs} | self._needed
        builds = {use.name for use in self._uses.values() if use.kind == "workspace"}
        removed, kept = Tally(), Tally()
        for stored in self._store.refs("builds"):
            if stored.name.partition("/")[2] in builds:
                continue
            workspace = (self._store.get_ref(stored.name) or {}).get("workspace")
            if self._now - stored.changed < age:
                named.add(str(workspace))
            else:
                self._remove("ref", stored.name, _UNRECORDED)
        for stored in self._store.blobs():
            if stored.name in named:
                continue
            is_old = self._now - stored.changed > max(age, GRACE) and stored.size >= _SMALLEST_UNRECORDED
            size = self._remove("blob", stored.name, _UNRECORDED) if is_old else None
            if size is None:
                kept = kept.plus(Tally(1, stored.size))
            else:
                removed = removed.plus(Tally(1, size))
        why = "younger, or documents of releases" if kept.count else ""
        self._rows.append(Row("-", "unrecorded", removed, kept, why))

    def _why_not_all_is_known(self) -> str | None:
        if self._problems:
            return f"nothing is removed: not everything is known of {', '.join(sorted(self._problems))}"
        known = {service.name for service in self._services}
        if not known <= set(self._chosen):
            return "nothing is removed: this takes all services of the file"
        kinds = (USES, "approvals", "ready")
        there = {stored.name.split("/")[1] for kind in kinds for stored in self._store.refs(kind)}
        if foreign := sorted(there - known):
            return f"nothing is removed: the store has services of other files, too: {', '.join(foreign)}"
        return None

    def _empty_trash(self, discarded: Iterable[Discarded]) -> None:
        """Delete what has lain there for long enough, and take back what is needed after all."""
        deleted: dict[str, Tally] = defaultdict(Tally)
        kept: dict[str, Tally] = defaultdict(Tally)
        names = {name for name in self._chosen if name not in self._problems}
        owners = names | ({_UNRECORDED} if self._why_not_all_is_known() is None else set())
        needed = _Needed(self._needed, self._kept(), self._reasons)
        for one in discarded:
            if one.owner not in owners:
                continue
            if needed.has(one, self._store):
                self._say(f"{one.owner}: {one.name} is needed after all, and taken back")
                if not self._options.dry_run:
                    self._store.take_back(one)
            elif self._now - one.at < GRACE:
                kept[one.owner] = kept[one.owner].plus(Tally(1, one.size))
            elif self._options.dry_run or self._store.delete(one):
                deleted[one.owner] = deleted[one.owner].plus(Tally(1, one.size))
        for owner in sorted({*deleted, *kept}):
            name = "-" if owner == _UNRECORDED else owner
            why = "can be taken back for a day" if kept[owner].count else ""
            self._rows.append(Row(name, "trash", deleted[owner], kept[owner], why))


class _Needed:
    """What of the trash is needed after all."""

    def __init__(self, blobs: set[str], kept: Iterable[Use], reasons: Mapping[str, str | None]) -> None:
        self._blobs, self._reasons = blobs, reasons
        kept = list(kept)
        self._runs = {use.run for use in kept}
        self._manifests = {use.manifest for use in kept if use.manifest}
        self._names = {use.name for use in kept}

    def has(self, one: Discarded, store: CollectableStore) -> bool:
        if one.kind == "blob":
            return one.name in self._blobs
        kind, _, rest = one.name.partition("/")
        if kind == USES:
            return self._reasons.get(one.name) is not None
        if kind == "builds":
            return rest in self._names
        value = store.read_discarded(one)
        if kind == "images":
            return (value or {}).get("digest") in self._names
        run, manifest = _asked(value)
        return run in self._runs or manifest in self._manifests


def _asked(decision: Mapping[str, Any] | None) -> tuple[tuple[str, str], str | None]:
    """Return the run that asked for a decision, and the manifest it is about; see ``releases.decisions``."""
    value = decision or {}
    about = value.get("decision") or {}
    return (str(value.get("dag_id")), str(value.get("run_id"))), about.get("manifest")
