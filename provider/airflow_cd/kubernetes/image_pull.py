"""Why an image cannot be pulled, by the words of the container runtime: containerd, CRI-O, or Docker."""

from __future__ import annotations

import re
from typing import NamedTuple


class PullFailure(NamedTuple):
    """
    One reason why an image cannot be pulled, the same for all container runtimes.

    :param cause: completes "the image cannot be pulled because ..."; empty when the words are not known
    :param remedy: what to do
    :param lasting: the answer stays the same however often the image is pulled
    """

    cause: str
    remedy: str
    lasting: bool


_UNKNOWN = PullFailure(
    "",
    "Check its name and digest, that the registry has it, and that the namespace may pull it"
    " (imagePullSecrets)",
    False,
)
# The first that matches counts: what a registry denies is often "not found or denied", and what a node cannot
# store names snapshots that do not exist.
_KNOWN: tuple[tuple[str, PullFailure], ...] = (
    (
        r"pull policy of Never",
        PullFailure(
            "its node does not have it and its imagePullPolicy is Never",
            "Set imagePullPolicy to IfNotPresent, or load the image onto every node",
            True,
        ),
    ),
    (
        r"invalid reference format|couldn't parse image|could not parse reference",
        PullFailure("its name is not valid", "Correct the name, tag or digest of the image", True),
    ),
    (
        r"no match(ing manifest)? for |no image found in (image index|manifest list) for",
        PullFailure(
            "the registry has it for other machines only",
            "Build the image for the nodes' operating system and processor, or place the pods on nodes that"
            " it was built for (nodeSelector)",
            True,
        ),
    ),
    (
        r"gave HTTP response to HTTPS client|does not look like a TLS handshake"
        r"|HTTP request (was sent )?to (an )?HTTPS",
        PullFailure(
            "the registry and the node disagree about TLS",
            "Serve the registry with TLS, or have the nodes' container runtime use plain HTTP for it",
            True,
        ),
    ),
    (
        r"x509:|failed to verify certificate|certificate required|bad certificate|tls: handshake failure",
        PullFailure(
            "the node does not trust the registry's certificate",
            "Install its certificate authority on the nodes, or correct the registry's certificate",
            True,
        ),
    ),
    (
        r"verification failed|unexpected commit digest|failed size validation|signature validation failed",
        PullFailure(
            "the registry's content is not what its digest or signature says",
            "Push the image again, and find out who changed it in the registry",
            True,
        ),
    ),
    (
        r"toomanyrequests|too many requests|rate limit",
        PullFailure(
            "the registry limits how often it is asked",
            "Wait, pull with a login (imagePullSecrets), or use a mirror of the registry",
            False,
        ),
    ),
    (
        r"snapshot|no space left on device|failed to (extract|register) layer",
        PullFailure(
            "its node cannot store it", "Check the disk and the container runtime of the node", False
        ),
    ),
    (
        r"dial tcp|no such host|connection refused|connection reset|no route to host|network is unreachable"
        r"|timeout|deadline exceeded|request canceled|server misbehaving|\bEOF\b|registry is unavailable",
        PullFailure(
            "its node cannot reach the registry",
            "Check that the registry runs, and that the nodes can resolve its name and connect to it",
            False,
        ),
    ),
    (
        r"\b5\d\d (Internal|Not Impl|Bad Gateway|Service Unavail|Gateway)",
        PullFailure("the registry fails", "Check the registry and its log", False),
    ),
    (
        r"(?<!permission )\bdenied\b|unauthorized|forbidden|no basic auth|authentication required"
        r"|authorization failed",
        PullFailure(
            "the registry denies access to it",
            "Check its name, and name a login that may pull it in the pod's imagePullSecrets",
            True,
        ),
    ),
    (
        r"not found|(manifest|name|blob) unknown|unknown blob|does not exist",
        PullFailure(
            "the registry does not have it",
            "Push the image, or correct its name, tag or digest",
            True,
        ),
    ),
)
_PATTERNS = tuple((re.compile(words, re.IGNORECASE), failure) for words, failure in _KNOWN)
# What each layer of the node puts in front of the reason: the image's name three times over, mostly.
_WRAPPERS = re.compile(
    r'(Back-off pulling image "[^"]*": \w+: '
    r'|Failed to pull image "[^"]*": '
    r"|rpc error: code = \w+ desc = "
    r"|Error response from daemon: "
    r'|failed to pull (and unpack )?image "[^"]*": '
    r'|failed to resolve (reference "[^"]*"|image): )+'
)
_URL = re.compile(r"https?://[^\s\"]+")


def pull_failure(said: str, image: str) -> PullFailure:
    """
    Return why an image cannot be pulled.

    :param said: by the container runtime
    :param image: the image's name, which is no reason: it may be called "denied"
    """
    words = _URL.sub(" ", said)
    for name in _names(image):
        words = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", " ", words)
    return next((failure for pattern, failure in _PATTERNS if pattern.search(words)), _UNKNOWN)


def pull_reason(said: str) -> str:
    """Return what the runtime says, without what the layers of the node put in front of it."""
    return _WRAPPERS.sub("", said) or said


def _names(image: str) -> list[str]:
    """Return what an image is called in messages, the longest first: also without its tag, and its host."""
    repository = re.sub(r"(:[^:/@]+)?(@[^@]*)?$", "", image)
    host, _, path = repository.partition("/")
    names = {image, image.partition("@")[0], repository}
    if path and ("." in host or ":" in host):
        names |= {host, host.partition(":")[0], path}
    return sorted(filter(None, names), key=len, reverse=True)
