"""What the service answers."""

from __future__ import annotations


def shout(text: str) -> str:
    """Return the text in upper case; no text at all is silence."""
    return f"{text.strip().upper()}!" if text.strip() else "..."
