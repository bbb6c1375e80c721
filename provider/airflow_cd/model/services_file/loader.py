"""Loads a services file into services, trains and clusters, and checks that they fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.service import Service
from airflow_cd.model.services_file.errors import ErrorCollector, closest, explain, telling
from airflow_cd.model.services_file.kinds import check_kind, kinds_named
from airflow_cd.model.services_file.yaml_lines import LONGEST_FILE, Document, Place, merged
from airflow_cd.model.train import Train, departure_order
from airflow_cd.model.window import Freeze

if TYPE_CHECKING:
    from airflow_cd.model.cluster import Cluster
    from airflow_cd.model.retention import Maintenance


def check_names(found: ErrorCollector, what: str, entries: list[Any]) -> None:
    """
    Report names that occur twice.

    :param what: ``service``, say, for entries under ``services``
    """
    first: dict[str, int] = {}
    for i, raw in enumerate(entries):
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            line, _ = found.document.line((f"{what}s", first[name], "name"))
            found.report(
                (f"{what}s", i, "name"),
                f"there are two {what}s of this name, the other one in line {line}",
                name,
                "Rename one of them",
            )
        else:
            first[name] = i


def check_addresses(found: ErrorCollector, services: Mapping[int, Service]) -> None:
    """Report environments that would use another one's address, such as a port."""
    owners: dict[tuple[str, ...], str] = {}
    for i, service in services.items():
        for n, environment in enumerate(service.environments):
            settings, key = environment.target.settings, environment.target.settings.address_key
            # Objects of a cluster name their owner themselves: that target has no such address.
            if settings.address is None:
                continue
            here = f"{service.name} in {environment.name}"
            owner = owners.setdefault(settings.address, here)
            if owner != here:
                found.report(
                    ("services", i, "environments", n, "target", environment.target.kind, key),
                    f"{here} and {owner} would {'listen on' if key == 'port' else 'use'} the same {key}",
                    getattr(settings, key, None),
                    f"Choose another {key}",
                    service=service.name,
                )


def check_trains(
    found: ErrorCollector,
    services: Mapping[int, Service],
    trains: dict[int, Train],
    *,
    named: set[str],
    broken_members: Mapping[str, set[str]],
) -> None:
    """
    Report members without a train and orders that cannot be kept; take the trains of those out.

    :param named: names of all trains of the file, those with errors too
    :param broken_members: by train, members with errors of their own: their absence is already an error
    """
    members: dict[str, set[str]] = {train.name: set() for train in trains.values()}
    for i, service in services.items():
        if service.train is None:
            continue
        if service.train in members:
            members[service.train].add(service.name)
        elif service.train not in named:
            found.report(
                ("services", i, "train"),
                f"service {service.name!r} names a train that does not exist",
                service.train,
                f"{closest(service.train, list(members))}Add it under `trains:`, or remove this line",
                service=service.name,
            )
    for i, train in list(trains.items()):
        before = len(found.errors)
        _check_order(found, i, train, members[train.name] | broken_members.get(train.name, set()))
        if len(found.errors) > before:  # one without its order would deploy in another one
            del trains[i]


def _check_order(found: ErrorCollector, i: int, train: Train, members: set[str]) -> None:
    for n, rule in enumerate(train.order):
        for name in (rule.service, *rule.after):
            if name not in members:
                found.report(
                    ("trains", i, "order", n),
                    f"the order of train {train.name!r} names a service that is not on it",
                    name,
                    f"{closest(name, sorted(members))}Add `train: {train.name}` to that service",
                )
    try:
        departure_order(members, train.order)
    except DefinitionError as error:
        found.report(("trains", i, "order"), f"train {train.name!r}: {error.problem}", remedy=error.remedy)


# Of one service: nobody reads more, and each takes its time to be explained.
_MOST_ERRORS = 50
_TOP = ("defaults", "services", "trains", "freezes", "clusters", "maintenance")


@dataclass(frozen=True)
class Definitions:
    """What a services file defines. What has an error is not among the others."""

    services: tuple[Service, ...]
    trains: tuple[Train, ...]
    errors: tuple[DefinitionError, ...]
    clusters: tuple[Cluster, ...] = ()
    maintenance: Maintenance | None = None


def _parsed(text: str, path: str, only: str | None) -> Document:
    return Document(text, path)


def load_services(
    path: Path, only: str | None = None, parse: Callable[[str, str, str | None], Document] = _parsed
) -> Definitions:
    """
    Read a services file.

    :param only: name of the one service that is needed; the others are not looked at
    :param parse: reads the document from the text of the file, its name, and ``only``; it may leave out
        all services but that one
    :raises DefinitionError: the file as a whole cannot be used
    """
    text = _read(path)
    found = _Reader(parse(text, str(path), only)).definitions(only)
    if found.errors and only is not None:
        # With services left out, the lines of errors are not right.
        return _Reader(Document(text, str(path))).definitions(only)
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
        if len(content) > LONGEST_FILE:
            raise DefinitionError(
                f"the services file is larger than {LONGEST_FILE >> 20} MiB",
                path=str(path),
                remedy="Part it: each DAG file can load a services file of its own",
            )
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        raise DefinitionError(
            "the services file does not exist",
            path=str(path),
            remedy="Create it, or correct the name given to load_dags()",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"the services file cannot be read: {error}", path=str(path)) from error


class _Reader:
    def __init__(self, document: Document) -> None:
        self._found = ErrorCollector(document)
        content = document.content
        if not isinstance(content, dict):
            empty = content is None
            raise self._found.error(
                (),
                "the services file is empty" if empty else "the services file is not a mapping",
                remedy="Write `services:` and a list of services",
            )
        for key in content:
            if key not in _TOP:
                known = f"{closest(key, _TOP)}Known keys here: {', '.join(_TOP)}"
                raise self._found.error((key,), f"unknown key {key!r}", remedy=known)
        self._defaults = self._part("defaults", dict)
        self._services = self._part("services", list)
        self._trains = self._part("trains", list)
        self._clusters = self._part("clusters", list)
        self._freezes = self._valid_freezes()

    def definitions(self, only: str | None) -> Definitions:
        services = dict(self._valid_services(only))
        trains: dict[int, Train] = {}
        clusters: tuple[Cluster, ...] = ()
        maintenance = None
        if only is None:
            check_names(self._found, "service", self._services)
            check_names(self._found, "train", self._trains)
            check_addresses(self._found, services)
            trains = {i: train for i, raw in enumerate(self._trains) if (train := self._train(i, raw))}
            check_trains(
                self._found,
                services,
                trains,
                named={str(raw.get("name")) for raw in self._trains if isinstance(raw, dict)},
                broken_members=self._broken_members(),
            )
            clusters = tuple(self._valid_clusters()) if self._clusters else ()
            maintenance = self._maintenance()
        return Definitions(
            services=tuple(service for i, service in services.items() if i not in self._found.broken),
            trains=tuple(trains.values()),
            errors=tuple(self._found.errors),
            clusters=clusters,
            maintenance=maintenance,
        )

    def _part(self, key: str, kind: type) -> Any:
        value = self._found.document.content.get(key)
        if value is None:
            return kind()
        if not isinstance(value, kind):
            wanted = "a list" if kind is list else "a mapping"
            raise self._found.error((key,), f"{key!r} is not {wanted}", value, f"Write {wanted} under it")
        return value

    def _valid_freezes(self) -> tuple[Freeze, ...]:
        """
        Return what is frozen for every service.

        :raises DefinitionError: one is wrong. Leaving it out would let through what it was to hold.
        """
        freezes = self._part("freezes", list)
        found = [self._validate(Freeze, raw, ("freezes", i), None) for i, raw in enumerate(freezes)]
        if self._found.errors:
            raise self._found.errors[0]
        return tuple(found)

    def _valid_services(self, only: str | None) -> Iterator[tuple[int, Service]]:
        for i, raw in enumerate(self._services):
            if not isinstance(raw, dict):
                self._found.report(("services", i), "a service is not a mapping", raw, "Write `- name: ...`")
                continue
            if only is not None and raw.get("name") != only:
                continue
            whole = merged(self._defaults, raw) if self._defaults else raw
            if self._check_kinds(i, whole):
                service = self._validate(Service, whole, ("services", i), str(raw.get("name")))
                if service is not None:
                    yield i, self._frozen(service)
            if only is not None:
                return  # the name of a second one is an error, the first one has it

    def _frozen(self, service: Service) -> Service:
        if not self._freezes:
            return service
        return service.model_copy(update={"freezes": (*self._freezes, *service.freezes)})

    def _check_kinds(self, i: int, raw: Mapping[str, Any]) -> bool:
        """Kinds come before keys: a missing extra is not an unknown key."""
        before = len(self._found.errors)
        for place, family, name in kinds_named(raw):
            try:
                check_kind(family, name)
            except DefinitionError as error:
                self._found.report(
                    ("services", i, *place), error.problem, remedy=error.remedy, service=str(raw.get("name"))
                )
        return len(self._found.errors) == before

    def _validate(self, model: type[Any], raw: Any, place: Place, service: str | None) -> Any:
        try:
            return model.model_validate(raw)
        except ValidationError as invalid:
            errors = telling(invalid.errors())
            prefix = f"service {service!r}: " if service else ""
            for error in errors[:_MOST_ERRORS]:
                problem, value, remedy = explain(error, model)
                self._found.report((*place, *error["loc"]), prefix + problem, value, remedy, service=service)
            if (more := len(errors) - _MOST_ERRORS) > 0:
                self._found.report(place, f"{prefix}there are {more} more errors", service=service)
        return None

    def _train(self, i: int, raw: Any) -> Train | None:
        train: Train | None = self._validate(Train, raw, ("trains", i), None)
        return train

    def _maintenance(self) -> Maintenance | None:
        """Return when to remove what is not kept, ``None`` where the file does not say."""
        if "maintenance" not in self._found.document.content:
            return None
        from airflow_cd.model.retention import Maintenance

        found: Maintenance | None = self._validate(
            Maintenance, self._part("maintenance", dict), ("maintenance",), None
        )
        return found

    def _valid_clusters(self) -> Iterator[Cluster]:
        # Few files have them: imported when one has.
        from airflow_cd.model.cluster import Cluster

        check_names(self._found, "cluster", self._clusters)
        names: set[str] = set()
        for i, raw in enumerate(self._clusters):
            cluster: Cluster | None = self._validate(Cluster, raw, ("clusters", i), None)
            # Two of one name would have one DAG; the first one keeps it.
            if cluster is not None and cluster.name not in names:
                names.add(cluster.name)
                yield cluster

    def _broken_members(self) -> dict[str, set[str]]:
        """Return the names of services that have errors, by the train they would be on."""
        members: dict[str, set[str]] = {}
        for i in self._found.broken:
            raw = self._services[int(i)]
            if isinstance(raw, dict) and (train := raw.get("train", self._defaults.get("train"))):
                members.setdefault(str(train), set()).add(str(raw.get("name")))
        return members
