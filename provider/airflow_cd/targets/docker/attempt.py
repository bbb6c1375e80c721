"""What one attempt to deploy is called, so that it shares no name with another."""

from __future__ import annotations

from typing import NamedTuple


class Attempt(NamedTuple):
    """
    One attempt to make a generation. Two can be made of one number, when a holder lost its lease.

    :param generation: that it makes
    :param token: unique; empty for what the former version made, which had numbers only
    """

    generation: int
    token: str = ""

    @classmethod
    def of(cls, name: str) -> Attempt:
        """Return the attempt of this name."""
        generation, _, token = name.partition("-")
        return cls(int(generation), token)

    @property
    def name(self) -> str:
        """Return what its record and its container are called."""
        return f"{self.generation}-{self.token}" if self.token else str(self.generation)

    @property
    def alias(self) -> str:
        """Return what the front calls its container."""
        return f"g{self.name}"
