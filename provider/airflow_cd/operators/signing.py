"""What signs the work of the tasks that make something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.exceptions import SigningKeyError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from airflow_cd.model.service import Service


def signer_of(service: Service) -> CryptoSigner | None:
    """
    Return what signs the service's builds and releases, ``None`` when nobody does.

    :raises AirflowFailException: its connection is missing, or holds no usable private key
    """
    if service.signing is None:
        return None
    from airflow_cd.hooks.signing import SigningKeyHook

    try:
        return SigningKeyHook(service.signing.conn_id).signer()
    except SigningKeyError as error:
        raise AirflowFailException(f"{service.name} is to be signed, but {error}") from error
