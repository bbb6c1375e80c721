"""The text a DAG shows of itself, generated from the service's definition."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from airflow_cd.model.base import format_duration
from airflow_cd.model.environment import Environment
from airflow_cd.model.service import Service
from airflow_cd.model.text import cell, code, escape
from airflow_cd.model.train import Train


def pipeline_doc(service: Service, approved: Collection[str]) -> str:
    """
    Return Markdown that explains this service's pipeline.

    :param approved: the environments a person lets releases into
    """
    source = service.source
    path = "" if source.path == "." else f", folder {code(source.path)}"
    lines = [
        f"### {service.name}: continuous {service.pipeline}",
        "",
        f"Every push to {code(source.branch)} of {code(source.public_repository)}{path} "
        "starts a run; "
        "**Trigger** with a full commit SHA as `revision` releases that commit.",
        "",
        *_commands("Build", service.build.commands),
    ]
    for name, suite in sorted(service.test.items()):
        lines += _commands(f"Test `{name}`", suite.commands)
    lines += ["", "| environment | where | healthy when | who decides |", "|---|---|---|---|"]
    lines += [_environment(service, environment, approved) for environment in service.environments]
    lines += _closings(service)
    production = service.production.name
    lines += [
        "",
        f"One release is promoted unchanged through all of them. When {production} turns out unhealthy, the "
        "release that ran before is put back and verified, and the run fails.",
    ]
    if approved:
        lines += [
            "",
            "**To approve**: answer under *Required Actions*, mark the `approve` task as success, or run "
            f"`airflow cd approve {service.name}`. To reject: answer *Reject*, or mark it as failed.",
        ]
    return "\n".join(lines)


def train_doc(train: Train, layers: Sequence[Sequence[str]]) -> str:
    """
    Return Markdown that explains this train.

    :param layers: its members, in the order of departure
    """
    lines = [
        f"### The release train {train.name}",
        "",
        f"Departs at {code(train.schedule)} ({train.timezone}) and takes to production what is ready of each "
        "member: healthy in the environment before production, and newer than what production runs. What "
        "gets ready later catches the next one.",
        "",
        *(f"{number}. {', '.join(layer)}" for number, layer in enumerate(layers, 1)),
        "",
        f"At most {train.max_parallel} at a time. When one turns out unhealthy: {_FAILURE[train.on_failure]}",
        "",
        "**Trigger** departs now; `hold` names services that stay behind. To cancel it, answer *Reject*; "
        f"once it is under way, `airflow cd cancel {train.name}`: who is not deployed yet stays behind.",
    ]
    return "\n".join(lines)


_FAILURE = {
    "service": "it alone goes back, the others go on.",
    "dependents": "it goes back, and what is to follow it is not deployed.",
    "train": "all go back, in the reverse order.",
}


def _closings(service: Service) -> list[str]:
    """Return when its environments cannot be deployed to."""
    told = []
    for environment in service.environments:
        freezes = [one for one in service.freezes if one.concerns(environment.name)]
        spans = [f"{window.kind} {window.shown}" for window in environment.windows]
        spans += [f"frozen from {one.start} to {one.end} ({one.timezone}): {one.reason}" for one in freezes]
        if not spans:
            continue
        then = "Meanwhile deployments fail" if environment.when_closed == "fail" else "Deployments wait"
        if environment.window_approvers:
            then += f", unless {', '.join(environment.window_approvers)} answers `deploy`'s question"
        told.append(f"- **{environment.name}**: {'; '.join(map(escape, spans))}. {escape(then)}.")
    return ["", *told] if told else []


def rollback_doc(service: Service) -> str:
    """Return Markdown that explains the service's rollback DAG."""
    lines = [
        f"### {service.name}: rollback",
        "",
        "**Trigger** it to bring an earlier release back: `previous` does so at once, `choose` asks you to "
        "pick one under *Required Actions*; a version, a commit or a digest names one. Nothing is rebuilt or "
        "downloaded. Afterwards the environment is held: only a deployment that a person triggers or "
        "approves goes there.",
        "",
        f"The same: `airflow cd rollback {service.name}`.",
    ]
    for environment in service.environments:
        monitor = environment.monitor
        if monitor is not None and monitor.rollback:
            lines += [
                "",
                f"**{environment.name}** is watched for {format_duration(monitor.bake_time)} after each "
                "deployment; when its health checks fail, this DAG runs by itself.",
            ]
    return "\n".join(lines)


def _commands(title: str, commands: Collection[Collection[str]]) -> list[str]:
    shown = ", then ".join(code(" ".join(argv)) for argv in commands)
    return [f"- {title}: {shown or 'nothing to run'}"]


def _environment(service: Service, environment: Environment, approved: Collection[str]) -> str:
    checks = "; ".join(
        f"{code(check.name)} is good {check.healthy_after} times running, "
        f"{format_duration(check.interval)} apart"
        for check in environment.health
    )
    cells = (
        environment.name,
        environment.target.described,
        checks or "not watched",
        _who(environment, approved),
    )
    return f"| {' | '.join(cell(one) for one in cells)} |"


def _who(environment: Environment, approved: Collection[str]) -> str:
    if environment.name not in approved:
        return "nobody: automatic"
    policy = environment.approval
    who = (
        escape(", ".join(policy.approvers))
        if policy and policy.approvers
        else "anybody who may act on this DAG"
    )
    if policy and policy.expires_after:
        who += f"; expires after {format_duration(policy.expires_after)}"
    return who
