"""The pages of commits at well-known git hosts."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SCP = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/@]+):(?P<path>[^/].*)")
# host (or a part of it) -> how it addresses a commit, and the difference of two
_STYLES = {
    "github": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
    "gitlab": ("{base}/-/commit/{new}", "{base}/-/compare/{old}...{new}"),
    "bitbucket": ("{base}/commits/{new}", "{base}/branches/compare/{new}%0D{old}"),
    "codeberg": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
    "gitea": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
    "forgejo": ("{base}/commit/{new}", "{base}/compare/{old}...{new}"),
}


def commit_url(repository: str, sha: str) -> str | None:
    """Return the commit's page, or ``None`` when the host is not known."""
    return _page(repository, 0, new=sha)


def compare_url(repository: str, old: str, new: str) -> str | None:
    """Return the page with the difference between two commits, or ``None`` when the host is not known."""
    return _page(repository, 1, old=old, new=new)


def public_url(repository: str) -> str:
    """Return the repository's address without user name, password or token."""
    parts = urlsplit(repository)
    if not parts.netloc or parts.scheme == "ssh":
        return repository
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _page(repository: str, which: int, **commits: str) -> str | None:
    host, path = _host_and_path(repository)
    for name, styles in _STYLES.items():
        if name in host.split(".") or host.startswith(f"{name}."):
            return styles[which].format(base=f"https://{host}/{path}", **commits)
    return None


def _host_and_path(repository: str) -> tuple[str, str]:
    parts = urlsplit(repository)
    if parts.scheme in ("http", "https", "ssh", "git"):
        host, path = parts.hostname or "", parts.path
    elif "://" not in repository and (scp := _SCP.fullmatch(repository)):
        host, path = scp["host"], scp["path"]
    else:
        return "", ""
    return host.lower(), path.strip("/").removesuffix(".git")
