"""A YAML document that still knows its lines. Lines are looked for only when something is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import yaml

from airflow_cd.exceptions import DefinitionError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Place = Sequence[str | int]


class _UniqueKeysLoader(_Loader):
    """YAML lets a key that is given twice win silently; here it does not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value) and (twice := _twice(node)) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice.value!r} is given twice", twice.start_mark
            )
        return mapping


class Document:
    """
    A parsed YAML file.

    :param text: its content
    :param path: its name, for messages
    :param content: what the text says, when that is known already
    :raises DefinitionError: it is not YAML, or a key is given twice
    """

    def __init__(self, text: str, path: str, content: Any = None) -> None:
        self._text, self.path = text, path
        self.content: Any = content if content is not None else self._parse()

    def _parse(self) -> Any:
        try:
            return yaml.load(self._text, _UniqueKeysLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise DefinitionError(
                f"this is not valid YAML: {error.problem or error.context}",
                path=self.path,
                line=mark.line + 1 if mark else None,
                remedy="Correct the file; nothing in it can be loaded until then",
            ) from error
        except (yaml.YAMLError, ValueError) as error:
            raise DefinitionError(f"this is not valid YAML: {error}", path=self.path) from error

    def line(self, place: Place) -> tuple[int, int]:
        """
        Return the line of a place (keys and indices from the top), and how many of its steps exist.

        A step that does not exist is left out, so the line is that of the closest thing around it.
        """
        node, line, depth = self._root, self._root.start_mark.line + 1 if self._root else 1, 0
        for step in place:
            found = _step(node, step)
            if found is None:
                continue
            mark, node = found
            line, depth = mark.line + 1, depth + 1
        return line, depth

    @cached_property
    def _root(self) -> yaml.Node | None:
        root: yaml.Node | None = yaml.compose(self._text, _Loader)
        return root


def _step(node: yaml.Node | None, step: str | int) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None


def _twice(node: yaml.MappingNode) -> Any:
    seen = set()
    for key, _ in node.value:
        if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
            return key
        seen.add(key.value)
    return None
