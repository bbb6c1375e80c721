"""Makes releases that are images: built once, pushed, named by digest, with their documents attached."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cd.exceptions import ArtifactError, EngineError
from airflow_cd.hooks.docker import docker_client, registry_login
from airflow_cd.releases.verification import is_signed_build, sign_build

if TYPE_CHECKING:
    from docker import DockerClient
    from securesystemslib.signer import CryptoSigner

    from airflow_cd.model.package import ImageSettings
    from airflow_cd.model.release import Revision
    from airflow_cd.model.service import Service
    from airflow_cd.stores.base import ArtifactStore

log = logging.getLogger(__name__)

SBOM = "application/vnd.cyclonedx+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
_OBJECTS = "airflow-cd.objects"


class PushedImage(NamedTuple):
    """
    :param digest: what the registry named it
    :param size: bytes, as the engine has it unpacked
    """

    digest: str
    size: int


def make_image(
    service: Service,
    revision: Revision,
    build: str,
    tree: Path,
    store: ArtifactStore,
    signer: CryptoSigner | None,
) -> PushedImage:
    """
    Build the service's image of a built tree, and push it; or find that it was made before.

    A task that is tried again, or cleared, gives the same digest, as long as the registry has it.

    :param build: key of the build the tree comes from
    :raises ArtifactError: the engine or the registry cannot be used, or the build failed
    """
    image = service.package.image
    assert image is not None, "the service is packaged as an image"
    labels = _labels(service, revision)
    key = _key(image, build, revision.sha, labels.get(_OBJECTS))
    with _reported(image), closing(docker_client(image.engine, image.conn_id)) as client:
        made = _made_before(client, image, key, store, signer)
        if made is None:
            made = _make(client, service, revision, tree, store, labels)
            reference = {"digest": made.digest, "size": made.size, "revision": revision.sha}
            store.put_ref(f"images/{key}", {**reference, **sign_build(signer, key, made.digest)})
        store.put_ref(f"images/newest/{service.name}", {"digest": made.digest})
    return made


def attach_documents(image: ImageSettings, digest: str, documents: Mapping[str, bytes]) -> None:
    """
    Attach documents to an image in its registry, by media type. What is attached already stays as it is.

    :raises ArtifactError: the registry does not answer, or refuses the login
    """
    from airflow_cd.packaging.images import attach, path_of, registry_client

    with _reported(image):
        login = registry_login(image.conn_id)
        with registry_client(image.repository, login, image.registry_url) as client:
            for kind, document in documents.items():
                attached = attach(client, path_of(image.repository), digest, kind, document)
                log.info("Attached %s: %s@%s", kind, image.repository, attached)


def _made_before(
    client: DockerClient, image: ImageSettings, key: str, store: ArtifactStore, signer: CryptoSigner | None
) -> PushedImage | None:
    from docker.errors import NotFound

    found = store.get_ref(f"images/{key}")
    if found is None:
        return None
    digest = str(found["digest"])
    if not is_signed_build(signer, key, digest, found):
        log.warning("Made before, but not signed by this service's key: building again")
        return None
    try:
        client.api.inspect_distribution(f"{image.repository}@{digest}")
    except NotFound:
        log.warning("Made before as %s, which the registry does not have any more: building again", digest)
        return None
    log.info("Made before: %s@%s", image.repository, digest)
    return PushedImage(digest, int(found["size"]))


def _make(
    client: DockerClient,
    service: Service,
    revision: Revision,
    tree: Path,
    store: ArtifactStore,
    labels: Mapping[str, str],
) -> PushedImage:
    from airflow_cd.packaging.images import build_image, push_image, remove_older, tag_of

    image = service.package.image
    assert image is not None, "the service is packaged as an image"
    tag = tag_of(revision.version)
    before = _newest(client, service, image, store)
    built = build_image(client, image, tree, labels, tag, log.info, before)
    digest = push_image(client, image.repository, tag)
    log.info("Pushed %s:%s as %s", image.repository, tag, digest)
    remove_older(client, image.repository, service.name)
    return PushedImage(digest, int(built.attrs["Size"]))


def _newest(client: DockerClient, service: Service, image: ImageSettings, store: ArtifactStore) -> str | None:
    """Return the newest release's image, for its layers; it is pulled where another engine built it."""
    from docker.errors import DockerException, ImageNotFound

    newest = store.get_ref(f"images/newest/{service.name}")
    if newest is None:
        return None
    name = f"{image.repository}@{newest['digest']}"
    try:
        with suppress(ImageNotFound):
            client.images.get(name)
            return name
        client.images.pull(name)
    except DockerException as error:
        log.info("No layers of the newest release can be used again: %s", error)
        return None
    return name


def _labels(service: Service, revision: Revision) -> dict[str, str]:
    from airflow_cd.packaging.images import labels_of

    labels = labels_of(service.name, service.source.public_repository, revision)
    objects = _objects_of(service)
    return {**labels, _OBJECTS: objects} if objects else labels


def _objects_of(service: Service) -> str | None:
    """
    Return what stands for the way the definition turns an image into objects on clusters, if it does.

    It is a label of the image: what is defined again for the same commit (more replicas, another variable)
    is then another release, with a digest of its own, that goes through the strategy and can be left again.
    What is not said there is not part of it: a key that a later version knows changes no release.
    """
    defined = {
        environment.name: settings
        for environment in service.environments
        if (settings := environment.target.settings.object_settings) is not None
    }
    return _sha256(defined) if defined else None


def _key(image: ImageSettings, build: str, sha: str, objects: str | None) -> str:
    definition = image.model_dump(mode="json", exclude={"engine", "conn_id", "registry_url"})
    return _sha256([definition, build, sha, *([objects] if objects else [])])


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _reported(image: ImageSettings) -> Iterator[None]:
    """Say of the errors of the engine and of the connections what they are about."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, EngineError, RequestException) as error:
        raise ArtifactError(f"the image {image.repository} cannot be made: {error}") from error
