"""Signing keys, and the Airflow connections that hold them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


def new_key(kind: str = "ed25519") -> Any:
    """Return a private key, ``ed25519`` or ``ecdsa``."""
    return Ed25519PrivateKey.generate() if kind == "ed25519" else ec_key(SECP256R1())


def private_pem(key: Any) -> str:
    """Return what `openssl genpkey` would write."""
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def public_pem(key: Any) -> str:
    """Return the public half of a private key."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: str) -> None:
    """Define a connection of type ``cd_signing_key`` for this process."""
    content = json.dumps({"conn_type": "cd_signing_key", "extra": fields})
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", content)
