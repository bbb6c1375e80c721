"""The pages of commits at well-known git hosts."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from airflow_cd.model.repository_url import SCP

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
        scp = SCP.fullmatch(repository)
        if "://" in repository or scp is None:
            return None
        host, path, port = scp["host"].lower(), scp["path"], None
    scheme = "http" if parts.scheme == "http" else "https"
    # The port of ssh and git is not that of the pages.
    suffix = f":{port}" if port and parts.scheme in ("http", "https") else ""
    return f"{scheme}://{host}{suffix}", host, path.strip("/").removesuffix(".git")
