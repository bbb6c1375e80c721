"""When the watch over a running release raises an alarm."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_cd.model.environment import Environment
from airflow_cd.model.health import Alarm, HealthCheck, MonitorSettings, Sample

CHECK = HealthCheck.model_validate({"http": "/", "healthy_after": 2, "failures": 1, "window": "10s"})


def sample(ok: bool) -> Sample:
    return Sample(at=datetime(2026, 1, 1, tzinfo=timezone.utc), ok=ok, seconds=0.1, detail="HTTP 503")


def alarm_of(pattern: str, *, armed: bool = False) -> list[int]:
    """Return at which seconds a pattern of one sample per second (``.`` good, ``x`` bad) raises an alarm."""
    alarm = Alarm(CHECK)
    alarm.armed = armed
    return [at for at, mark in enumerate(pattern) if alarm.add(sample(mark == "."), float(at)) is not None]


def test_more_bad_samples_than_tolerated_raise_it() -> None:
    assert alarm_of("..x.x") == [4]
    verdict = None
    alarm = Alarm(CHECK)
    for at, mark in enumerate("..xx"):
        verdict = alarm.add(sample(mark == "."), float(at))
    assert verdict is not None and not verdict.healthy
    assert verdict.reason == "2 bad samples within 10s, 1 are tolerated; the last: HTTP 503"
    assert (verdict.good, verdict.bad, len(verdict.samples)) == (1, 2, 4)


def test_bad_samples_are_forgotten_after_the_window() -> None:
    assert alarm_of("..x" + "." * 10 + "x") == []
    assert alarm_of("..x" + "." * 8 + "x") == [11]


def test_nothing_counts_before_the_release_was_healthy() -> None:
    assert alarm_of("xxxx.x.x") == []
    assert alarm_of("xxxx..x.x") == [8]


def test_its_owner_may_arm_it() -> None:
    assert alarm_of("xx", armed=True) == [1]


def test_a_monitor_changes_only_what_it_names() -> None:
    monitor = MonitorSettings.model_validate({"interval": "30s", "failures": 9})
    check = monitor.check(CHECK)
    assert (check.interval, check.failures, check.window) == (timedelta(seconds=30), 9, CHECK.window)


def environment(**changes: object) -> Environment:
    target = {"local": {"command": ["app"], "port": 1}}
    return Environment.model_validate({"name": "production", "target": target, **changes})


def test_a_monitor_without_checks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no `health` checks"):
        environment(monitor={})
    assert not environment(monitor={"rollback": False}).monitored
    assert environment(monitor={}, health=[{"http": "/"}]).monitored


def test_a_good_sample_raises_no_alarm_although_too_many_before_it_were_bad() -> None:
    assert alarm_of("..xx.") == [3]


def test_a_monitor_has_a_window_of_its_own() -> None:
    monitor = MonitorSettings.model_validate({"window": "5m"})
    assert monitor.check(CHECK).window == timedelta(minutes=5)
