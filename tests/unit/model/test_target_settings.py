"""Kinds of targets that other packages add: found when a file names one, and reported like any other key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import ClassVar

import pytest
from pydantic import Field

from airflow_cd.exceptions import TargetError
from airflow_cd.model import target_settings
from airflow_cd.model.environment import Environment
from airflow_cd.model.services_file.loader import Definitions, load_services
from airflow_cd.model.target_settings import TargetSettings
from airflow_cd.targets.base import Access
from airflow_cd.targets.registry import open_target

HERE = "tests.unit.model.test_target_settings"


class Shelf(TargetSettings):
    adapter: ClassVar[str] = "no_such_module:ShelfTarget"
    address_key: ClassVar[str] = "board"
    board: str
    width: int = Field(1, ge=1)

    @property
    def address(self) -> tuple[str, ...]:
        return "shelf", self.board


class WithoutAdapter(TargetSettings):
    pass


class Entry(EntryPoint):
    """An entry point of a package that is not installed."""

    _things: ClassVar[dict[str, object]] = {"Shelf": Shelf, "WithoutAdapter": WithoutAdapter}

    def load(self) -> object:
        module, _, attribute = self.value.partition(":")
        if module != HERE:
            raise ImportError(f"No module named {module!r}")
        return self._things[attribute]


Declare = Callable[..., None]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Iterator[Declare]:
    """Declare kinds, as ``kind=value`` of their entry points."""
    found: list[EntryPoint] = []

    def add(package: str = "shelves", **kinds: str) -> None:
        for name, value in kinds.items():
            entry = Entry(name, value, target_settings.GROUP)
            vars(entry)["dist"] = SimpleNamespace(name=package)
            found.append(entry)

    monkeypatch.setattr(target_settings, "entry_points", lambda group: tuple(found))
    forget()
    yield add
    forget()


def forget() -> None:
    target_settings._declared.cache_clear()
    target_settings.settings_class.cache_clear()


def load(tmp_path: Path, *targets: str) -> Definitions:
    text = "services:\n"
    for n, target in enumerate(targets):
        text += f"""\
- name: service{n}
  pipeline: deployment
  source: {{repository: /srv/git/a.git}}
  environments:
  - name: production
    target: {target}
"""
    file = tmp_path / "services.yaml"
    file.write_text(dedent(text))
    return load_services(file)


def test_a_kind_of_another_package_is_validated_by_its_settings(tmp_path: Path, declare: Declare) -> None:
    declare(shelf=f"{HERE}:Shelf")
    found = load(tmp_path, "{shelf: {board: oak, width: 2}}")
    assert found.errors == ()
    target = found.services[0].production.target
    assert (target.kind, target.settings) == ("shelf", Shelf(board="oak", width=2))
    assert (target.takes, target.settings.capabilities, target.described) == ("archive", frozenset(), "Shelf")


def test_an_environment_survives_its_way_to_the_triggerer(tmp_path: Path, declare: Declare) -> None:
    declare(shelf=f"{HERE}:Shelf")
    environment = load(tmp_path, "{shelf: {board: oak}}").services[0].production
    sent = environment.model_dump(mode="json")
    assert sent["target"]["shelf"] == {"board": "oak", "width": 1}
    assert Environment.model_validate(sent) == environment
    assert Environment.model_validate_json(environment.model_dump_json()) == environment


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{shelf: {bord: oak}}", ["unknown key 'bord'", "Did you mean 'board'?", "board, width"]),
        ("{shelf: {board: oak, width: 0}}", ["target.shelf.width", "got 0"]),
        ("{shelf: oak}", ["target.shelf", "'oak'", "mapping"]),
        ("{shelf: {board: oak}, local: {command: [a], port: 1}}", ["exactly one kind"]),
        ("{shlf: {board: oak}}", ["no target 'shlf'", "Did you mean 'shelf'?", "airflow_cd.targets"]),
        ("{gone: {}}", ["'gone' of the package shelves", "No module named 'no_module'", "Install shelves"]),
        ("{wrong: {}}", ["'wrong' of the package shelves", "no TargetSettings class", "authors of shelves"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, declare: Declare, target: str, says: list[str]
) -> None:
    declare(shelf=f"{HERE}:Shelf", gone="no_module:Gone", wrong=f"{HERE}:WithoutAdapter")
    found = load(tmp_path, target, "{local: {command: [a], port: 9001}}")
    assert [one.name for one in found.services] == ["service1"]
    text = "\n".join(str(error) for error in found.errors)
    assert "services.yaml:7: " in text
    for part in says:
        assert part in text


def test_a_name_that_two_packages_declare_is_refused(tmp_path: Path, declare: Declare) -> None:
    declare(shelf=f"{HERE}:Shelf")
    declare(package="cupboards", shelf=f"{HERE}:Shelf")
    (error,) = load(tmp_path, "{shelf: {board: oak}}").errors
    assert "'shelf' is declared by cupboards and shelves" in str(error)


def test_two_environments_cannot_have_one_address(tmp_path: Path, declare: Declare) -> None:
    declare(shelf=f"{HERE}:Shelf")
    (error,) = load(tmp_path, "{shelf: {board: oak}}", "{shelf: {board: oak}}").errors
    assert "would use the same board (got 'oak'). Choose another board" in str(error)


def test_a_kind_of_this_package_is_not_replaced_and_nothing_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(group: str) -> None:
        raise AssertionError("the metadata of all packages is read for a kind of this package")

    monkeypatch.setattr(target_settings, "entry_points", refuse)
    forget()
    assert load(tmp_path, "{local: {command: [a], port: 9001}}").errors == ()


def test_a_kind_this_version_lacks_can_come_from_a_package(tmp_path: Path, declare: Declare) -> None:
    declare(ecs=f"{HERE}:Shelf")
    assert load(tmp_path, "{ecs: {board: oak}}").errors == ()


def test_an_environment_made_in_python_is_checked_too(declare: Declare) -> None:
    with pytest.raises(ValueError, match="there is no target 'shelf'. Install the package"):
        Environment.model_validate({"name": "production", "target": {"shelf": {}}})


def test_an_adapter_that_cannot_be_imported_is_named(tmp_path: Path, declare: Declare) -> None:
    declare(shelf=f"{HERE}:Shelf")
    environment = load(tmp_path, "{shelf: {board: oak}}").services[0].production
    with pytest.raises(
        TargetError, match="target 'shelf' cannot be imported from no_such_module:ShelfTarget"
    ):
        open_target("hello", environment, Access(tmp_path, lambda archive, folder: None))
