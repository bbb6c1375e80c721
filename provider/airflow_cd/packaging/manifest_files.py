"""Reads Kubernetes objects from files of the source: inside the tree only, bounded, plain data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.services_file.yaml_lines import UniqueKeysLoader
from airflow_cd.model.text import printable
from airflow_cd.model.yaml_limits import DEEPEST, YamlLimitError, check_depth, written_out

# Of all the text a release's objects are read from, and of what it says with every alias written out. The
# cluster takes 1.5 MiB of one object, and what a release consists of is kept there, compressed, in 1 MiB.
MAX_BYTES = 2 * 1024 * 1024
_TAG = "tag:yaml.org,2002:"
_UNQUOTED = ("bool", "int", "float", "null", "merge")
# As Kubernetes' own reader has them: 12:30 is text and not 750, a date is text.
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class Found(NamedTuple):
    """
    One document.

    :param where: file, number of the document, and line, for people
    """

    where: str
    content: Any


class _Loader(UniqueKeysLoader):
    """What stands there unquoted is what Kubernetes takes it for."""

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        tag = str(super().resolve(kind, value, implicit))
        if kind is not yaml.ScalarNode or not implicit[0]:
            return tag
        plain = tag.removeprefix(_TAG) in _UNQUOTED and not _SEXAGESIMAL.fullmatch(value)
        return tag if plain else f"{_TAG}str"


def documents(text: str, name: str) -> list[Found]:
    """
    Return what a file says, document by document; empty ones are left out.

    :param name: of the file, for messages; one that ends in ``.json`` is read as JSON
    :raises ManifestError: it says nothing that can be read, or too much
    """
    if name.endswith(".json"):
        found = Found(f"{name}, document 1", _json(text, name))
        _check_plain(found.content, found.where)
        return [found]
    return [found for found in _yaml(text, name) if found.content is not None]


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{name}, line {error.lineno}: this is not valid JSON: {error.msg}") from error
    except ValueError as error:
        raise ManifestError(f"{name}, document 1: {error}; correct the file") from error
    except RecursionError as error:
        raise ManifestError(f"{name}, document 1: this is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number that Kubernetes knows")


def _yaml(text: str, name: str) -> Iterator[Found]:
    number, line = 1, 1
    try:
        check_depth(text)
        loader: Any = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            line = node.start_mark.line + 1
            where = f"{name}, document {number} (line {line})"
            if written_out(node) > MAX_BYTES:
                raise ManifestError(
                    f"{where}: with its aliases written out this is larger than {MAX_BYTES} bytes; "
                    "write it without so many anchors"
                )
            content = loader.construct_document(node)
            _check_plain(content, where)
            yield Found(where, content)
            number += 1
    except YamlLimitError as error:
        at = f"line {error.line}" if error.line else f"document {number}"
        raise ManifestError(f"{name}, {at}: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}" if mark else f"document {number}"
        problem = f"this is not valid YAML: {error.problem or error.context}"
        raise ManifestError(f"{name}, {at}: {problem}; correct the file") from error
    # PyYAML takes apart what a tag such as !!bool stands before without a look at it.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        raise ManifestError(
            f"{name}, document {number} (line {line}): this is not valid YAML: {error}; correct the file"
        ) from error


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """
    Make sure that JSON can say it.

    :raises ManifestError: it cannot
    """
    if depth > DEEPEST:
        raise ManifestError(f"{where}: this is nested too deeply, more than {DEEPEST} levels; flatten it")
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):
                raise ManifestError(f"{where}: the key {key!r} is not text; quote it")
            _check_plain(one, where, depth + 1)
    elif isinstance(value, list):
        for one in value:
            _check_plain(one, where, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ManifestError(f"{where}: {value} is not a number that Kubernetes knows; quote it")
    elif not (value is None or isinstance(value, (str, int, float))):
        kind = type(value).__name__
        raise ManifestError(
            f"{where}: a value of the kind {kind} is nothing Kubernetes knows; remove its tag"
        )


_LONGEST_NAME = 200


def inside(path: Path, tree: Path, name: str) -> Path:
    """
    Return the file or folder that a path leads to, without links.

    :param tree: without links in its own path
    :param name: of the path, for messages
    :raises ManifestError: there is none, or it is outside the tree
    """
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = "leads in a circle" if isinstance(error, RuntimeError) else "does not exist"
        raise ManifestError(
            f"{shown(name)}: this {reason} in the source; correct the name, or commit the file"
        ) from error
    if not found.is_relative_to(tree):
        raise ManifestError(
            f"{shown(name)}: this leads out of the source, by a link or by `..`; keep the file there"
        )
    return found


def read(file: Path, name: str) -> str:
    """
    Return the text of a file.

    :raises ManifestError: it is no file, too large, or not UTF-8
    """
    if not file.is_file():
        raise ManifestError(f"{name}: this is not a file; remove or rename it")
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{name}: this is larger than {MAX_BYTES} bytes; keep only manifests here")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def shown(name: str) -> str:
    """Return a name from outside, fit for a message."""
    return printable(name, _LONGEST_NAME)


def relative(path: Path, tree: Path) -> str:
    """Return the name of a path of the tree as a message can carry it."""
    return shown(path.relative_to(tree).as_posix())
