"""What ``airflow cd`` offers. Airflow imports this for every command, so the work is imported when called."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_FILE = Arg(("file",), help="the services file")
_SERVICE = Arg(("service",), help="name of the service")
_ENVIRONMENT = Arg(("--environment",), help="the environment; needed when several are waiting")
_RUN_ID = Arg(("--run-id",), help="the DAG run; needed when several candidates are waiting")
_REASON = Arg(("--reason",), help="why; kept with the decision", default="")
_LOGIN = (
    Arg(
        ("--user",),
        help="Airflow user; asks for the password. Without it the token in AIRFLOW_CD_TOKEN is used",
    ),
    Arg(("--api-url",), help="address of the Airflow API server; default: [api] base_url"),
)
_SERVICES = (
    Arg(("service",), help="names of services; default: all", nargs="*"),
    Arg(("--file",), help="the services file; default: services.yaml in the DAG folder"),
)
_STATUS = (*_SERVICES, *_LOGIN)
_HISTORY = (
    _SERVICE,
    Arg(("--environment",), help="only this environment"),
    Arg(("--limit",), help="how many changes at most (100 per environment)", type=int, default=20),
    Arg(("--json",), help="one JSON object per line", action="store_true"),
    *_LOGIN,
)
_METRICS = (
    *_SERVICES,
    Arg(("--environment",), help="default: production, the last one of each service"),
    Arg(("--days",), help="how many days are looked back on", type=float, default=90.0),
    Arg(("--json",), help="as one JSON object", action="store_true"),
    *_LOGIN,
)
_ROLLBACK = (
    _SERVICE,
    Arg(("--environment",), help="default: production, the last one of the service"),
    Arg(("--to",), help="version, commit or digest; default: what ran before", default="previous"),
    _REASON,
    Arg(("--no-wait",), help="do not wait until it is done", action="store_true"),
    *_LOGIN,
)
_OVERRIDE = (_SERVICE, _ENVIRONMENT, _RUN_ID, _REASON, *_LOGIN)
_DECIDE = (
    Arg(("service",), help="name of the service, or of the train with --train"),
    Arg(("--train",), help="let a train depart, or not", action="store_true"),
    Arg(("--member",), help="with --train: the member, where each one is asked about"),
    *_OVERRIDE[1:],
)
_TRAIN = Arg(("train",), help="name of the train")
_TRAINS = (_SERVICES[1], *_LOGIN)
_DEPART = (
    _TRAIN,
    Arg(("--hold",), help="a member that stays behind; may be repeated", action="append"),
    *_LOGIN,
)
_CANCEL = (_TRAIN, _RUN_ID, _REASON, *_LOGIN)


def _command(path: str) -> Callable[[Namespace], None]:
    """Return the command at this path; what went wrong is said in a sentence, not in a traceback."""
    call = lazy_load_command(path)

    def command(args: Namespace) -> None:
        from airflow_cd.exceptions import CdError

        try:
            call(args)
        except CdError as error:
            raise SystemExit(f"error: {error}") from None

    command.__name__ = call.__name__
    return command


def get_cd_commands() -> list[CLICommand]:
    """Return the command group ``airflow cd``."""
    return [
        GroupCommand(
            name="cd",
            help="Continuous delivery: what runs where, approvals, rollbacks",
            subcommands=(
                ActionCommand(
                    name="validate",
                    help="Check a services file; every problem with its line and remedy",
                    func=_command("airflow_cd.cli.validate.validate"),
                    args=(_FILE,),
                ),
                ActionCommand(
                    name="status",
                    help="What runs where, how old it is, and what waits for an approval",
                    func=_command("airflow_cd.cli.status.status"),
                    args=_STATUS,
                ),
                ActionCommand(
                    name="history",
                    help="What was deployed and rolled back, by whom and why",
                    func=_command("airflow_cd.cli.history.history"),
                    args=_HISTORY,
                ),
                ActionCommand(
                    name="metrics",
                    help="Deployment frequency, lead time, change failure rate, time to restore (DORA)",
                    func=_command("airflow_cd.cli.metrics.metrics"),
                    args=_METRICS,
                ),
                ActionCommand(
                    name="rollback",
                    help="Go back to an earlier release",
                    func=_command("airflow_cd.cli.rollback.rollback"),
                    args=_ROLLBACK,
                ),
                ActionCommand(
                    name="approve",
                    help="Approve a waiting release, or a train",
                    func=_command("airflow_cd.cli.decide.approve"),
                    args=_DECIDE,
                ),
                ActionCommand(
                    name="reject",
                    help="Reject a waiting release, or a train",
                    func=_command("airflow_cd.cli.decide.reject"),
                    args=_DECIDE,
                ),
                ActionCommand(
                    name="override",
                    help="Deploy a release now that waits for a window or the end of a freeze",
                    func=_command("airflow_cd.cli.decide.override"),
                    args=_OVERRIDE,
                ),
                ActionCommand(
                    name="promote",
                    help="Let a rollout go on that asks",
                    func=_command("airflow_cd.cli.rollouts.promote"),
                    args=_OVERRIDE,
                ),
                ActionCommand(
                    name="abort",
                    help="Abort a rollout that asks (`rollback` aborts one that does not)",
                    func=_command("airflow_cd.cli.rollouts.abort"),
                    args=_OVERRIDE,
                ),
                ActionCommand(
                    name="trains",
                    help="Release trains: next departure, what is ready for it, what is under way",
                    func=_command("airflow_cd.cli.trains.trains"),
                    args=_TRAINS,
                ),
                ActionCommand(
                    name="depart",
                    help="Let a release train depart now",
                    func=_command("airflow_cd.cli.trains.depart"),
                    args=_DEPART,
                ),
                ActionCommand(
                    name="cancel",
                    help="Cancel a departure: who is not deployed yet stays behind",
                    func=_command("airflow_cd.cli.trains.cancel"),
                    args=_CANCEL,
                ),
            ),
        )
    ]
