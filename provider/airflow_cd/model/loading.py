"""Reads a services file into services, trains, clusters, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.document import Document, Place, merged
from airflow_cd.model.freeze import Freeze
from airflow_cd.model.kinds import check_kind, kinds_named
from airflow_cd.model.messages import closest, explain, shorten, telling
from airflow_cd.model.service import Service
from airflow_cd.model.train import Train, departure_order

if TYPE_CHECKING:
    from airflow_cd.model.cluster import Cluster

_TOP = ("defaults", "services", "trains", "freezes", "clusters")


@dataclass(frozen=True)
class Definitions:
    """What a services file defines. What has an error is not among the others."""

    services: tuple[Service, ...]
    trains: tuple[Train, ...]
    errors: tuple[DefinitionError, ...]
    clusters: tuple[Cluster, ...] = ()


def _parsed(text: str, path: str, only: str | None) -> Document:
    return Document(text, path)


def load_services(
    path: Path, only: str | None = None, parse: Callable[[str, str, str | None], Document] = _parsed
) -> Definitions:
    """
    Read a services file.

    :param only: name of the one service that is needed; the others are not looked at
    :param parse: makes the document of the file's text, its name, and ``only``, of which it may leave out
        the other services
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
        return path.read_text(encoding="utf-8")
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
        self._document = document
        self._errors: list[DefinitionError] = []
        self._broken: set[str | int] = set()  # indices of services
        content = document.content
        if not isinstance(content, dict):
            empty = content is None
            raise self._error(
                (),
                "the services file is empty" if empty else "the services file is not a mapping",
                remedy="Write `services:` and a list of services",
            )
        for key in content:
            if key not in _TOP:
                known = f"{closest(key, _TOP)}Known keys here: {', '.join(_TOP)}"
                raise self._error((key,), f"unknown key {key!r}", remedy=known)
        self._defaults = self._part("defaults", dict)
        self._services = self._part("services", list)
        self._trains = self._part("trains", list)
        self._clusters = self._part("clusters", list)
        self._freezes = self._valid_freezes()

    def definitions(self, only: str | None) -> Definitions:
        services = dict(self._valid_services(only))
        trains: dict[int, Train] = {}
        clusters: tuple[Cluster, ...] = ()
        if only is None:
            self._check_names("service", self._services)
            self._check_names("train", self._trains)
            self._check_addresses(services)
            trains = {i: train for i, raw in enumerate(self._trains) if (train := self._train(i, raw))}
            self._check_trains(services, trains)
            clusters = tuple(self._valid_clusters()) if self._clusters else ()
        return Definitions(
            services=tuple(service for i, service in services.items() if i not in self._broken),
            trains=tuple(trains.values()),
            errors=tuple(self._errors),
            clusters=clusters,
        )

    def _part(self, key: str, kind: type) -> Any:
        value = self._document.content.get(key)
        if value is None:
            return kind()
        if not isinstance(value, kind):
            wanted = "a list" if kind is list else "a mapping"
            raise self._error((key,), f"{key!r} is not {wanted}", value, f"Write {wanted} under it")
        return value

    def _valid_freezes(self) -> tuple[Freeze, ...]:
        """
        Return what is frozen for every service.

        :raises DefinitionError: one is wrong. Leaving it out would let through what it was to hold.
        """
        freezes = self._part("freezes", list)
        found = [self._validate(Freeze, raw, ("freezes", i), None) for i, raw in enumerate(freezes)]
        if self._errors:
            raise self._errors[0]
        return tuple(found)

    def _valid_services(self, only: str | None) -> Iterator[tuple[int, Service]]:
        for i, raw in enumerate(self._services):
            if not isinstance(raw, dict):
                self._report(("services", i), "a service is not a mapping", raw, "Write `- name: ...`")
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
        before = len(self._errors)
        for place, family, name in kinds_named(raw):
            try:
                check_kind(family, name)
            except DefinitionError as error:
                self._report(
                    ("services", i, *place), error.problem, remedy=error.remedy, service=str(raw.get("name"))
                )
        return len(self._errors) == before

    def _validate(self, model: type[Any], raw: Any, place: Place, service: str | None) -> Any:
        try:
            return model.model_validate(raw)
        except ValidationError as invalid:
            for error in telling(invalid.errors()):
                problem, value, remedy = explain(error, model)
                prefix = f"service {service!r}: " if service else ""
                self._report((*place, *error["loc"]), prefix + problem, value, remedy, service=service)
        return None

    def _train(self, i: int, raw: Any) -> Train | None:
        train: Train | None = self._validate(Train, raw, ("trains", i), None)
        return train

    def _valid_clusters(self) -> Iterator[Cluster]:
        # Few files have them: imported when one has.
        from airflow_cd.model.cluster import Cluster

        self._check_names("cluster", self._clusters)
        names: set[str] = set()
        for i, raw in enumerate(self._clusters):
            cluster: Cluster | None = self._validate(Cluster, raw, ("clusters", i), None)
            # Two of one name would have one DAG; the first one keeps it.
            if cluster is not None and cluster.name not in names:
                names.add(cluster.name)
                yield cluster

    def _check_names(self, what: str, entries: list[Any]) -> None:
        first: dict[str, int] = {}
        for i, raw in enumerate(entries):
            name = raw.get("name") if isinstance(raw, dict) else None
            if not isinstance(name, str):
                continue
            if name in first:
                line, _ = self._document.line((f"{what}s", first[name], "name"))
                self._report(
                    (f"{what}s", i, "name"),
                    f"there are two {what}s of this name, the other one in line {line}",
                    name,
                    "Rename one of them",
                )
            else:
                first[name] = i

    def _check_addresses(self, services: Mapping[int, Service]) -> None:
        owners: dict[tuple[str, ...], str] = {}
        for i, service in services.items():
            for n, environment in enumerate(service.environments):
                target = environment.target
                if target.kubernetes is not None:  # objects know whose they are; see its `take`
                    continue
                here = f"{service.name} in {environment.name}"
                owner = owners.setdefault(target.address, here)
                if owner != here:
                    self._report(
                        ("services", i, "environments", n, "target", target.kind, "port"),
                        f"{here} and {owner} would listen on the same port",
                        int(target.address[-1]),
                        "Choose another port",
                        service=service.name,
                    )

    def _check_trains(self, services: Mapping[int, Service], trains: dict[int, Train]) -> None:
        members: dict[str, set[str]] = {train.name: set() for train in trains.values()}
        for i, service in services.items():
            if service.train is None:
                continue
            if service.train in members:
                members[service.train].add(service.name)
            elif not any(isinstance(raw, dict) and raw.get("name") == service.train for raw in self._trains):
                self._report(
                    ("services", i, "train"),
                    f"service {service.name!r} names a train that does not exist",
                    service.train,
                    f"{closest(service.train, list(members))}Add it under `trains:`, or remove this line",
                    service=service.name,
                )
        for i, train in list(trains.items()):
            before = len(self._errors)
            self._check_order(i, train, members[train.name] | self._broken_members(train.name))
            if len(self._errors) > before:  # one without its order would deploy in another one
                del trains[i]

    def _broken_members(self, train: str) -> set[str]:
        """Return the names of members with errors of their own: that they are missing is told already."""
        raws = [raw for i, raw in enumerate(self._services) if i in self._broken and isinstance(raw, dict)]
        default = self._defaults.get("train")
        return {str(raw.get("name")) for raw in raws if raw.get("train", default) == train}

    def _check_order(self, i: int, train: Train, members: set[str]) -> None:
        for n, rule in enumerate(train.order):
            for name in (rule.service, *rule.after):
                if name not in members:
                    self._report(
                        ("trains", i, "order", n),
                        f"the order of train {train.name!r} names a service that is not on it",
                        name,
                        f"{closest(name, sorted(members))}Add `train: {train.name}` to that service",
                    )
        try:
            departure_order(members, train.order)
        except DefinitionError as error:
            self._report(
                ("trains", i, "order"), f"train {train.name!r}: {error.problem}", remedy=error.remedy
            )

    def _report(self, place: Place, problem: str, *args: Any, **kwargs: Any) -> None:
        self._errors.append(self._error(place, problem, *args, **kwargs))
        if place[:1] == ("services",):
            self._broken.add(place[1])

    def _error(
        self,
        place: Place,
        problem: str,
        value: Any = None,
        remedy: str | None = None,
        service: str | None = None,
    ) -> DefinitionError:
        line, depth = self._document.line(place)
        if place[:1] == ("services",) and len(place) > 2:
            # What is wrong may stand under `defaults`, which every service has a part in.
            default_line, default_depth = self._document.line(("defaults", *place[2:]))
            if default_depth - 1 > depth - 2:
                line = default_line
        return DefinitionError(
            problem,
            path=self._document.path,
            line=line,
            value=shorten(value),
            remedy=remedy,
            service=service,
        )
