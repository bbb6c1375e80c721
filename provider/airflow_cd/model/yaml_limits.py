"""What no YAML that people write reaches: a few bytes of it can end the interpreter, or take all memory."""

from __future__ import annotations

from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

DEEPEST = 100
# A number is written in less; PyYAML multiplies the parts of 1:30:00, however many there are.
_LONGEST_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# What cannot be nested too deeply is not looked at: most files.
_FEW, _SHORT = 50, 200


class YamlLimitError(ValueError):
    """
    Raised when a limit is reached.

    :param line: where, from 1
    """

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.line = line


def check_depth(text: str) -> None:
    """
    Make sure that nothing is nested more than :data:`DEEPEST` levels deep.

    Composing goes down level by level, in C and without a limit, and the process ends; reading events does
    not.

    :raises YamlLimitError: it is nested deeper
    :raises yaml.YAMLError: it is not YAML
    """
    if text.count("[") + text.count("{") < _FEW and max(map(len, text.splitlines()), default=0) < _SHORT:
        return
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else None
                raise YamlLimitError(
                    f"this is nested too deeply, more than {DEEPEST} levels; flatten it", line
                )
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def check_number(node: yaml.Node) -> None:
    """
    Make sure that a number is no longer than numbers are.

    :raises YamlLimitError: it is longer
    """
    if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
        raise YamlLimitError(
            f"a number of {len(node.value)} characters; put it in quotes, or correct it",
            node.start_mark.line + 1,
        )


def written_out(node: yaml.Node, known: dict[int, int | None] | None = None) -> int:
    """
    Return about how long the node is as text without aliases, without writing it.

    :raises YamlLimitError: it contains itself
    """
    if isinstance(node, yaml.ScalarNode):
        return len(node.value) + 1
    known = {} if known is None else known
    size = known.get(id(node), 0)
    if size is None:
        raise YamlLimitError("this contains itself; write it out", node.start_mark.line + 1)
    if size:
        return size
    known[id(node)] = None
    parts = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[id(node)] = size = 2 + sum(written_out(one, known) for one in parts)
    return size
