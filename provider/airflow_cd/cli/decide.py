"""``airflow cd approve``, ``reject`` and ``override``: answer what waits, as the user you are."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from urllib.parse import quote

from rich.console import Console

from airflow_cd.cli.api import Api, RefusedError, logged_in
from airflow_cd.cli.questions import Question, stage_of, waiting_questions
from airflow_cd.model.approval_request import digest_in, revision_in
from airflow_cd.model.train import TRAIN_PREFIX
from airflow_cd.model.window_request import DEPLOY_NOW

# Shorter beginnings of a commit or digest are more likely a mistake than a name.
_SHORTEST = 4


def approve(args: Namespace) -> None:
    """Approve the waiting release. :raises SystemExit: with code 1 and why, when that is not possible"""
    _decide(args, "Approve")


def reject(args: Namespace) -> None:
    """Reject the waiting release. :raises SystemExit: with code 1 and why, when that is not possible"""
    _decide(args, "Reject")


def override(args: Namespace) -> None:
    """
    Deploy a release now that waits for a window or the end of a freeze.

    :raises SystemExit: with code 1 and why, when that is not possible
    """
    dag_ids = (f"{args.service}_delivery", f"{args.service}_deployment")
    with logged_in(args) as api:
        waiting = [one for one in waiting_questions(api) if one["task_instance"]["dag_id"] in dag_ids]
        question = choose(waiting, args.service, args.run_id, args.environment, task="deploy")
        api.check_enabled(question["task_instance"]["dag_id"])
        answer_question(api, question, DEPLOY_NOW, args.reason)
    tell(question, DEPLOY_NOW)


def _decide(args: Namespace, option: str) -> None:
    dag_id = f"{TRAIN_PREFIX}{args.service}" if args.train else f"{args.service}_delivery"
    with logged_in(args) as api:
        _check_dag(api, args.service, dag_id)
        waiting = list(waiting_questions(api, dag_id))
        stage = args.member if args.train else args.environment
        question = choose(waiting, args.service, args.run_id, stage)
        answer_question(api, question, option, args.reason)
    tell(question, option)


def tell(question: Question, option: str) -> None:
    """Print what was answered."""
    ti = question["task_instance"]
    Console(soft_wrap=True, highlight=False).print(
        f"{option}: {question['subject']} ({ti['dag_id']}, run {ti['dag_run_id']})", markup=False
    )


def _check_dag(api: Api, service: str, dag_id: str) -> None:
    try:
        # A paused DAG would take the answer, and act on it when somebody enables it, maybe days later.
        api.check_enabled(dag_id)
    except RefusedError as error:
        if error.status != 404:
            raise
        missing = f"service {service!r} with a delivery pipeline"
        if dag_id.startswith(TRAIN_PREFIX):
            missing = f"train {service!r}"
        raise SystemExit(
            f"Airflow knows no {dag_id}: there is no {missing}. "
            "`airflow cd status` lists the services, `airflow cd trains` the trains."
        ) from error


def choose(
    waiting: Sequence[Question],
    service: str,
    name: str | None = None,
    environment: str | None = None,
    task: str = "approve",
) -> Question:
    """
    Return the one question that is meant. Never guess: the newest is not always what somebody has read.

    :param waiting: questions as Airflow's API returns them
    :param name: the run's id, or the beginning of the release's commit or digest
    :param task: ``approve`` for approvals, ``deploy`` for overrides of windows
    :raises SystemExit: none is meant, or several may be; lists them
    """
    questions = [question for question in waiting if _is_about(question, environment, task)]
    where = f" for {environment}" if environment else ""
    if not questions:
        what = "an approval" if task == "approve" else "an answer that somebody may give"
        raise SystemExit(f"No release of {service!r} waits for {what}{where}.")
    meant = [question for question in questions if name is None or _is_named(question, name)]
    if len(meant) == 1:
        return meant[0]
    lines = [_option(question) for question in meant or questions]
    if not meant:
        raise SystemExit("\n".join([f"No release that waits{where} is called {name!r}. Waiting:", *lines]))
    raise SystemExit("\n".join([f"{len(meant)} releases wait{where}; say which one:", *lines]))


def _is_about(question: Question, environment: str | None, task: str) -> bool:
    stage = stage_of(question, task)
    return stage is not None and environment in (None, stage)


def _is_named(question: Question, name: str) -> bool:
    """Compare with what an approver reads, not with what anybody may have written elsewhere."""
    if name == question["task_instance"]["dag_run_id"]:
        return True
    start = name.lower().removeprefix("sha256:")
    digest = (digest_in(question["body"] or "") or "").removeprefix("sha256:")
    revision = revision_in(question["body"] or "") or ""
    return len(start) >= _SHORTEST and (digest.startswith(start) or revision.startswith(start))


def _option(question: Question) -> str:
    ti = question["task_instance"]
    stage = ti["task_id"].rpartition(".")[0]
    option = "--member" if ti["dag_id"].startswith(TRAIN_PREFIX) else "--environment"
    where = f"{option} {stage} " if stage else ""
    revision = (revision_in(question["body"] or "") or "")[:8]
    return f"  {where}--run-id {ti['dag_run_id']}   {revision} {question['subject']}"


def answer_question(api: Api, question: Question, option: str, reason: str) -> None:
    """Answer as the user who is logged in. :raises SystemExit: somebody else did, or this user may not"""
    ti = question["task_instance"]
    task = (
        f"dags/{quote(ti['dag_id'])}/dagRuns/{quote(ti['dag_run_id'])}/taskInstances/{quote(ti['task_id'])}"
    )
    path = f"/{task}/{ti['map_index']}/hitlDetails"
    try:
        api.patch(path, {"chosen_options": [option], "params_input": {"reason": reason}})
    except RefusedError as error:
        raise SystemExit(_refusal(api, path, question, error)) from error


def _refusal(api: Api, path: str, question: Question, error: RefusedError) -> str:
    if error.status == 409:
        answered = api.get(path)
        by = (answered["responded_by_user"] or {}).get("id") or "nobody in time"
        chosen = ", ".join(answered["chosen_options"] or [])
        return (
            f"Already answered: {chosen}, by {by} at {answered['responded_at']}. Your answer was not taken."
        )
    if error.status == 403:
        users = ", ".join(user["id"] for user in question["assigned_users"]) or "whoever may act on the DAG"
        return (
            f"You may not decide on {question['subject']!r} (HTTP 403): {users} may. Authors of a release do "
            "not approve it where self_approval is false."
        )
    if error.status == 404:
        return f"{question['subject']} is not asked any more: the run was deleted meanwhile (HTTP 404)."
    return str(error)
