"""Who signs releases, and whose signatures an environment demands. Keys lie in Airflow connections."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from airflow_cd.model.base import Frozen

ConnId = Annotated[str, StringConstraints(min_length=1)]


class SigningSettings(Frozen):
    """
    Releases are signed when they are packaged.

    :param conn_id: Airflow connection of type ``cd_signing_key`` that holds the private key
    """

    conn_id: ConnId


class VerificationSettings(Frozen):
    """
    Nothing is deployed here unless its manifest and its provenance are signed.

    :param conn_ids: Airflow connections of type ``cd_signing_key``; a signature by any one of their keys is
        enough. A public key is all they need to hold.
    """

    conn_ids: Annotated[tuple[ConnId, ...], Field(min_length=1)]
