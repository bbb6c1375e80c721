"""
An image that cannot be pulled: the same cause and remedy, whatever runtime the node has.

The words are those of the runtimes themselves. Docker 20.10 (which dockershim handed on) and containerd 1.6
were asked for each of these images; those of containerd 1.7 and 2 and of CRI-O are from their users' reports.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_cd.kubernetes.diagnosis import Container, Problem, container_problem
from airflow_cd.kubernetes.image_pull import pull_failure, pull_reason

NOW = datetime(2026, 11, 27, 3, 0, 0, tzinfo=timezone.utc)
IMAGE = "r.example:5000/team/web:1"
PULL = f'failed to pull and unpack image "{IMAGE}": '
RESOLVE = f'{PULL}failed to resolve reference "{IMAGE}": '
# containerd 2.1 and later.
TRANSFER = f"{PULL}failed to resolve image: "
UNKNOWN = "rpc error: code = Unknown desc = "
NOT_FOUND = "rpc error: code = NotFound desc = "
DAEMON = f"{UNKNOWN}Error response from daemon: "
HEAD = 'failed to do request: Head "https://r.example:5000/v2/team/web/manifests/1": '
STATUS = "unexpected status from HEAD request to https://r.example:5000/v2/team/web/manifests/1: "
ANONYMOUS = "failed to authorize: failed to fetch anonymous token: "
DIGEST = "sha256:" + "2" * 64

SAID = {
    "the registry does not have it": [
        f"{DAEMON}manifest for {IMAGE} not found: manifest unknown: manifest unknown",
        f"{DAEMON}manifest unknown",
        f"{UNKNOWN}unknown blob",
        f"{NOT_FOUND}{RESOLVE}{IMAGE}: not found",
        f"{NOT_FOUND}{PULL}failed to copy: httpReadSeeker: failed open: content at "
        f"https://r.example:5000/v2/team/web/manifests/{DIGEST} not found: not found",
        f"{NOT_FOUND}{TRANSFER}{IMAGE}: not found",
        f"{UNKNOWN}reading manifest 1 in r.example:5000/team/web: manifest unknown",
    ],
    "the registry denies access to it": [
        f"{DAEMON}pull access denied for r.example:5000/team/web, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied",
        f'{DAEMON}Head "https://r.example:5000/v2/team/web/manifests/1": no basic auth credentials',
        f'{DAEMON}Head "https://r.example:5000/v2/team/web/manifests/1": unauthorized: incorrect username or '
        "password",
        f'{DAEMON}Head "https://r.example:5000/v2/team/web/manifests/1": denied: denied',
        f"{DAEMON}denied",
        f"{RESOLVE}pull access denied, repository does not exist or may require authorization: server "
        "message: insufficient_scope: authorization failed",
        f"{RESOLVE}pulling from host r.example:5000 failed with status code [manifests 1]: 401 Unauthorized",
        f"{RESOLVE}pulling from host r.example:5000 failed with status code [manifests 1]: 403 Forbidden",
        f"{RESOLVE}{ANONYMOUS}unexpected status: 401 Unauthorized",
        f"{RESOLVE}{ANONYMOUS}unexpected status from GET request to https://r.example/token?scope=repository"
        "%3Ateam%2Fweb%3Apull&service=r: 403 Forbidden",
        f"{RESOLVE}{STATUS}403 Forbidden",
        f"{TRANSFER}pull access denied, repository does not exist or may require authorization: "
        "authorization failed: no basic auth credentials",
        f"{UNKNOWN}reading manifest 1 in r.example:5000/team/web: unauthorized: access to the requested "
        "resource is not authorized",
    ],
    "its node cannot reach the registry": [
        f'{DAEMON}Get "https://r.example:5000/v2/": dial tcp 10.0.0.9:5000: connect: connection refused',
        f'{DAEMON}Get "https://r.example:5000/v2/": dial tcp: lookup r.example on 10.0.0.2:53: no such host',
        f'{DAEMON}Get "https://r.example:5000/v2/": net/http: request canceled while waiting for connection '
        "(Client.Timeout exceeded while awaiting headers)",
        f"{RESOLVE}{HEAD}dial tcp 10.0.0.9:5000: connect: connection refused",
        f"{RESOLVE}{HEAD}dial tcp: lookup r.example on 10.96.0.10:53: no such host",
        f"{RESOLVE}{HEAD}dial tcp 10.0.0.9:5000: i/o timeout",
        f"{RESOLVE}{HEAD}read tcp 10.0.0.1:33450->10.0.0.9:5000: read: connection reset by peer",
        f"{RESOLVE}{HEAD}net/http: TLS handshake timeout",
        f"{RESOLVE}{HEAD}EOF",
        f"{TRANSFER}{HEAD}context deadline exceeded",
        f'{RESOLVE}failed to authorize: failed to fetch anonymous token: Get "https://auth.example/token": '
        "dial tcp 10.0.0.9:443: connect: no route to host",
        f"image pull failed for {IMAGE} because the registry is unavailable",
    ],
    "the registry fails": [
        f"{DAEMON}received unexpected HTTP status: 503 Service Unavailable",
        f"{RESOLVE}pulling from host r.example:5000 failed with status code [manifests 1]: 500 Internal "
        "Server Error",
        f"{TRANSFER}{STATUS}502 Bad Gateway",
    ],
    "the registry limits how often it is asked": [
        f"{DAEMON}toomanyrequests: You have reached your pull rate limit.",
        f"{RESOLVE}pulling from host r.example:5000 failed with status code [manifests 1]: 429 Too Many "
        "Requests",
        f"{TRANSFER}{STATUS}429 Too Many Requests",
    ],
    "the node does not trust the registry's certificate": [
        f'{DAEMON}Get "https://r.example:5000/v2/": x509: certificate signed by unknown authority',
        f"{RESOLVE}{HEAD}x509: certificate signed by unknown authority",
        f"{RESOLVE}{HEAD}x509: cannot validate certificate for 10.0.0.9 because it doesn't contain any IP "
        "SANs",
        f"{RESOLVE}{HEAD}tls: failed to verify certificate: x509: certificate signed by unknown authority",
        f"{TRANSFER}{HEAD}remote error: tls: certificate required",
    ],
    "the registry and the node disagree about TLS": [
        f'{DAEMON}Get "https://r.example:5000/v2/": http: server gave HTTP response to HTTPS client',
        f'{DAEMON}Get "https://r.example:5000/v2/": tls: first record does not look like a TLS handshake',
        f"{RESOLVE}{HEAD}http: server gave HTTP response to HTTPS client",
        f"{TRANSFER}{HEAD}tls: first record does not look like a TLS handshake",
        f"{DAEMON}Client sent an HTTP request to an HTTPS server.",
    ],
    "its name is not valid": [
        'Failed to apply default image tag "NOT//valid:::x": couldn\'t parse image reference '
        '"NOT//valid:::x": invalid reference format: repository name must be lowercase',
        'Failed to apply default image tag "r/web@sha256:1": couldn\'t parse image name "r/web@sha256:1": '
        "invalid reference format",
    ],
    "the registry has it for other machines only": [
        f"{UNKNOWN}no matching manifest for linux/amd64 in the manifest list entries",
        f"{NOT_FOUND}{PULL}no match for platform in manifest: not found",
        f"{NOT_FOUND}{PULL}failed to resolve image: no match for platform in manifest {DIGEST}: not found",
        f"{UNKNOWN}choosing image instance: no image found in manifest list for architecture amd64, variant "
        '"", OS linux',
    ],
    "the registry's content is not what its digest or signature says": [
        f"{UNKNOWN}manifest verification failed for digest {DIGEST}",
        f'rpc error: code = FailedPrecondition desc = {PULL}failed commit on ref "manifest-{DIGEST}": '
        f"unexpected commit digest sha256:bbc2, expected {DIGEST}: failed precondition",
        f"image pull failed for {IMAGE} because the signature validation failed",
    ],
    "its node cannot store it": [
        f"{UNKNOWN}failed to register layer: Error processing tar file(exit status 1): write /usr/lib/x: no "
        "space left on device",
        f'{NOT_FOUND}{PULL}failed to prepare extraction snapshot "extract-795119289-7389 {DIGEST}": parent '
        f"snapshot {DIGEST} does not exist: not found",
        f"{UNKNOWN}{PULL}failed to extract layer {DIGEST}: open /var/lib/containerd/x: permission denied",
    ],
    "its node does not have it and its imagePullPolicy is Never": [
        f'Container image "{IMAGE}" is not present with pull policy of Never',
    ],
}
MAY_PASS = {
    *("its node cannot reach the registry", "the registry fails"),
    *("the registry limits how often it is asked", "its node cannot store it"),
}


def problem(
    said: str, *, reason: str = "ErrImagePull", image: str = IMAGE, events: list[dict[str, Any]] | None = None
) -> Problem:
    """Return the problem of a container whose image was pulled twice, and which waits for this reason."""
    event = {"reason": "Failed", "message": f'Failed to pull image "{image}": {said}', "count": 2}
    about = {"fieldPath": "spec.containers{app}"}
    status = {
        "name": "app",
        "image": image,
        "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": said}},
    }
    found = [{**one, "involvedObject": about} for one in (events or [event])]
    one = container_problem(Container({"metadata": {"name": "web-1"}}, status, found, NOW))
    assert one is not None
    return one


CASES = [(cause, said) for cause, messages in SAID.items() for said in messages]


@pytest.mark.parametrize(("cause", "said"), CASES)
def test_the_cause_is_the_same_for_all_runtimes(cause: str, said: str) -> None:
    found = problem(said)
    assert found.summary == (
        f"Pod web-1: container app has no image: {IMAGE} cannot be pulled because {cause}"
    )
    assert (found.category, found.certain) == ("image", cause not in MAY_PASS)
    assert len({pull_failure(other, IMAGE).remedy for other in SAID[cause]}) == 1
    assert found.remedy == pull_failure(said, IMAGE).remedy and found.remedy in found.text


@pytest.mark.parametrize(("cause", "said"), CASES)
def test_it_is_the_same_while_the_kubelet_waits_before_the_next_pull(cause: str, said: str) -> None:
    for waits in (
        f'Back-off pulling image "{IMAGE}"',
        f'Back-off pulling image "{IMAGE}": ErrImagePull: {said}',
    ):
        event = {"reason": "Failed", "message": f'Failed to pull image "{IMAGE}": {said}', "count": 2}
        assert problem(waits, reason="ImagePullBackOff", events=[event]) == problem(said)


def test_who_may_not_read_events_hears_of_the_cause_too() -> None:
    said = f'Back-off pulling image "{IMAGE}": ErrImagePull: {NOT_FOUND}{RESOLVE}{IMAGE}: not found'
    found = problem(said, reason="ImagePullBackOff", events=[{"reason": "Pulling", "message": "Pulling"}])
    assert "because the registry does not have it" in found.summary
    assert (found.detail, found.certain) == (f"{IMAGE}: not found", False)


def test_a_message_that_is_different_each_time_was_said_twice_as_well() -> None:
    events = [
        {"reason": "Failed", "message": f'Failed to pull image "{IMAGE}": {RESOLVE}denied (request {number})'}
        for number in (1, 2)
    ]
    assert problem(f"{RESOLVE}denied (request 2)", events=events).certain
    assert not problem(f"{RESOLVE}denied (request 2)", events=events[:1]).certain


@pytest.mark.parametrize("runtime", [f"{NOT_FOUND}", f"{DAEMON}"])
def test_the_reason_is_not_cut_off_behind_names_with_digests(runtime: str) -> None:
    """containerd names the image three times before it says why."""
    image = f"registry.example:5000/a-team/a-service@{DIGEST}"
    said = (
        f'{runtime}failed to pull and unpack image "{image}": failed to resolve reference "{image}": '
        f"{image}: something new"
    )
    assert problem(said, image=image).detail == f"{image}: something new"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("r.example/forbidden:1", f'{DAEMON}Head "https://r.example/v2/forbidden/manifests/1": i/o pause'),
        ("r.example/forbidden:1", "repository r.example/forbidden has a pause"),
        ("forbidden/web:1", 'failed to resolve reference "docker.io/forbidden/web:1": pause'),
        ("forbidden.example:5000/web:1", "lookup forbidden.example on 10.96.0.10:53: pause"),
    ],
)
def test_the_name_of_an_image_is_no_reason(image: str, said: str) -> None:
    assert pull_failure(said, image).cause == ""
    found = problem(said, image=image)
    assert found.summary.endswith(f"{image} cannot be pulled (ErrImagePull)") and not found.certain


@pytest.mark.parametrize("reason", ["RegistryUnavailable", "SignatureValidationFailed"])
def test_reasons_of_newer_kubelets_are_about_the_image(reason: str) -> None:
    assert problem("pause", reason=reason).category == "image"


@pytest.mark.parametrize("said", ["", "a reason", "rpc error: code = Unknown desc = "])
def test_words_that_are_not_known_are_kept(said: str) -> None:
    assert pull_reason(said) == said
