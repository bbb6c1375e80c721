"""Signs what a release consists of, and checks it before an environment takes it."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.exceptions import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    NotSignedError,
    SigningKeyError,
    VerificationError,
)
from airflow_cd.hooks.signing import SigningKeyHook
from airflow_cd.releases.adapters import open_store, scratch_dir, store_url
from airflow_cd.releases.run import read_document, read_release

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from securesystemslib.signer import CryptoSigner, Key

    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Envelopes, Release, ReleaseRef
    from airflow_cd.model.service import Service
    from airflow_cd.stores.base import ArtifactStore


log = logging.getLogger(__name__)


def sign_release(store: ArtifactStore, signer: CryptoSigner, manifest: bytes, statement: bytes) -> Envelopes:
    """Store an envelope for each document, and return where they lie."""
    from airflow_cd.model.release import Envelopes
    from airflow_cd.packaging.provenance import MANIFEST, STATEMENT, sign

    return Envelopes(
        manifest=store.put_bytes(sign(manifest, MANIFEST, signer)),
        provenance=store.put_bytes(sign(statement, STATEMENT, signer)),
    )


def sign_build(signer: CryptoSigner | None, key: str, product: str) -> dict[str, Any]:
    """Return what makes a reference to a workspace or an image believed later, to be stored in it."""
    from airflow_cd.packaging.provenance import BUILD, sign

    return {} if signer is None else {"envelope": sign(_build(key, product), BUILD, signer).decode()}


def is_signed_build(
    signer: CryptoSigner | None, key: str, product: str, reference: Mapping[str, Any]
) -> bool:
    """
    Tell whether a reference to a workspace or an image is what the service's own key signed.

    Digests guard what they name, but a reference can be set to name something else.

    :param signer: the service's key; without one every reference is believed
    :param product: digest that the reference names
    """
    from airflow_cd.packaging.provenance import BUILD, verify

    if signer is None:
        return True
    try:
        signed = verify(str(reference.get("envelope", "")).encode(), BUILD, [signer.public_key])
    except VerificationError:
        return False
    return signed.payload == _build(key, product)


def verify_release(
    service: Service, environment: Environment, ref: ReleaseRef, release: Release
) -> str | None:
    """
    Check the signatures this environment demands, and return the id of the key that signed.

    Manifest and SLSA statement must be signed by a listed key and be the stored ones; the manifest must be
    about this service; the statement's subject must be the release's digest, and its commit the release's.

    :return: ``None`` where nothing is demanded
    :raises VerificationError: a signature is missing, wrong, or by another key
    :raises ArtifactCorruptError: a document in the store was changed
    :raises ArtifactNotFoundError: a document is gone
    :raises SigningKeyError: a listed connection is missing, or holds no usable key
    """
    if environment.verify is None:
        return None
    from airflow_cd.packaging.provenance import MANIFEST, STATEMENT

    name = f"{release.service} {release.version}"
    if ref.envelopes is None or release.provenance is None:
        raise NotSignedError(
            f"{name} is not signed, and {environment.name} takes signed releases only. "
            "If it was packaged before signing was switched on, trigger the DAG with revision "
            f"{release.revision.sha}: that run packages and signs it"
        )
    keys = [SigningKeyHook(conn_id).public_key() for conn_id in environment.verify.conn_ids]
    store = open_store(store_url(service))
    documents = (
        (f"the manifest of {name}", ref.manifest, ref.envelopes.manifest, MANIFEST),
        (f"the provenance of {name}", release.provenance, ref.envelopes.provenance, STATEMENT),
    )
    (_, signed_by), (statement, _) = [_verified(store, *document, keys) for document in documents]
    if release.service != service.name:
        raise VerificationError(f"{name} is signed, but as a release of another service than {service.name}")
    _check_statement(name, statement, release)
    return signed_by


def require_signatures(
    service: Service, environment: Environment, ref: ReleaseRef
) -> tuple[Release, str | None]:
    """
    Return the release, and the id of the key whose signature lets it into this environment.

    :return: the key id is ``None`` where the environment demands no signatures
    :raises AirflowFailException: the release is not the one that was stored, or is not signed as demanded
    """
    try:
        release = read_release(service, ref)
        key_id = verify_release(service, environment, ref, release)
    except (ArtifactCorruptError, ArtifactNotFoundError, SigningKeyError, VerificationError) as error:
        raise AirflowFailException(f"{environment.name} was not touched: {error}") from error
    if key_id is not None:
        log.info("Manifest and provenance are signed by key %s", key_id)
    return release, key_id


def explain_archive(store: ArtifactStore, release: Release) -> str:
    """Return in which members the stored archive of a release differs from the one that was packaged."""
    from airflow_cd.packaging.archive import contents, differences, parsed

    with scratch_dir(f"compare-{release.service}") as scratch:
        archive = scratch / "release.tar.gz"
        try:
            store.get_unverified(release.digest, archive)
            actual = f"it has {archive.stat().st_size} of {release.size} bytes, and sha256:{_sha256(archive)}"
            if release.contents is None:
                return f"{actual}; its members were not recorded when it was packaged"
            recorded = parsed(read_document(store, "the list of its members", release.contents))
            return f"{actual}; {differences(recorded, contents(archive))}"
        except (ArtifactError, OSError) as error:
            return f"the difference is not known: {error}"


def _verified(
    store: ArtifactStore, what: str, digest: str, envelope: str, kind: str, keys: Sequence[Key]
) -> tuple[bytes, str]:
    from airflow_cd.packaging.provenance import verify

    document = read_document(store, what, digest)
    try:
        payload, key_id = verify(read_document(store, f"the signature of {what}", envelope), kind, keys)
    except VerificationError as error:
        error.args = (f"{what}: {error}",)
        raise
    if payload != document:
        raise VerificationError(f"{what}: what was signed is another document than {digest}")
    return document, key_id


def _check_statement(name: str, statement: bytes, release: Release) -> None:
    from airflow_cd.packaging.provenance import claim

    try:
        claimed = claim(statement)
    except ValueError as error:
        raise VerificationError(f"the provenance of {name}: {error}") from error
    for said, wanted in ((claimed.digests, release.digest), (claimed.commits, release.revision.sha)):
        if said != [wanted]:
            about = ", ".join(map(str, said)) or "nothing"
            raise VerificationError(f"the provenance of {name} is about {about}, not about {wanted}")


def _build(key: str, product: str) -> bytes:
    return json.dumps({"build": key, "product": product}, sort_keys=True).encode()


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            hasher.update(chunk)
    return hasher.hexdigest()
