"""The pages of commits at well-known git hosts."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

_SCP = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/@]+):(?P<path>[^/].*)")
# a part of the host's name -> how it addresses a commit, and the difference of two
_STYLES = {
    "github": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
    "gitlab": ("{base}/-/commit/{new}", "{base}/-/compare/{old}...{new}"),
    "codeberg": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
    "gitea": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
    "forgejo": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
}
# Only the one in the cloud: Bitbucket servers on premises have other pages.
_BITBUCKET = ("{base}/commits/{new}", "{base}/branches/compare/{new}%0D{old}")


def commit_url(repository: str, sha: str) -> str | None:
    """Return the commit's page, or ``None`` when the host is not known."""
    return _page(repository, 0, new=sha)


def compare_url(repository: str, old: str, new: str) -> str | None:
    """Return the page with the difference between two commits, or ``None`` when the host is not known."""
    return _page(repository, 1, old=old, new=new)


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
        found = _SCP.fullmatch(repository)
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


def _page(repository: str, which: int, **commits: str) -> str | None:
    address = _address(repository)
    if address is None:
        return None
    origin, host, path = address
    styles = _BITBUCKET if host == "bitbucket.org" else _style(host)
    base = f"{origin}/{quote(path, safe='/~')}"
    return styles[which].format(base=base, **commits) if styles and path else None


def _style(host: str) -> tuple[str, str] | None:
    labels = host.split(".")
    return next((style for name, style in _STYLES.items() if name in labels), None)


def _address(repository: str) -> tuple[str, str, str] | None:
    """Return where the host's pages start, the host, and the repository's path on it."""
    try:
        parts = urlsplit(repository)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:  # not a URL, whatever it looks like
        return None
    path = parts.path
    if parts.scheme not in ("http", "https", "ssh", "git"):
        scp = _SCP.fullmatch(repository)
        if "://" in repository or scp is None:
            return None
        host, path, port = scp["host"].lower(), scp["path"], None
    scheme = "http" if parts.scheme == "http" else "https"
    # The port of ssh and git is not that of the pages.
    suffix = f":{port}" if port and parts.scheme in ("http", "https") else ""
    return f"{scheme}://{host}{suffix}", host, path.strip("/").removesuffix(".git")
