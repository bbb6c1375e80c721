"""What it means that the cluster refuses, or does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_cd.exceptions import CdError, CommandError, RunnerError
from airflow_cd.model.cluster_access import NOT_ACCEPTED, missing_in


@contextmanager
def reported(namespace: str) -> Iterator[None]:
    """
    Say of errors of the cluster and of its connection what they are about, and what to do.

    :raises RunnerError: instead of these
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError
    from websocket import WebSocketBadStatusException, WebSocketException

    try:
        yield
    except (RunnerError, CommandError):
        raise
    except CdError as error:  # of the connection
        raise RunnerError(str(error)) from error
    except ApiException as error:
        raise RunnerError(_explained(error.status, error.body or error.reason, namespace)) from error
    except WebSocketBadStatusException as error:
        raise RunnerError(_explained(error.status_code, error.resp_body, namespace)) from error
    except (HTTPError, WebSocketException) as error:
        raise RunnerError(f"the cluster cannot be reached: {error}") from error


def _explained(status: int | None, body: object, namespace: str) -> str:
    message = _message(body)
    if status == 401:
        return NOT_ACCEPTED
    if status == 403 and (missing := missing_in(message)):
        # All that a runner does is in its namespace.
        return missing._replace(namespace=namespace).explained
    if status == 404 and f'namespaces "{namespace}" not found' in message:
        return f"namespace {namespace} does not exist. Create it, or correct `runner.kubernetes.namespace`."
    if status in (400, 403, 422):
        return f"the cluster refuses: {message}"
    return f"the cluster failed ({status or 'no answer'}): {message}"


def _message(body: object) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return str(found.get("message", text)) if isinstance(found, dict) else text
