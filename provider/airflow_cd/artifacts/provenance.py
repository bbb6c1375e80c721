"""
SLSA v1 provenance: how a release was made.

The statement follows https://in-toto.io/Statement/v1 with the predicate https://slsa.dev/provenance/v1
(specification: https://slsa.dev/spec/v1.0/provenance).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

# git's short form of an ssh URL: user@host:path
_SHORT_SSH = re.compile(r"(?:[^/:@]+@)?([^/:@]+):(?!//)/*(.+)")

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://pypi.org/project/airflow-provider-cd/#build-v1"


def provenance(
    *,
    release_name: str,
    digest: str,
    repository: str,
    revision: str,
    tree: str,
    commands: Sequence[Sequence[str]],
    suites: Mapping[str, Sequence[Sequence[str]]],
    builder_id: str,
    invocation_id: str,
    started_on: datetime,
) -> bytes:
    """
    Return the statement as canonical JSON: the same input gives the same bytes.

    Hence it says when the invocation started, and not when it finished, which a retry would change.

    :param release_name: file name of the archive
    :param digest: ``sha256:`` digest of the archive
    :param repository: where the source came from; user names and tokens in it are left out
    :param tree: git hash of the service's folder at that revision
    :param started_on: with its time zone
    :param invocation_id: what started the build, as a person can find it in Airflow
    """
    algorithm, _, value = digest.partition(":")
    source = f"git+{_public_url(repository)}@{revision}"
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": release_name, "digest": {algorithm: value}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "source": source,
                    "commands": [list(argv) for argv in commands],
                    "tests": {name: [list(argv) for argv in suite] for name, suite in suites.items()},
                },
                "internalParameters": {},
                "resolvedDependencies": [{"uri": source, "digest": {"gitCommit": revision, "gitTree": tree}}],
            },
            "runDetails": {
                "builder": {"id": builder_id},
                "metadata": {"invocationId": invocation_id, "startedOn": _timestamp(started_on)},
            },
        },
    }
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


class Claim(NamedTuple):
    """What a statement says was made, and from which commits."""

    digests: list[str]
    commits: list[str]


def claim(statement: bytes) -> Claim:
    """Return what a statement claims. :raises ValueError: it is not SLSA v1 provenance"""
    try:
        content = json.loads(statement)
        if (content["_type"], content["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise ValueError(f"it is not a statement of type {PREDICATE_TYPE}")
        sources = content["predicate"]["buildDefinition"]["resolvedDependencies"]
        return Claim(
            digests=[f"sha256:{subject['digest']['sha256']}" for subject in content["subject"]],
            commits=[source["digest"]["gitCommit"] for source in sources],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not SLSA v1 provenance: {error!r}") from error


def _public_url(repository: str) -> str:
    """Return the URL without what may be a secret in it: user, password, query."""
    parts = urlsplit(repository)
    if parts.scheme and parts.netloc:
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    short = _SHORT_SSH.fullmatch(repository)
    if short:
        return f"ssh://{short[1]}/{quote(short[2])}"
    return "file://" + quote(os.path.abspath(parts.path if parts.scheme == "file" else repository))


def _timestamp(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
