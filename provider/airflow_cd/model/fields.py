"""The small texts a services file is made of, and what they must look like."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

# Names become DAG ids, task ids, file names and process names: no dots, no upper case, no surprises.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Argv = Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], Field(min_length=1)]


def _relative(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError("is not a path inside the source; write it relative, without '..'")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
Env = dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]


def _bytes(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*[kmg]", value):
        raise ValueError("is not an amount of memory; write for example 512m or 2g")
    return value


Memory = Annotated[str, AfterValidator(_bytes)]
# Of an image, with a tag or a digest if need be; never an option of a command.
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][^\s]{0,511}$")]
# Address of a Docker engine.
Engine = Annotated[str, StringConstraints(pattern=r"^(unix|tcp|ssh)://\S+$")]
