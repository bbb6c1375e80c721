"""What a person started long ago does not count against what a person decided since."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from tests.support.local_run import local_run

from airflow_cd.releases.adapters import open_target
from airflow_cd.targets.record import Hold


def test_a_manual_run_of_january_does_not_lift_a_hold_of_june(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_run(tmp_path, monkeypatch) as run:
        service = run.service()
        for text in ("one", "two"):
            run.package(service, run.commit(text))
            run.deploy(service)
        bad = run.record(service).current
        assert bad is not None
        hold = Hold(by="carol", since=datetime.now(timezone.utc), reason="CVE")
        open_target(service, service.production).rollback(bad=bad.release.digest, actor="carol", hold=hold)
        run.package(service, run.commit("three"))
        run.run_after = hold.since - timedelta(days=150)
        with pytest.raises(AirflowSkipException, match="held since carol"):
            run.deploy(service)
        assert run.served() == "one"
        run.run_after = None  # triggered now
        run.deploy(service)
        assert run.served() == "three"
