"""What the clocks of a time zone show, and when they show it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator

_MINUTE = timedelta(minutes=1)


def instant(wall: datetime, zone_name: str, fold: int = 0) -> datetime:
    """
    Return when the clocks of the zone show this time; of a time they skip, when they go on.

    :param wall: without a time zone
    :param fold: of a time that comes twice, 0 for the first and 1 for the second one
    """
    zone = ZoneInfo(zone_name)
    found = wall.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc)
    if found.astimezone(zone).replace(tzinfo=None) == wall:
        return found
    # Skipped. Read with the offset from before (fold 0), it lies after the jump: go back to that.
    found = wall.replace(tzinfo=zone, fold=0).astimezone(timezone.utc)
    after = found.astimezone(zone).utcoffset()
    found = found.replace(second=0, microsecond=0)
    while (found - _MINUTE).astimezone(zone).utcoffset() == after:
        found -= _MINUTE
    return found


def local(time: datetime, zone_name: str) -> str:
    """Return an aware time as the clocks of the zone show it, with the zone's abbreviation."""
    return time.astimezone(ZoneInfo(zone_name)).strftime("%Y-%m-%d %H:%M %Z")


def _valid_zone(name: str) -> str:
    """Return the name. :raises ValueError: it is not an IANA time zone"""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("is not a time zone; write an IANA name such as Europe/Berlin or UTC") from error
    return name


# An IANA time zone that this machine knows.
ZoneName = Annotated[str, AfterValidator(_valid_zone)]
