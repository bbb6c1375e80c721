"""The name of :mod:`airflow_cd.preload` until 0.1; an ``airflow_local_settings.py`` of then keeps working."""

from __future__ import annotations

from airflow_cd.preload import preload as warm

__all__ = ["warm"]
