"""Has an engine build an image and push it, and reads which digest the registry gave it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_cd.artifacts.images.context import write_context
from airflow_cd.exceptions import ArtifactError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image as BuiltImage

    from airflow_cd.model.package import ImageSettings
    from airflow_cd.model.release import Revision

_TITLE = "org.opencontainers.image."
_KEPT = 3


def tag_of(version: str) -> str:
    """Return the tag for people: the version with what no tag may hold (such as ``+``) replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", version).lstrip(".-")[:128] or "unnamed"


def labels_of(service: str, source: str, revision: Revision) -> dict[str, str]:
    """Return the OCI annotations of an image. :param source: URL of the repository, without secrets"""
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

    The digest is of this push: whoever moves the tag afterwards changes nothing.

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
