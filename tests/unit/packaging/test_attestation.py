"""A signature holds for its payload, its type and its key, and errors say which of them is wrong."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tests.support.signing_keys import new_key, public_pem

from airflow_cd.exceptions import InvalidSignatureError, NotSignedError, UntrustedKeyError
from airflow_cd.packaging.provenance import MANIFEST, STATEMENT, sign, verify

PAYLOAD = b'{"subject": "hello"}'


@pytest.fixture(params=["ed25519", "ecdsa"])
def signer(request: pytest.FixtureRequest) -> CryptoSigner:
    return CryptoSigner(new_key(request.param))


def changed(envelope: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(envelope), **changes}).encode()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_what_was_signed_comes_back_with_the_key(signer: CryptoSigner) -> None:
    stranger = CryptoSigner(new_key()).public_key
    envelope = sign(PAYLOAD, STATEMENT, signer)
    verified = verify(envelope, STATEMENT, [stranger, signer.public_key])
    assert verified == (PAYLOAD, signer.public_key.keyid)
    content = json.loads(envelope)
    assert set(content) == {"payload", "payloadType", "signatures"}
    assert (content["payload"], content["payloadType"]) == (b64(PAYLOAD), "application/vnd.in-toto+json")


def test_ed25519_gives_the_same_envelope_again() -> None:
    key = new_key()
    first, second = (sign(PAYLOAD, MANIFEST, CryptoSigner(key)) for _ in range(2))
    assert first == second


def test_openssl_agrees(tmp_path: Path) -> None:
    """The signature is one of the specification's pre-authentication encoding, not of what we think it is."""
    key = new_key("ecdsa")
    content = json.loads(sign(PAYLOAD, STATEMENT, CryptoSigner(key)))
    kind = STATEMENT.encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(PAYLOAD), PAYLOAD)
    for name, data in {
        "pub": public_pem(key).encode(),
        "sig": base64.b64decode(content["signatures"][0]["sig"]),
        "signed": signed,
    }.items():
        (tmp_path / name).write_bytes(data)
    argv = ["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "signed"]
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)


def test_an_unsigned_envelope_is_told(signer: CryptoSigner) -> None:
    with pytest.raises(NotSignedError, match="holds no signature"):
        verify(changed(sign(PAYLOAD, STATEMENT, signer), signatures=[]), STATEMENT, [signer.public_key])


def test_a_foreign_signature_is_told_with_its_key(signer: CryptoSigner) -> None:
    stranger = CryptoSigner(new_key())
    with pytest.raises(UntrustedKeyError, match="not listed") as caught:
        verify(sign(PAYLOAD, STATEMENT, stranger), STATEMENT, [signer.public_key])
    assert caught.value.key_ids == (stranger.public_key.keyid,)
    assert stranger.public_key.keyid in str(caught.value) and signer.public_key.keyid in str(caught.value)


def test_a_key_id_is_no_proof(signer: CryptoSigner) -> None:
    """The signature of another key under a listed key's id."""
    content = json.loads(sign(PAYLOAD, STATEMENT, CryptoSigner(new_key())))
    content["signatures"][0]["keyid"] = signer.public_key.keyid
    with pytest.raises(InvalidSignatureError, match="does not match the content"):
        verify(json.dumps(content).encode(), STATEMENT, [signer.public_key])


def test_a_changed_payload_is_told(signer: CryptoSigner) -> None:
    envelope = changed(sign(PAYLOAD, STATEMENT, signer), payload=b64(PAYLOAD + b" "))
    with pytest.raises(InvalidSignatureError, match=f"{signer.public_key.keyid}.*does not match the content"):
        verify(envelope, STATEMENT, [signer.public_key])


def test_an_envelope_of_another_kind_does_not_pass(signer: CryptoSigner) -> None:
    envelope = sign(PAYLOAD, MANIFEST, signer)
    with pytest.raises(InvalidSignatureError, match=f"{MANIFEST}.*not.*{STATEMENT}".replace("+", r"\+")):
        verify(envelope, STATEMENT, [signer.public_key])
    # Nor does it when its type is changed, which is signed.
    with pytest.raises(InvalidSignatureError, match="does not match"):
        verify(changed(envelope, payloadType=STATEMENT), STATEMENT, [signer.public_key])


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"payload": 1, "payloadType": "x", "signatures": []}',
        b'{"payload": "!", "payloadType": "x", "signatures": []}',
        b'{"payload": "", "payloadType": 1, "signatures": []}',
        b'{"payload": "", "payloadType": "x", "signatures": [1]}',
        b'{"payload": "", "payloadType": "x", "signatures": [{"keyid": [], "sig": ""}]}',
        b'{"payload": "", "payloadType": "x", "signatures": {"a": 1}}',
        b'{"payload": "", "payloadType": "\\ud800", "signatures": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_envelope_is_told(signer: CryptoSigner, envelope: bytes) -> None:
    with pytest.raises(InvalidSignatureError, match="not a DSSE envelope"):
        verify(envelope, STATEMENT, [signer.public_key])


def test_a_hostile_key_id_cannot_write_log_lines(signer: CryptoSigner) -> None:
    content = json.loads(sign(PAYLOAD, STATEMENT, signer))
    content["signatures"][0]["keyid"] = "x\nINFO verified" + "y" * 10_000
    with pytest.raises(UntrustedKeyError) as caught:
        verify(json.dumps(content).encode(), STATEMENT, [signer.public_key])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
