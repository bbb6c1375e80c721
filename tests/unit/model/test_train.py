"""When a train departs, and in which order it deploys."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.train import Order, Train, departure_order, predecessors


def order(service: str, *after: str) -> Order:
    return Order(service=service, after=after)


def utc(when: str) -> datetime:
    return datetime.fromisoformat(when).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("zone", "now", "departs"),
    [
        ("UTC", "2026-07-01T01:00", "2026-07-01T02:00"),
        ("Asia/Kolkata", "2026-07-01T01:00", "2026-07-01T20:30"),
        ("America/New_York", "2026-07-01T05:00", "2026-07-01T06:00"),
        ("America/New_York", "2026-07-01T06:00", "2026-07-02T06:00"),  # after now, and not now
        ("Europe/Berlin", "2026-03-29T00:30", "2026-03-29T01:00"),  # 02:00 is skipped: when clocks go on
    ],
)
def test_a_schedule_is_read_in_the_zone_of_the_train(zone: str, now: str, departs: str) -> None:
    train = Train(name="nightly", schedule="0 2 * * *", timezone=zone)
    assert train.next_departure(utc(now)) == utc(departs)


def test_a_cycle_is_named_with_what_to_do() -> None:
    with pytest.raises(DefinitionError) as refused:
        departure_order(["a", "b", "c"], [order("a", "b"), order("b", "a"), order("c", "a")])
    said = str(refused.value)
    assert "the order has a cycle: a -> b -> a" in said or "the order has a cycle: b -> a -> b" in said
    assert refused.value.remedy == "Remove one of these `after` entries"


def test_members_are_deployed_in_layers_by_name() -> None:
    rules = [order("web", "api", "auth"), order("api", "db")]
    assert departure_order(["web", "auth", "api", "db"], rules) == (("auth", "db"), ("api",), ("web",))


def test_a_service_waits_for_all_before_it_also_through_one_that_is_not_on_board() -> None:
    rules = [order("web", "api"), order("api", "db"), order("web", "auth")]
    assert predecessors(rules) == {"web": {"api", "auth", "db"}, "api": {"db"}}
