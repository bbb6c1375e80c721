"""Which uses of a service the policy keeps: pure, and so exactly at the edges."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from airflow_cd.model.retention import Retention, Use, reasons_to_keep

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def use(number: int, days: float, kind: str = "release", run: str = "") -> Use:
    digest = f"sha256:{number:064x}"
    return Use.model_validate(
        {
            "dag_id": "hello_delivery",
            "run_id": run or f"run_{number}",
            "at": NOW - timedelta(days=days),
            "kind": kind,
            "name": digest,
            "revision": "a" * 40,
            "version": str(number),
            "manifest": digest if kind == "release" else None,
            "blobs": (digest,),
        }
    )


def kept(uses: list[Use], policy: Retention, environments: dict[str, str] | None = None) -> list[bool]:
    reasons = reasons_to_keep(uses, policy, environments or {}, NOW)
    return [reasons[one] is not None for one in uses]


def test_the_edge_of_the_age_and_of_the_number() -> None:
    policy = Retention.model_validate({"keep": 2, "younger_than": "10d"})
    uses = [
        use(1, 9.99),
        use(2, 10),
        use(3, 11),
        use(4, 12),
        use(5, 10, "workspace"),
        use(6, 9.99, "workspace"),
    ]
    assert kept(uses, policy) == [True, True, False, False, False, True]
    assert kept(uses, policy, {uses[3].name: "runs in production"})[3]
    # An environment that runs a release needs no workspace of this name.
    assert not kept(uses, policy, {uses[4].name: "runs in production"})[4]


def test_all_uses_of_a_release_that_counts_are_kept() -> None:
    policy = Retention.model_validate({"keep": 1, "younger_than": "1d"})
    uses = [use(1, 90), use(1, 20, run="train"), use(2, 30)]
    assert kept(uses, policy) == [True, True, False]
    assert len({one.key for one in uses}) == 3


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"keep": -1}, {"younger_than": "long"}, {"older_than": "1d"}])
def test_a_policy_that_keeps_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Retention.model_validate(wrong)
