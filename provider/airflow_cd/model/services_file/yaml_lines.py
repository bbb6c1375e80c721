"""A YAML document that knows its lines. Lines are computed only when an error needs them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

import yaml

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.yaml_limits import YamlLimitError, check_depth, check_number, written_out

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Place = Sequence[str | int]
# Of the file, and of what it says with every alias written out. A service takes less than 1 KiB.
LONGEST_FILE = 16 * 1024 * 1024


_STR, _MAP, _SEQ, _MERGE, _VALUE = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq", "merge", "value")
)


class UniqueKeysLoader(_Loader):
    """
    YAML lets a key that is given twice win silently; here it does not.

    Strings, and the mappings and lists around them, are nearly all of a services file. What PyYAML does with
    any node takes longer than reading the file, and so is left to the others.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def construct_document(self, node: yaml.Node) -> Any:
        """Return what the document says, where nothing contains itself (see ``written_out``)."""
        self._checked.clear()  # a stream's next document may have its nodes where those of the last one were
        return self._construct(node, {})

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take in what `<<` brings. A key of its own that comes that way too is not given twice."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            name = key.value if key.tag in (_STR, _VALUE) else self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                continue  # PyYAML says so
            if name in seen:
                problem = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(name)

    def _construct(self, node: yaml.Node, made: dict[int, Any]) -> Any:
        """Return what the node says. What an alias stands for is made once, however often it is used."""
        if node.tag == _STR and isinstance(node, yaml.ScalarNode):
            return node.value
        key = id(node)
        if key in made:
            return made[key]
        if node.tag == _MAP and isinstance(node, yaml.MappingNode) and _has_plain_keys(node):
            value: Any = {name.value: self._construct(one, made) for name, one in node.value}
        elif node.tag == _SEQ and isinstance(node, yaml.SequenceNode):
            value = [self._construct(one, made) for one in node.value]
        else:
            check_number(node)
            value = self.construct_object(node, deep=True)
        made[key] = value
        return value


def _has_plain_keys(node: yaml.MappingNode) -> bool:
    """Return whether its keys are strings, none of them twice."""
    names = {name.value for name, _ in node.value if name.tag == _STR and isinstance(name, yaml.ScalarNode)}
    return len(names) == len(node.value)


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
            return self._loaded()
        except YamlLimitError as error:
            raise DefinitionError(str(error), path=self.path, line=error.line) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise DefinitionError(
                f"this is not valid YAML: {error.problem or error.context}",
                path=self.path,
                line=mark.line + 1 if mark else None,
                remedy="Correct the file; nothing in it can be loaded until then",
            ) from error
        except RecursionError as error:
            raise DefinitionError("this is nested too deeply", path=self.path) from error
        # PyYAML looks up and takes apart what a tag such as !!bool stands before without a look at it.
        except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
            problem = (
                str(error) if isinstance(error, (yaml.YAMLError, ValueError)) else "a value is not of its tag"
            )
            raise DefinitionError(f"this is not valid YAML: {problem}", path=self.path) from error

    def _loaded(self) -> Any:
        check_depth(self._text)
        loader = UniqueKeysLoader(self._text)
        try:
            node = loader.get_single_node()
            if node is not None and "&" in self._text and written_out(node) > LONGEST_FILE:
                raise YamlLimitError(
                    f"with its aliases written out this is larger than {LONGEST_FILE >> 20} MiB; write it "
                    "without so many anchors",
                    None,
                )
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()

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


def merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults with everything of its own on top; mappings are merged, all else is replaced."""
    found = dict(defaults)
    for key, value in own.items():
        below = found.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        found[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return found
