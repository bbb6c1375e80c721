"""Signing keys from Airflow connections of type ``cd_signing_key``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_cd.exceptions import SigningKeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesystemslib.signer import CryptoSigner, SSlibKey

_KINDS = "an Ed25519 or ECDSA P-256 key"


class SigningKeyHook(BaseHook):
    """
    Gives the key pair of a connection: Ed25519 or ECDSA P-256, in PEM.

    ``private_key`` (PKCS#8, not encrypted: Airflow encrypts connections) is needed to sign; ``public_key`` is
    needed only where there is no private one.

    :param conn_id: an Airflow connection of type ``cd_signing_key``
    """

    conn_name_attr = "conn_id"
    default_conn_name = "cd_signing_key_default"
    conn_type = "cd_signing_key"
    hook_name = "Signing key (CD)"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id

    def signer(self) -> CryptoSigner:
        """
        Return what signs.

        :raises SigningKeyError: there is no usable private key
        """
        from securesystemslib.signer import CryptoSigner

        private, public = self._private_key(), self._public_key()
        if private is None:
            raise SigningKeyError(
                f"connection {self.conn_id!r} holds no private key to sign with; enter {_KINDS} in PEM"
            )
        if public is not None and public != private.public_key():
            raise SigningKeyError(
                f"the public key of connection {self.conn_id!r} is not that of its private key; "
                "remove it, it is derived from the private one"
            )
        return CryptoSigner(private)

    def public_key(self) -> SSlibKey:
        """
        Return what verifies.

        :raises SigningKeyError: there is no usable key
        """
        from securesystemslib.signer import SSlibKey

        if (public := self._public_key()) is not None:
            return SSlibKey.from_crypto(public)
        if (private := self._private_key()) is not None:
            return SSlibKey.from_crypto(private.public_key())
        raise SigningKeyError(f"connection {self.conn_id!r} holds no key; enter the public key in PEM")

    def get_conn(self) -> Any:
        """Return the Airflow connection itself: a key has no session to open."""
        try:
            return self.get_connection(self.conn_id)
        except AirflowNotFoundException as error:
            raise SigningKeyError(
                f"Airflow has no connection {self.conn_id!r}; create it, of type {self.conn_type}"
            ) from error

    def _private_key(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        pem = self._pem("private_key")
        # Its lines too: what logs a text line by line shows none of them whole.
        for secret in (pem, *pem.splitlines()[1:-1]):
            mask_secret(secret)
        return self._loaded("private key", pem, lambda data: load_pem_private_key(data, password=None))

    def _public_key(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        return self._loaded("public key", self._pem("public_key"), load_pem_public_key)

    def _pem(self, field: str) -> str:
        value = self.get_conn().extra_dejson.get(field) or ""
        return str(value).strip()

    def _loaded(self, what: str, pem: str, load: Callable[[bytes], Any]) -> Any:
        """Return the key, or ``None`` for an empty field. What libraries say is left out: it may quote."""
        if not pem:
            return None
        place = f"the {what} of connection {self.conn_id!r}"
        try:
            key = load(pem.encode())
        except TypeError:
            raise SigningKeyError(
                f"{place} is encrypted; enter it without a passphrase, since Airflow encrypts connections"
            ) from None
        except Exception:  # ValueError, and what a damaged key makes of itself
            raise SigningKeyError(
                f"{place} cannot be read; enter {_KINDS} in PEM, from -----BEGIN to the end of -----END"
            ) from None
        if not _usable(key):
            raise SigningKeyError(f"{place} is of another kind; enter {_KINDS}")
        return key


def _usable(key: Any) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey))
