"""A connection gives a key, or an error that says what is wrong without saying the key."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from tests.support.signing_keys import connect, new_key, private_pem, public_pem

from airflow_cd.exceptions import SigningKeyError
from airflow_cd.hooks.signing import SigningKeyHook
from airflow_cd.packaging.provenance import STATEMENT, sign, verify


@pytest.fixture(params=["ed25519", "ecdsa"])
def key(request: pytest.FixtureRequest) -> Any:
    return new_key(request.param)


def test_one_connection_signs_and_another_verifies(monkeypatch: pytest.MonkeyPatch, key: Any) -> None:
    connect(monkeypatch, "own", private_key=private_pem(key))
    connect(monkeypatch, "theirs", public_key=public_pem(key))
    envelope = sign(b"x", STATEMENT, SigningKeyHook("own").signer())
    for conn_id in ("own", "theirs"):
        assert verify(envelope, STATEMENT, [SigningKeyHook(conn_id).public_key()]).payload == b"x"


@pytest.mark.parametrize("algorithm", [["ed25519"], ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]])
def test_the_commands_in_the_guide_make_usable_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, algorithm: list[str]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "signing.md").read_text()
    assert "openssl genpkey -algorithm ed25519 -out release.pem" in page
    assert "openssl pkey -in release.pem -pubout -out release.pub" in page
    for argv in (
        ["openssl", "genpkey", "-algorithm", *algorithm, "-out", "release.pem"],
        ["openssl", "pkey", "-in", "release.pem", "-pubout", "-out", "release.pub"],
    ):
        subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
    private, public = ((tmp_path / f"release.{end}").read_text() for end in ("pem", "pub"))
    connect(monkeypatch, "both", private_key=private, public_key=public)
    hook = SigningKeyHook("both")
    assert hook.signer().public_key.keyid == hook.public_key().keyid


@pytest.mark.parametrize(
    "mangle", [lambda pem: pem.replace("\n", " "), lambda pem: pem.replace("\n", "\r\n")]
)
def test_a_form_that_loses_line_ends_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, key: Any, mangle: Callable[[str], str]
) -> None:
    connect(monkeypatch, "own", private_key=mangle(private_pem(key)), public_key=mangle(public_pem(key)))
    SigningKeyHook("own").signer()


def body(pem: str) -> list[str]:
    return [line for line in pem.splitlines() if not line.startswith("-----")]


def encrypted(key: Any) -> str:
    return str(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")).decode()
    )


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        (lambda: "", "holds no private key"),
        (lambda: "s3cretnonsense", "cannot be read.*BEGIN"),
        (lambda: private_pem(new_key())[:-40], "cannot be read"),
        (lambda: private_pem(new_key()).replace("M", "\u00e9"), "cannot be read"),
        (lambda: public_pem(new_key()), "cannot be read"),
        (lambda: encrypted(new_key()), "is encrypted.*without a passphrase"),
        (lambda: private_pem(rsa_key(65537, 2048)), "of another kind; enter an Ed25519 or ECDSA P-256 key"),
        (lambda: private_pem(ec_key(SECP384R1())), "of another kind"),
    ],
)
def test_a_wrong_private_key_is_told_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, pem: Callable[[], str], says: str
) -> None:
    text = pem()
    connect(monkeypatch, "own", private_key=text)
    with pytest.raises(SigningKeyError, match=says) as caught:
        SigningKeyHook("own").signer()
    shown = repr(caught.value) + repr(caught.value.__cause__)
    assert "'own'" in shown
    assert not any(line in shown for line in body(text) if line)


def test_keys_that_do_not_belong_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "own", private_key=private_pem(new_key()), public_key=public_pem(new_key()))
    with pytest.raises(SigningKeyError, match="is not that of its private key"):
        SigningKeyHook("own").signer()


@pytest.mark.parametrize(
    ("fields", "says"),
    [({}, "holds no key"), ({"public_key": "x"}, "the public key of connection 'own' cannot be read")],
)
def test_without_a_public_key_nothing_is_verified(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], says: str
) -> None:
    connect(monkeypatch, "own", **fields)
    with pytest.raises(SigningKeyError, match=says):
        SigningKeyHook("own").public_key()


def test_a_missing_connection_is_named_with_its_type() -> None:
    with pytest.raises(SigningKeyError, match="no connection 'nowhere'.*cd_signing_key"):
        SigningKeyHook("nowhere").signer()


def test_the_private_key_is_masked(monkeypatch: pytest.MonkeyPatch, key: Any) -> None:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    pem = private_pem(key)
    connect(monkeypatch, "own", private_key=pem)
    SigningKeyHook("own").signer()
    logged = json.dumps([redact(pem.strip()), *(redact(line) for line in body(pem))])
    assert not any(re.search(re.escape(line), logged) for line in body(pem))
