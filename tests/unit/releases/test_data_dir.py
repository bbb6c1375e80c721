"""The folder that all data of this package lie in."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_cd.releases.adapters import data_dir


def test_only_its_user_can_look_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CD__DATA_DIR", str(tmp_path / "a/cd"))
    assert data_dir().stat().st_mode & 0o777 == 0o700


def test_one_that_an_administrator_made_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cd").mkdir()
    (tmp_path / "cd").chmod(0o750)
    monkeypatch.setenv("AIRFLOW__CD__DATA_DIR", str(tmp_path / "cd"))
    assert data_dir().stat().st_mode & 0o777 == 0o750
