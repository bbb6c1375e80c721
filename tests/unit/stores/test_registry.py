"""A URL leads to its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_cd.exceptions import ArtifactError
from airflow_cd.stores.registry import open_store


@pytest.mark.parametrize("url", ["ftp://host/x", "/var/lib/artifacts", "s3:bucket", ""])
def test_an_unknown_scheme_names_the_known_ones(url: str) -> None:
    with pytest.raises(ArtifactError, match=f"{url.partition('://')[0]}.*known schemes: file"):
        open_store(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ArtifactError) as caught:
        open_store("ftp://user:secret@host/x")
    assert "secret" not in str(caught.value)


def test_schemes_are_case_insensitive(tmp_path: Path) -> None:
    assert open_store(f"FILE://{tmp_path}").put_bytes(b"x").startswith("sha256:")
