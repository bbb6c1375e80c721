"""What the address of a repository says: its host, its login, and what everybody may read of it."""

from __future__ import annotations

import re
from urllib.parse import unquote

SCP = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/@]+):(?P<path>[^/].*)")


def public_url(repository: str) -> str:
    """
    Return the repository's address without password or token; ssh keeps its user name.

    What follows a question mark is left out: tokens are written there, too.
    """
    scheme, separator, rest = repository.partition("://")
    if not separator:
        return repository
    user, at, place = _parted(rest)
    if scheme == "file":
        return repository
    place = re.split(r"[?#]", place)[0]
    return f"{scheme}://{user.partition(':')[0]}@{place}" if at and scheme == "ssh" else f"{scheme}://{place}"


def host_of(repository: str) -> str:
    """Return the machine that answers for a repository; nothing for one of this machine."""
    scheme, separator, rest = repository.partition("://")
    if not separator:
        found = SCP.fullmatch(repository)
        return found["host"].lower() if found else ""
    return _parted(rest)[2].partition("/")[0].lower() if scheme != "file" else ""


def without_login(repository: str) -> tuple[str, str, str]:
    """Return address, user name and password of a URL of http or https; others have no password."""
    scheme, separator, rest = repository.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return repository, "", ""
    user, _, place = _parted(rest)
    name, _, password = user.partition(":")
    return f"{scheme}://{place}", unquote(name), unquote(password)


def _parted(rest: str) -> tuple[str, str, str]:
    """
    Part what follows ``://`` into user information, ``@`` and the rest.

    A password with a slash in it, which must be written as ``%2F`` but often is not, is none of the path.
    """
    authority, slash, path = rest.partition("/")
    _, colon, port = authority.partition(":")
    if "@" not in authority and colon and not port.isdigit() and "[" not in authority and "@" in path:
        return rest.rpartition("@")
    user, at, host = authority.rpartition("@")
    return user, at, f"{host}{slash}{path}"
