"""Runs one suite of tests on the built workspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.exceptions import ArtifactError, CommandError, TestsFailedError
from airflow_cd.operators.commands import CommandRunner
from airflow_cd.releases.run import load_build

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_cd.model.release import TestTotals
    from airflow_cd.model.service import Service


class TestOperator(BaseOperator):
    """
    Runs a suite's commands in a copy of the workspace and reads its JUnit XML report.

    The XCom is the suite's totals (:class:`~airflow_cd.model.release.TestTotals` as JSON), also when tests
    failed. A failing suite fails the task for good: a red test is an answer, not an accident.

    :param service: whose suite it is
    :param suite: name of the suite in ``service.test``
    :param build_task_id: the task whose XCom names the workspace
    """

    __test__ = False
    template_fields: Sequence[str] = ()
    ui_color = "#e6f4ea"

    _commands: CommandRunner | None = None

    def __init__(self, *, service: Service, suite: str, build_task_id: str = "build", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.suite = suite
        self.build_task_id = build_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Run the suite.

        :raises AirflowFailException: tests failed, or a command did
        """
        from airflow_cd.packaging.archive import unpack
        from airflow_cd.releases.adapters import open_store, scratch_dir, store_url

        suite = self.service.test[self.suite]
        build = load_build(context, self.build_task_id)
        with scratch_dir(f"test-{self.service.name}") as scratch:
            open_store(store_url(self.service)).get_file(build["workspace"], scratch / "workspace.tar.gz")
            tree = scratch / "tree"
            unpack(scratch / "workspace.tar.gz", tree)
            self._remove_old_reports(tree, suite.junit)
            failure: CommandError | None = None
            try:
                self._commands = CommandRunner(self.service, self.log)
                self._commands.run(context, suite.commands, cwd=tree, env=suite.env, timeout=suite.timeout)
            except CommandError as error:
                failure = error
            totals = self._totals(tree, suite.junit, failure)
        self._judge(context, totals, failure)
        return totals.model_dump(mode="json")

    def on_kill(self) -> None:
        """End the command that runs."""
        if self._commands is not None:
            self._commands.kill()

    def _remove_old_reports(self, tree: Path, pattern: str | None) -> None:
        """A report that came with the source must not speak for a suite that never ran."""
        for report in tree.glob(pattern) if pattern else ():
            if report.is_symlink() or not report.is_dir():
                report.unlink()

    def _totals(self, tree: Path, pattern: str | None, failure: CommandError | None) -> TestTotals:
        from airflow_cd.model.junit import merge, parse_junit
        from airflow_cd.model.release import TestTotals

        if pattern is None:
            return TestTotals()
        reports = sorted(path for path in tree.glob(pattern) if path.is_file())
        if not reports:
            if failure is not None:
                return TestTotals()
            raise AirflowFailException(
                f"suite {self.suite!r} wrote no report {pattern!r}; "
                "correct `junit:`, or let the command write it"
            )
        try:
            totals = []
            for report in reports:
                with report.open("rb") as file:
                    totals.append(parse_junit(file))
            return merge(*totals)
        except ValueError as error:
            raise ArtifactError(f"suite {self.suite!r}: report {pattern!r}: {error}") from error

    def _judge(self, context: Context, totals: TestTotals, failure: CommandError | None) -> None:
        self.log.info(
            "Suite %s: %d tests, %d passed, %d failed, %d errors, %d skipped in %.2f s",
            *(
                self.suite,
                totals.total,
                totals.passed,
                totals.failed,
                totals.errors,
                totals.skipped,
                totals.seconds,
            ),
        )
        if not totals.failures and failure is None:
            return
        context["ti"].xcom_push(key="return_value", value=totals.model_dump(mode="json"))
        for name in totals.failures:
            self.log.error("FAILED %s", name)
        if totals.failures:
            count = totals.failed + totals.errors
            reason = TestsFailedError(self.suite, totals.failures, count, totals.total)
            raise AirflowFailException(str(reason)) from failure
        raise AirflowFailException(f"suite {self.suite!r}: {failure}") from failure
