"""How many instances each of two releases has while one takes over from the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from airflow_cd.model.progress import Progress
from airflow_cd.model.strategy import CanaryStep


class Share(NamedTuple):
    """Instances of what ran before, and of what is coming."""

    stable: int
    canary: int


def split_replicas(size: int, weight: int) -> Share:
    """
    Return the instances by which requests are shared out when a Service sends as many to each.

    Between nothing and everything both have at least one, so that there is something to measure, and
    something to go back to. Their sum is ``size``; only where that is 1, each has one.

    :param size: how many there are to be
    :param weight: percent for what is coming
    """
    if size <= 0 or weight <= 0:
        return Share(max(size, 0), 0)
    if weight >= 100:
        return Share(0, size)
    if size == 1:
        return Share(1, 1)
    canary = min(max((size * weight + 50) // 100, 1), size - 1)
    return Share(size - canary, canary)


def replicas_for_weight(size: int, weight: int) -> int:
    """Return how many of ``size`` instances can serve this percentage of the requests."""
    return -(-size * weight // 100)


def weights(steps: Sequence[CanaryStep], progress: Progress) -> tuple[int, int]:
    """
    Return what what is coming got before, and what it is to get, in percent.

    When everything is being given to it, or back, these are the last two shares that it got one by one.
    """
    taken = [step.weight for step in steps[: progress.step + 1] if step.weight is not None]
    before, after = ([0, 0, *taken])[-2:]
    return before, after
