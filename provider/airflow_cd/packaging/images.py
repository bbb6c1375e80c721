"""Builds and pushes container images, and attaches documents to them (OCI distribution 1.1)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx

from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError
from airflow_cd.processes.http_transport import GuardedSyncTransport, proxy_of

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image as BuiltImage

    from airflow_cd.model.package import ImageSettings
    from airflow_cd.model.release import Revision

# 1980-01-01 UTC, as in archives: times and owners say nothing about the content.
_TIME = 315532800


def write_context(folder: Path, dockerfile: str, into: IO[bytes]) -> None:
    """
    Write the folder as a tar, without what its ``.dockerignore`` names.

    :param dockerfile: relative to ``folder``; it is sent even where it is ignored
    :raises ArtifactError: there is no such Dockerfile
    :raises UnsafeArchiveError: a link leads out of the folder
    """
    from docker.utils.build import exclude_paths

    if not (folder / dockerfile).is_file():
        raise ArtifactError(f"there is no {dockerfile!r} in the context; correct `dockerfile:` or `context:`")
    ignore = folder / ".dockerignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    root = folder.resolve()
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(exclude_paths(str(folder), patterns, dockerfile=dockerfile)):
            path = folder / name
            if path.is_symlink() and not _leads_inside(path, root):
                raise UnsafeArchiveError(f"the link {name!r} leads out of the context; remove or ignore it")
            _add(tar, path, name)


def _leads_inside(path: Path, root: Path) -> bool:
    target = os.readlink(path)
    return not os.path.isabs(target) and (path.parent / target).resolve().is_relative_to(root)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tar.gettarinfo(str(path), name)
    info.mtime, info.uid, info.gid, info.uname, info.gname = _TIME, 0, 0, "", ""
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    if info.isreg():
        with path.open("rb") as content:
            tar.addfile(info, content)
    else:
        tar.addfile(info)


_TITLE = "org.opencontainers.image."
_KEPT = 3


def tag_of(version: str) -> str:
    """Return the tag for people: the version with what no tag may hold (such as ``+``) replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", version).lstrip(".-")[:128] or "unnamed"


def labels_of(service: str, source: str, revision: Revision) -> dict[str, str]:
    """
    Return the OCI annotations of an image.

    :param source: URL of the repository, without secrets
    """
    return {
        f"{_TITLE}title": service,
        f"{_TITLE}version": revision.version,
        f"{_TITLE}revision": revision.sha,
        f"{_TITLE}source": source,
        f"{_TITLE}created": revision.committed_at.isoformat(),
    }


def build_image(
    client: DockerClient,
    image: ImageSettings,
    tree: Path,
    labels: Mapping[str, str],
    tag: str,
    on_line: Callable[[str], None],
    before: str | None = None,
) -> BuiltImage:
    """
    Build the image of an unpacked workspace, and name it ``repository:tag`` on the engine.

    :param before: image whose layers are used again where nothing changed; the engine's own are anyway
    :raises ArtifactError: the Dockerfile is missing, or the engine says that the build failed
    """
    with tempfile.TemporaryFile() as context:
        write_context(tree / image.context, image.dockerfile, context)
        context.seek(0)
        events = client.api.build(
            fileobj=context,
            custom_context=True,
            dockerfile=image.dockerfile,
            tag=f"{image.repository}:{tag}",
            labels=dict(labels),
            buildargs=dict(image.args),
            target=image.stage or "",
            cache_from=[before] if before else None,
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in _checked(events, f"building {image.repository}:{tag}"):
            for line in event.get("stream", "").splitlines():
                on_line(line)
    return client.images.get(f"{image.repository}:{tag}")


def push_image(client: DockerClient, repository: str, tag: str) -> str:
    """
    Push what the engine calls ``repository:tag``, and return the digest the registry gave it.

    The digest is of this push: moving the tag afterwards changes nothing.

    :raises ArtifactError: the registry does not answer, refuses it, or does not have it afterwards
    """
    from docker.errors import APIError

    digest = None
    events = client.api.push(repository, tag=tag, stream=True, decode=True)
    for event in _checked(events, f"pushing {repository}:{tag}"):
        digest = event.get("aux", {}).get("Digest", digest)
    if digest is None:
        raise ArtifactError(f"the engine pushed {repository}:{tag} without saying its digest; try again")
    try:
        held = client.api.inspect_distribution(f"{repository}@{digest}")["Descriptor"]["digest"]
    except APIError as error:
        raise ArtifactError(
            f"the registry does not have {repository}@{digest} after its push: {error}"
        ) from error
    if held != digest:
        raise ArtifactError(f"the registry has {held} where {repository}@{digest} was pushed")
    return str(digest)


def remove_older(client: DockerClient, repository: str, service: str) -> None:
    """Let the engine go of what it built of a service before its last few images; the registry has them."""
    from docker.errors import DockerException

    ours = {"label": f"{_TITLE}title={service}"}
    built = client.images.list(repository, filters=ours)
    for image in sorted(built, key=lambda one: str(one.attrs["Created"]), reverse=True)[_KEPT:]:
        name = f"{repository}:{tag_of(image.labels.get(f'{_TITLE}version', ''))}"
        if name in image.tags:
            with suppress(DockerException):  # a container runs it
                client.images.remove(name)


def _checked(events: Iterator[dict[str, Any]], what: str) -> Iterator[dict[str, Any]]:
    for event in events:
        if "error" in event:
            raise ArtifactError(f"{what} failed: {event['error']}")
        yield event


_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
_EMPTY = b"{}"


def attach(client: httpx.Client, name: str, subject: str, kind: str, document: bytes) -> str:
    """
    Attach a document to an image, and return the digest of the manifest that does so. Twice is as once.

    A registry without the referrers API gets the tag ``sha256-<hex>`` kept up to date, by reading and
    writing: of two writers at the same moment one may lose its entry until it attaches again.

    :param client: for the registry, with its address as ``base_url`` and its credentials
    :param name: of the repository within the registry
    :param subject: digest of the image
    :param kind: media type of the document, which becomes the artifact's type
    :raises ArtifactError: the registry does not answer or refuses
    """
    try:
        return _attach(client, f"/v2/{name}", subject, kind, document)
    except (httpx.HTTPError, OSError, KeyError, ValueError) as error:
        raise ArtifactError(f"cannot attach {kind} to {name}@{subject}: {error}") from error


def _attach(client: httpx.Client, base: str, subject: str, kind: str, document: bytes) -> str:
    answer = client.head(
        f"{base}/manifests/{subject}", headers={"Accept": f"{_IMAGE}, {_MANIFEST}, {_INDEX}"}
    )
    answer.raise_for_status()
    described = {
        "mediaType": answer.headers["Content-Type"],
        "digest": subject,
        "size": int(answer.headers["Content-Length"]),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": kind,
        "config": _put_blob(client, base, "application/vnd.oci.empty.v1+json", _EMPTY),
        "layers": [_put_blob(client, base, kind, document)],
        "subject": described,
    }
    body = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    entry = {**_descriptor(_MANIFEST, body), "artifactType": kind}
    put = _put_manifest(client, base, entry["digest"], _MANIFEST, body)
    if "OCI-Subject" not in put.headers:
        _add_to_index(client, base, subject.replace(":", "-"), entry)
    return str(entry["digest"])


def _add_to_index(client: httpx.Client, base: str, tag: str, entry: dict[str, Any]) -> None:
    found = client.get(f"{base}/manifests/{tag}", headers={"Accept": _INDEX})
    if found.status_code != 404:
        found.raise_for_status()
    entries = found.json()["manifests"] if found.is_success else []
    if any(one["digest"] == entry["digest"] for one in entries):
        return
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [*entries, entry]}
    _put_manifest(client, base, tag, _INDEX, json.dumps(index, sort_keys=True).encode())


def _put_manifest(client: httpx.Client, base: str, reference: str, kind: str, body: bytes) -> httpx.Response:
    put = client.put(f"{base}/manifests/{reference}", content=body, headers={"Content-Type": kind})
    return put.raise_for_status()


def _put_blob(client: httpx.Client, base: str, kind: str, content: bytes) -> dict[str, Any]:
    described = _descriptor(kind, content)
    if client.head(f"{base}/blobs/{described['digest']}").is_success:
        return described
    begun = client.post(f"{base}/blobs/uploads/").raise_for_status()
    place = httpx.URL(urljoin(str(begun.url), begun.headers["Location"]))
    place = place.copy_merge_params({"digest": described["digest"]})
    headers = {"Content-Type": "application/octet-stream"}
    client.put(place, content=content, headers=headers).raise_for_status()
    return described


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(content)}


_TIMEOUT_SECONDS = 60
# Manifests and indexes are a few KiB; registries refuse manifests of more than 4 MiB.
_LONGEST_ANSWER = 4 * 1024 * 1024
# What Docker calls it, and where its registry is.
_HOSTS = {"docker.io": "registry-1.docker.io"}
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def registry_client(repository: str, login: tuple[str, str] | None, url: str | None = None) -> httpx.Client:
    """
    Return a client of the registry that a repository lies in.

    Plain HTTP is spoken with this machine only, as Docker engines do.

    :param repository: of an image, with its registry
    :param login: user and password
    :param url: where the registry is reached; default: made of its name
    """
    registry = repository.partition("/")[0]
    host = _HOSTS.get(registry, registry)
    is_here = host.rpartition(":")[0] in ("localhost", "127.0.0.1") or host in ("localhost", "127.0.0.1")
    base = url or f"{'http' if is_here else 'https'}://{host}"
    return httpx.Client(
        base_url=base,
        auth=RegistryAuth(login),
        transport=GuardedSyncTransport(longest=_LONGEST_ANSWER, proxy=proxy_of(base)),
        trust_env=False,
        timeout=_TIMEOUT_SECONDS,
        follow_redirects=True,
    )


def path_of(repository: str) -> str:
    """Return the repository's name within its registry."""
    return repository.partition("/")[2]


class RegistryAuth(httpx.Auth):
    """
    Answers a registry's challenge: with the login itself, or with a token that the login gets elsewhere.

    https://distribution.github.io/distribution/spec/auth/token/

    :param login: user and password; without one, a token for anybody is asked for
    """

    requires_response_body = True

    def __init__(self, login: tuple[str, str] | None) -> None:
        self._login = login
        self._header: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and again where it is refused for want of (another) login."""
        if self._header is not None:
            request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code != 401:
            return
        kind, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if kind.lower() == "bearer":
            answer = yield self._token_request(dict(_CHALLENGE.findall(rest)))
            self._header = f"Bearer {_token(answer)}"
        elif kind.lower() == "basic" and self._login is not None:
            self._header = self._basic()
        else:
            return
        request.headers["Authorization"] = self._header
        yield request

    def _token_request(self, challenge: dict[str, str]) -> httpx.Request:
        realm = httpx.URL(challenge.get("realm", ""))
        for name in ("service", "scope"):
            if name in challenge:
                realm = realm.copy_add_param(name, challenge[name])
        headers = {"Authorization": self._basic()} if self._login else {}
        return httpx.Request("GET", realm, headers=headers)

    def _basic(self) -> str:
        assert self._login is not None
        return httpx.BasicAuth(*self._login)._auth_header


def _token(answer: httpx.Response) -> str:
    if not answer.is_success:
        raise ArtifactError(f"{answer.request.url.host} gives no token: HTTP {answer.status_code}")
    given = answer.json()
    return str(given.get("token") or given["access_token"])
