"""What a test needs of the machine it runs on."""

from __future__ import annotations

import os

import pytest


def require(found: object, what: str) -> None:
    """
    Go on when ``found`` is true, else skip the test; fail it where ``CD_REQUIRE_ALL`` is set.

    :param what: what is needed and how to get it, for whoever reads the list of skipped tests
    """
    if found:
        return
    if os.environ.get("CD_REQUIRE_ALL"):
        pytest.fail(f"{what} (CD_REQUIRE_ALL is set, so this is not skipped)", pytrace=False)
    pytest.skip(what)
