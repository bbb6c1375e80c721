"""Metadata databases for Airflows of the tests: PostgreSQL where a server is named, else SQLite."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

# A role there may create databases. On SQLite all of Airflow's components wait for one another's writes,
# up to a minute when one of them dies in the middle: the suites that kill things are quicker on a server.
_SERVER = os.environ.get("CD_TEST_POSTGRES_URL")


@contextmanager
def metadata_database() -> Iterator[str | None]:
    """
    Make an empty database, which is gone at the end of the block.

    :return: its SQLAlchemy URL; ``None`` where no server is named, for a SQLite file
    """
    if not _SERVER:
        yield None
        return
    server, name = make_url(_SERVER), f"cd_test_{os.getpid()}_{secrets.token_hex(4)}"
    _execute(server, f'CREATE DATABASE "{name}"')
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def database_template(root: Path) -> Path:
    """
    Return where the migrated, empty SQLite database of the installed Airflow version is kept.

    Migrating takes many seconds, and each version needs another schema. The first Airflow of a checkout
    creates the file, the others copy it.

    :param root: the checkout
    """
    return root / ".pytest_cache" / f"airflow-{version('apache-airflow-core')}.db"


def fab_database_template(root: Path) -> Path:
    """Return where the one that has the tables of FAB's users, too, is kept."""
    plain = database_template(root)
    return plain.with_name(f"{plain.stem}-fab-{version('apache-airflow-providers-fab')}.db")


def _execute(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
