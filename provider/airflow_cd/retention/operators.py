"""Collects what nobody keeps, on a schedule."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cd.exceptions import CdError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service

_UNFINISHED = ["queued", "running"]


class CollectGarbageOperator(BaseOperator):
    """
    Removes from the artifact stores, and from this worker's data folder, what no service keeps.

    All services of a file are one task: they share blobs, so that each must be asked what it needs before
    anything is removed. One that cannot be asked keeps everything, and the task fails when all others are
    done. The XCom is a list of rows: service, kind, what was removed and kept (count and bytes), and why.

    :param services: all of the services file
    :param whole_file: whether no service was left out for an error of its definition
    """

    template_fields: Sequence[str] = ()
    ui_color = "#f1f3f4"

    def __init__(self, *, services: Sequence[Service], whole_file: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.services = tuple(services)
        self.whole_file = whole_file

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """
        Collect.

        :raises CdError: something was left out; a retry may reach it
        """
        from airflow_cd.retention.artifacts import Options
        from airflow_cd.retention.collection import collect

        ti = context["ti"]

        def unfinished(dag_id: str, run_ids: Collection[str]) -> Collection[str]:
            return _unfinished(ti, dag_id, sorted(run_ids))

        rows, problems = [], []
        for row in collect(
            self.services, unfinished, Options(), whole_file=self.whole_file, say=self.log.info
        ):
            say = self.log.info if row.is_complete else self.log.warning
            say("%s: %s: %s removed, %s kept. %s", row.service, row.what, row.removed, row.kept, row.why)
            if not row.is_complete:
                problems.append(f"{row.service}: {row.why}")
            rows.append(row.to_json())
        ti.xcom_push(key="return_value", value=rows)
        if problems:
            raise CdError(f"not everything could be looked at: {'; '.join(problems)}")
        return rows


def _unfinished(ti: Any, dag_id: str, run_ids: list[str]) -> set[str]:
    """Return which of these runs have not ended: each question halves those that are left."""
    if not run_ids or not _count(ti, dag_id, run_ids):
        return set()
    if len(run_ids) == 1:
        return set(run_ids)
    middle = len(run_ids) // 2
    return _unfinished(ti, dag_id, run_ids[:middle]) | _unfinished(ti, dag_id, run_ids[middle:])


def _count(ti: Any, dag_id: str, run_ids: list[str]) -> int:
    # They stand in an address, which has an end.
    parts = [run_ids[start : start + 50] for start in range(0, len(run_ids), 50)]
    return sum(int(ti.get_dr_count(dag_id=dag_id, run_ids=part, states=_UNFINISHED)) for part in parts)
