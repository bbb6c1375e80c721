"""
Signatures as DSSE envelopes: a payload, its type, and who signed both.

Specification: https://github.com/secure-systems-lab/dsse. Other tools (cosign, in-toto, slsa-verifier) read
the same envelopes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

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
    :param payload_type: what the payload has to be
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
