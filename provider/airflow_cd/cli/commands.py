"""What ``airflow cd`` offers. Airflow imports this for every command, so the work is imported when called."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_FILE = Arg(("file",), help="the services file")
_SERVICE = Arg(("service",), help="name of the service")
_ENVIRONMENT = Arg(("--environment",), help="the environment; needed when several are waiting")
_RUN_ID = Arg(("--run-id",), help="the DAG run; needed when several candidates are waiting")
_REASON = Arg(("--reason",), help="why; kept with the decision", default="")
_USER = Arg(
    ("--user",),
    help="Airflow user who decides; asks for the password. Without it the token in AIRFLOW_CD_TOKEN is used",
)
_API = Arg(("--api-url",), help="address of the Airflow API server; default: [api] base_url")
_DECIDE = (_SERVICE, _ENVIRONMENT, _RUN_ID, _REASON, _USER, _API)


def get_cd_commands() -> list[CLICommand]:
    """Return the command group ``airflow cd``."""
    return [
        GroupCommand(
            name="cd",
            help="Continuous delivery: validate services, decide on approvals",
            subcommands=(
                ActionCommand(
                    name="validate",
                    help="Check a services file; every problem with its line and remedy",
                    func=lazy_load_command("airflow_cd.cli.validate.validate"),
                    args=(_FILE,),
                ),
                ActionCommand(
                    name="approve",
                    help="Approve a waiting release",
                    func=lazy_load_command("airflow_cd.cli.decide.approve"),
                    args=_DECIDE,
                ),
                ActionCommand(
                    name="reject",
                    help="Reject a waiting release",
                    func=lazy_load_command("airflow_cd.cli.decide.reject"),
                    args=_DECIDE,
                ),
            ),
        )
    ]
