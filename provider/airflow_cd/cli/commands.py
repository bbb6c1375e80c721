"""
What ``airflow cd`` offers. Airflow imports this for every command, so the work is imported when called.

Airflow prints help as Rich markup and keeps its lines as they are: no words in brackets, and lines that end
before column 80. A plain argparse would join and wrap them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

# What a shell reports of a program that Ctrl-C ended.
_INTERRUPTED = 130
_FILE = Arg(("file",), help="the services file")
_SERVICE = Arg(("service",), help="name of the service")
_ENVIRONMENT = Arg(("--environment",), help="the environment; required when several releases wait")
_RUN_ID = Arg(
    ("--run-id",),
    help="the DAG run, or the start of the commit or digest;\nrequired when several releases wait",
)
_REASON = Arg(("--reason",), help="the reason; recorded with the decision", default="")
_LOGIN = (
    Arg(
        ("--user",),
        help="the Airflow user to log in as. The password is read from\nAIRFLOW_CD_PASSWORD or the terminal."
        "\nDefault: the owner of the token in AIRFLOW_CD_TOKEN",
    ),
    Arg(
        ("--api-url",),
        help="the address of the Airflow API server;\ndefault: base_url in section api of airflow.cfg",
    ),
)
_SERVICES = (
    Arg(("service",), help="names of services; default: all", nargs="*"),
    Arg(("--file",), help="the services file;\ndefault: services.yaml in the DAG folder"),
)
_STATUS = (*_SERVICES, *_LOGIN)
_HISTORY = (
    _SERVICE,
    Arg(("--environment",), help="only this environment"),
    Arg(("--limit",), help="how many changes, at most 100 for each environment", type=int, default=20),
    Arg(("--json",), help="print one JSON object per line", action="store_true"),
    *_LOGIN,
)
_METRICS = (
    *_SERVICES,
    Arg(("--environment",), help="default: production, the last one of each service"),
    Arg(("--days",), help="the number of days to look back", type=float, default=90.0),
    Arg(("--json",), help="print one JSON object", action="store_true"),
    *_LOGIN,
)
_ROLLBACK = (
    _SERVICE,
    Arg(("--environment",), help="default: production, the last one of the service"),
    Arg(("--to",), help="a version, commit or digest; default: what ran before", default="previous"),
    _REASON,
    Arg(("--no-wait",), help="do not wait for the end of the rollback", action="store_true"),
    *_LOGIN,
)
_OVERRIDE = (_SERVICE, _ENVIRONMENT, _RUN_ID, _REASON, *_LOGIN)
_DECIDE = (
    Arg(("service",), help="name of the service, or of the train with --train"),
    Arg(("--train",), help="decide on the departure of a train", action="store_true"),
    Arg(("--member",), help="with --train: the member, where each needs an approval"),
    *_OVERRIDE[1:],
)
_TRAIN = Arg(("train",), help="name of the train")
_TRAINS = (_SERVICES[1], *_LOGIN)
_DEPART = (
    _TRAIN,
    Arg(("--hold",), help="a member that stays behind; can be given several times", action="append"),
    *_LOGIN,
)
_CANCEL = (
    _TRAIN,
    Arg(("--run-id",), help="the DAG run; required when several are under way"),
    _REASON,
    *_LOGIN,
)
_GC = (
    *_SERVICES,
    Arg(("--dry-run",), help="remove nothing, and print what would be removed", action="store_true"),
    Arg(
        ("--older-than",),
        help="remove what was used before this time, such as 30d,\ninstead of retention: younger_than",
    ),
    Arg(("--keep",), help="keep so many of the newest releases,\ninstead of retention: keep", type=int),
    Arg(
        ("--unrecorded",),
        help="also remove artifacts without a record of their use that\nare older than this, such as 90d",
    ),
    Arg(("--json",), help="print one JSON object", action="store_true"),
    *_LOGIN,
)


def _command(path: str) -> Callable[[Namespace], None]:
    """Return the command at this path; it ends with a sentence, not with a traceback."""
    call = lazy_load_command(path)

    def command(args: Namespace) -> None:
        from airflow_cd.exceptions import CdError

        try:
            call(args)
        except CdError as error:
            raise SystemExit(_shown(f"error: {error}")) from None
        except SystemExit as end:
            if isinstance(end.code, str):
                raise SystemExit(_shown(end.code)) from end.__cause__
            raise
        except KeyboardInterrupt:
            raise SystemExit(_INTERRUPTED) from None

    command.__name__ = call.__name__
    return command


def _shown(message: str) -> str:
    """Messages quote names, reasons and servers; none of that may steer a terminal."""
    from airflow_cd.cli.printing import harmless

    return "\n".join(harmless(line) for line in message.split("\n"))


def get_cd_commands() -> list[CLICommand]:
    """Return the command group ``airflow cd``."""
    return [
        GroupCommand(
            name="cd",
            help="Continuous delivery: what runs where, approvals, rollbacks",
            subcommands=(
                ActionCommand(
                    name="validate",
                    help="Check a services file; print each problem with its line and remedy",
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
                    help="The four DORA metrics, such as lead time and change failure rate",
                    func=_command("airflow_cd.cli.metrics.metrics"),
                    args=_METRICS,
                ),
                ActionCommand(
                    name="rollback",
                    help="Roll a service back to an earlier release",
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
                    help="Deploy a release although its window is closed or a freeze lasts",
                    func=_command("airflow_cd.cli.decide.override"),
                    args=_OVERRIDE,
                ),
                ActionCommand(
                    name="promote",
                    help="Promote a rollout that waits for an answer",
                    func=_command("airflow_cd.cli.decide.promote"),
                    args=_OVERRIDE,
                ),
                ActionCommand(
                    name="abort",
                    help="Abort a rollout that waits for an answer; `rollback` aborts any",
                    func=_command("airflow_cd.cli.decide.abort"),
                    args=_OVERRIDE,
                ),
                ActionCommand(
                    name="trains",
                    help="Release trains: next departure, what is ready, what is under way",
                    func=_command("airflow_cd.cli.trains.trains"),
                    args=_TRAINS,
                ),
                ActionCommand(
                    name="depart",
                    help="Start the departure of a release train now",
                    func=_command("airflow_cd.cli.trains.depart"),
                    args=_DEPART,
                ),
                ActionCommand(
                    name="cancel",
                    help="Cancel a departure; members that are not deployed yet stay behind",
                    func=_command("airflow_cd.cli.trains.cancel"),
                    args=_CANCEL,
                ),
                ActionCommand(
                    name="gc",
                    help="Remove artifacts and caches that are not needed any more",
                    func=_command("airflow_cd.cli.gc.gc"),
                    args=_GC,
                ),
            ),
        )
    ]
