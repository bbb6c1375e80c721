"""Releases for tests, from where authors of targets have them too."""

from airflow_cd.testing.releases import NEW_YEAR, release_of

__all__ = ["NEW_YEAR", "release_of"]
