"""SLSA provenance of releases, and signatures as DSSE envelopes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

from airflow_cd.exceptions import InvalidSignatureError, NotSignedError, UntrustedKeyError

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Key, Signer

# What is signed. The type is signed too: an envelope of one kind never passes for another.
STATEMENT = "application/vnd.in-toto+json"
MANIFEST = "application/vnd.airflow-cd.release+json"
BUILD = "application/vnd.airflow-cd.build+json"

# Key ids are read before anything is verified, so they may hold anything.
_KEY_ID = re.compile(r"[0-9a-zA-Z:._-]{1,128}")


class Verified(NamedTuple):
    """A payload, and the id of the key that signed it."""

    payload: bytes
    key_id: str


def sign(payload: bytes, payload_type: str, signer: Signer) -> bytes:
    """
    Return the envelope as canonical JSON.

    The same payload and Ed25519 key give the same bytes; ECDSA signatures differ each time.
    """
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()


def verify(envelope: bytes, payload_type: str, keys: Sequence[Key]) -> Verified:
    """
    Return what was signed, and by which of the keys.

    :param envelope: as :func:`sign` writes it
    :param payload_type: what the payload must be
    :param keys: public keys; a signature by any one of them is enough
    :raises NotSignedError: there is no signature in it
    :raises UntrustedKeyError: none of its signatures is by one of these keys
    :raises InvalidSignatureError: the signature is not one of the content, the content is of another type, or
        it is no envelope at all
    """
    from securesystemslib.exceptions import VerificationError as NotVerified

    opened = _opened(envelope)
    if not opened.signatures:
        raise NotSignedError("it is not signed: its envelope holds no signature")
    listed = {key.keyid for key in keys}
    if listed.isdisjoint(opened.signatures):
        strangers = [_shown(key_id) for key_id in opened.signatures]
        raise UntrustedKeyError(
            f"it is signed by a key that is not listed: {', '.join(strangers)} "
            f"(listed: {', '.join(sorted(listed)) or 'none'})",
            strangers,
        )
    try:
        accepted = opened.verify(list(keys), 1)
    except NotVerified as error:
        signers = ", ".join(sorted(listed & set(opened.signatures)))
        raise InvalidSignatureError(
            f"its signature by key {signers} does not match the content: one of them was changed"
        ) from error
    if opened.payload_type != payload_type:
        raise InvalidSignatureError(
            f"what is signed is a document of type {opened.payload_type!r}, not {payload_type!r}"
        )
    return Verified(opened.payload, next(iter(accepted)))


def _opened(envelope: bytes) -> Envelope:
    from securesystemslib.dsse import Envelope

    try:
        opened = Envelope.from_dict(json.loads(envelope))
        if not isinstance(opened.payload_type, str) or not all(isinstance(k, str) for k in opened.signatures):
            raise TypeError("payload type or key id is no text")
        opened.pae()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidSignatureError(f"its envelope is not a DSSE envelope: {type(error).__name__}") from error
    return opened


def _shown(key_id: str) -> str:
    return key_id if _KEY_ID.fullmatch(key_id) else repr(key_id[:128])


# git's short form of an ssh URL: user@host:path
_SHORT_SSH = re.compile(r"(?:[^/:@]+@)?([^/:@]+):(?!//)/*(.+)")

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://pypi.org/project/airflow-provider-cd/#build-v1"


def provenance(
    *,
    release_name: str,
    digest: str,
    repository: str,
    revision: str,
    tree: str,
    commands: Sequence[Sequence[str]],
    suites: Mapping[str, Sequence[Sequence[str]]],
    builder_id: str,
    invocation_id: str,
    started_on: datetime,
) -> bytes:
    """
    Return the statement as canonical JSON: the same input gives the same bytes.

    Hence it says when the invocation started, and not when it finished, which a retry would change.

    :param release_name: file name of the archive
    :param digest: ``sha256:`` digest of the archive
    :param repository: where the source came from; user names and tokens in it are left out
    :param tree: git hash of the service's folder at that revision
    :param started_on: with its time zone
    :param invocation_id: what started the build, as a person can find it in Airflow
    """
    algorithm, _, value = digest.partition(":")
    source = f"git+{_public_url(repository)}@{revision}"
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": release_name, "digest": {algorithm: value}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "source": source,
                    "commands": [list(argv) for argv in commands],
                    "tests": {name: [list(argv) for argv in suite] for name, suite in suites.items()},
                },
                "internalParameters": {},
                "resolvedDependencies": [{"uri": source, "digest": {"gitCommit": revision, "gitTree": tree}}],
            },
            "runDetails": {
                "builder": {"id": builder_id},
                "metadata": {"invocationId": invocation_id, "startedOn": _timestamp(started_on)},
            },
        },
    }
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


class Claim(NamedTuple):
    """What a statement says was made, and from which commits."""

    digests: list[str]
    commits: list[str]


def claim(statement: bytes) -> Claim:
    """
    Return what a statement claims.

    :raises ValueError: it is not SLSA v1 provenance
    """
    try:
        content = json.loads(statement)
        if (content["_type"], content["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise ValueError(f"it is not a statement of type {PREDICATE_TYPE}")
        sources = content["predicate"]["buildDefinition"]["resolvedDependencies"]
        return Claim(
            digests=[f"sha256:{subject['digest']['sha256']}" for subject in content["subject"]],
            commits=[source["digest"]["gitCommit"] for source in sources],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not SLSA v1 provenance: {error!r}") from error


def _public_url(repository: str) -> str:
    """Return the URL without what may be a secret in it: user, password, query."""
    parts = urlsplit(repository)
    if parts.scheme and parts.netloc:
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    short = _SHORT_SSH.fullmatch(repository)
    if short:
        return f"ssh://{short[1]}/{quote(short[2])}"
    return "file://" + quote(os.path.abspath(parts.path if parts.scheme == "file" else repository))


def _timestamp(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
