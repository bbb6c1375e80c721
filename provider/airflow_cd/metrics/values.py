"""What other programs write for a number."""

from __future__ import annotations

import math
from typing import Any

from airflow_cd.exceptions import MetricError
from airflow_cd.model.text import printable


def number_of(found: Any) -> float | None:
    """
    Return a number as JSON, or a text in it, has it; ``None`` for null, NaN and what is infinite.

    True is 1, and false is 0.

    :raises MetricError: it is no number
    """
    if found is None:
        return None
    try:
        if not isinstance(found, (bool, int, float, str)) or (isinstance(found, str) and "_" in found):
            raise ValueError("no number")
        value = float(found)
    except OverflowError:
        return None
    except ValueError as error:
        raise MetricError(f"{printable(repr(found), 80)} is not a number") from error
    return value if math.isfinite(value) else None
