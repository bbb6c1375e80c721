"""How an environment changes from one release to the next."""

from __future__ import annotations

from typing import Literal

Strategy = Literal["rolling"]
