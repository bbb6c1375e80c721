"""What the service says."""

from __future__ import annotations


def greet(name: str) -> str:
    """Return a greeting; a blank name greets the world."""
    return f"Hello, {name.strip() or 'world'}!"
