"""Which object of a namespace something is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_cd.model.base import Frozen

# In front of the names of all labels and annotations of ours.
PREFIX = "airflow-cd/"
# On what somebody else had made before: it is never deleted.
ADOPTED = f"{PREFIX}adopted"


class Reference(Frozen):
    """
    One object of a namespace.

    :param uid: tells an object from another one that had its name before; ``None`` is any
    """

    api_version: str
    kind: str
    name: str
    uid: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes it this object: group, kind and name. The group's version does not."""
        return group_of(self.api_version), self.kind, self.name

    @property
    def described(self) -> str:
        """Return its name for people: ``Deployment/web``."""
        return f"{self.kind}/{self.name}"


def is_borrowed(obj: Mapping[str, Any]) -> bool:
    """
    Return whether an object is somebody else's, of which something is changed for a while.

    It is not deployed, hence without labels of ours; it is as it was read from the cluster, and what is
    deployed never is.
    """
    return "resourceVersion" in obj["metadata"]


def is_adopted(live: Mapping[str, Any]) -> bool:
    """Return whether an object of ours was somebody else's before; it is not ours to delete."""
    return ADOPTED in ((live.get("metadata") or {}).get("annotations") or {})


def group_of(api_version: str) -> str:
    """Return the group of an ``apiVersion``; that of ``v1`` has no name."""
    return api_version.rpartition("/")[0]


def reference_of(obj: Mapping[str, Any]) -> Reference:
    """Return what an object is called; it has its uid when it comes from a cluster."""
    metadata = obj["metadata"]
    return Reference(
        api_version=obj["apiVersion"], kind=obj["kind"], name=metadata["name"], uid=metadata.get("uid")
    )
