"""What the API's refusals mean, and what to do about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import (
    AccessDeniedError,
    ClusterError,
    DeployConflictError,
    FieldConflictError,
    ManifestError,
    TargetError,
)
from airflow_cd.model.cluster_access import NOT_ACCEPTED, Missing, missing_in

if TYPE_CHECKING:
    from kubernetes.client import ApiException

_CONFLICT = re.compile(r'conflict with "(?P<manager>[^"]*)"(?P<how>.*)', re.DOTALL)
# Said by servers before 1.22 of an object that is not valid, with the code of an error of their own.
_BLAMED = ("failed to create typed patch object", "unable to convert unstructured object")


def problem_of(error: ApiException, where: str, namespace: str, what: str | None = None) -> TargetError:
    """
    Return our error for one of the API's.

    :param where: names the service and its place
    :param namespace: in which the request was made
    :param what: names the object that the request was about
    """
    status = _status(error)
    message = str(status.get("message") or error.reason or error.status)
    place = f"{where}: {what}" if what else where
    if error.status == 401:
        return ClusterError(f"{where}: {NOT_ACCEPTED}")
    if error.status == 403:
        return _denied(status, message, where, namespace)
    if error.status == 404:
        return _not_found(status, message, place)
    if error.status == 409:
        return _conflict(status, message, place)
    if error.status in (400, 422) or blames_object(message):
        return _invalid(status, message, place, secret=is_secret(what))
    return TargetError(f"{place}: the cluster failed ({error.status or 'no answer'}): {message}")


def blames_object(text: str) -> bool:
    """Return whether the server says that an object is not valid, whatever code it says that with."""
    return any(words in text for words in _BLAMED)


def is_secret(what: str | None) -> bool:
    """Return whether what the API says of an object may quote secrets."""
    return (what or "").startswith("Secret/")


def is_absent(error: ApiException, name: str) -> bool:
    """Return whether the API says that it has no object of this name, rather than no such kind."""
    details = _status(error).get("details") or {}
    return error.status == 404 and details.get("name") == name and details.get("kind") != "namespaces"


def is_unknown_kind(error: ApiException) -> bool:
    """Return whether the API does not know the path of a kind."""
    return error.status == 404 and not (_status(error).get("details") or {}).get("name")


def _status(error: ApiException) -> dict[str, Any]:
    try:
        found = json.loads(error.body or "")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _denied(status: Mapping[str, Any], message: str, where: str, namespace: str) -> TargetError:
    missing = missing_in(message)
    if missing is not None:
        return AccessDeniedError(f"{where}: {missing.explained}")
    details = status.get("details") or {}
    if message.rstrip().endswith("is forbidden:"):
        # What an application is told that may change objects, but make none.
        resource, group = str(details.get("kind")), str(details.get("group") or "")
        missing = Missing("the deployer", "create", resource, group, namespace)
        return AccessDeniedError(f"{where}: {missing.explained}")
    return _refused(message, where)


def _refused(message: str, where: str) -> TargetError:
    """Return what is refused with the code of missing rights, and is about something else mostly."""
    if "attempting to grant" in message:
        return AccessDeniedError(f"{where}: nobody gives rights that he has not: {message}")
    if "being terminated" in message:
        return TargetError(f"{where}: the namespace is being removed: {message}")
    # A quota, or one of the cluster's own rules.
    return ManifestError(f"{where}: the cluster refuses: {message}")


def _not_found(status: Mapping[str, Any], message: str, place: str) -> TargetError:
    details = status.get("details") or {}
    if details.get("kind") == "namespaces":
        return TargetError(
            f"{place}: namespace {details.get('name')} does not exist. Create it, or correct `namespace` "
            "of the target."
        )
    return TargetError(f"{place}: {message}")


def _conflict(status: Mapping[str, Any], message: str, place: str) -> TargetError:
    causes = (status.get("details") or {}).get("causes") or []
    fields = [one for one in causes if one.get("reason") == "FieldManagerConflict"]
    if not fields:
        return DeployConflictError(f"{place} was changed by somebody else meanwhile: {message}")
    lines = "\n".join(f"  {one.get('field')} is managed by {_manager(one)}" for one in fields)
    return FieldConflictError(
        f"{place}: somebody else manages what the release sets:\n{lines}\n"
        "Write `on_conflict: take` into the target to take these fields over; or take them out of the "
        "manifests, or stop the other manager."
    )


def _manager(cause: Mapping[str, Any]) -> str:
    found = _CONFLICT.search(str(cause.get("message", "")))
    return f"{found['manager']!r}{found['how']}" if found else str(cause.get("message"))


def _invalid(status: Mapping[str, Any], message: str, place: str, secret: bool) -> TargetError:
    causes = (status.get("details") or {}).get("causes") or []
    if secret:
        fields = ", ".join(str(one.get("field")) for one in causes) or "some field"
        return ManifestError(
            f"{place} is refused: {fields} is not valid. Why is not shown: it may be secret."
        )
    lines = [f"  {one.get('field')}: {one.get('message')}" for one in causes]
    text = f"{place} is refused:\n" + "\n".join(lines or [f"  {message}"])
    if "field is immutable" in text:
        text += "\nGive the object another name, or delete it in the cluster first; it cannot be changed so."
    return ManifestError(text)
