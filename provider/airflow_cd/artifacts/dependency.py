"""One package that a lock file names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_LENGTHS = {"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


class Dependency(NamedTuple):
    """
    One locked package.

    :param ecosystem: its package URL type: ``pypi`` or ``npm``
    :param hashes: ``sha256:<hex>``, sorted
    :param development: needed to build or test only
    """

    ecosystem: str
    name: str
    version: str
    lockfile: str
    hashes: tuple[str, ...] = ()
    development: bool = False

    @classmethod
    def checked(
        cls, ecosystem: str, name: Any, version: Any, lockfile: str, hashes: Iterable[Any], development: bool
    ) -> Dependency:
        """
        Return the dependency a lock file states.

        :param hashes: those of kinds that CycloneDX does not know are left out
        :raises ValueError: name or version is no text, or empty
        """
        for what, value in (("name", name), ("version", version)):
            if not isinstance(value, str) or not value:
                raise ValueError(f"a package has the {what} {value!r}")
        known = tuple(sorted({value for value in hashes if isinstance(value, str) and _is_known(value)}))
        return cls(ecosystem, name, version, lockfile, known, development)


def _is_known(value: str) -> bool:
    algorithm, _, digest = value.partition(":")
    return len(digest) == _LENGTHS.get(algorithm) and _HEX.fullmatch(digest) is not None
