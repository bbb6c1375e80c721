"""What a cluster says when its roles do not let somebody do something, and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple

# With the code 401.
NOT_ACCEPTED = (
    "the cluster does not accept the credentials (401). Renew the token or the certificate of the connection "
    "or of the kubeconfig."
)
_DENIED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" '
    r'in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)


class Missing(NamedTuple):
    """
    One rule that somebody's roles lack.

    :param group: API group; empty for the core's
    :param namespace: ``None`` for the whole cluster
    """

    user: str
    verb: str
    resource: str
    group: str
    namespace: str | None

    @property
    def explained(self) -> str:
        """Return who may not do what, and the rule to add."""
        place = f"in namespace {self.namespace}" if self.namespace else "in the whole cluster"
        role = f"a Role of namespace {self.namespace}" if self.namespace else "a ClusterRole"
        rule = f'- apiGroups: ["{self.group}"]\n  resources: ["{self.resource}"]\n  verbs: ["{self.verb}"]'
        return (
            f"{self.user} may not {self.verb} {self.resource} of API group {self.group or 'core'!r} {place}. "
            f"Add this to the rules of {role} that is bound to {self.user}:\n{rule}"
        )


def missing_in(message: str) -> Missing | None:
    """Return what a refusal (403) says that is missing, if it says so."""
    found = _DENIED.search(message)
    return Missing(**found.groupdict()) if found is not None else None
