"""
A deployment in a process of its own, for tests of two at the same moment and of killed workers.

``python -m airflow_cd.testing.rival SERVICE ENVIRONMENT RELEASE STORE DATA EXPECTED ACTOR`` loads what it
needs, prints ``READY`` and waits for a line on its standard input. Then it deploys, and prints
``WON <generation>`` or ``LOST <error> <message>``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """
    Deploy once.

    :param arguments: as on the command line; environment and release as JSON
    """
    from airflow_cd.hooks.clients import CLIENTS
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.packaging.archive import unpack
    from airflow_cd.stores.registry import open_store
    from airflow_cd.targets.base import Access
    from airflow_cd.targets.registry import open_target

    logging.disable()
    service, environment, release, store, data, expected, actor = arguments
    access = Access(
        Path(data),
        unpack,
        clients=CLIENTS,
    )
    target = open_target(service, Environment.model_validate_json(environment), access)
    target.record()  # all that is needed is imported, and connected
    print("READY", flush=True)
    sys.stdin.readline()
    try:
        record = target.deploy(
            Release.model_validate_json(release), open_store(store), expected=int(expected), actor=actor
        )
        print("WON", record.generation)
    except Exception as error:
        print("LOST", type(error).__name__, error)


if __name__ == "__main__":
    main(sys.argv[1:])
