"""``airflow cd approve``, ``reject``, ``override``, ``promote``, ``abort``: answers pending questions."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from airflow_cd.cli.api import AirflowApi, Question, RefusedError, logged_in, stage_of, waiting_questions
from airflow_cd.cli.printing import say
from airflow_cd.model.decision_requests import ABORT, DEPLOY_NOW, GO_ON, QuestionSubject, subject_in
from airflow_cd.model.train import TRAIN_PREFIX

# Shorter beginnings of a commit or digest are more likely a mistake than a name.
_SHORTEST = 4


def approve(args: Namespace) -> None:
    """
    Approve the waiting release.

    :raises SystemExit: with code 1 and why, when that is not possible
    """
    _decide(args, "Approve")


def reject(args: Namespace) -> None:
    """
    Reject the waiting release.

    :raises SystemExit: with code 1 and why, when that is not possible
    """
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
    say(f"{option}: {question['subject']} ({ti['dag_id']}, run {ti['dag_run_id']})")


def _check_dag(api: AirflowApi, service: str, dag_id: str) -> None:
    try:
        # A paused DAG would take the answer, and act on it once it is enabled, maybe days later.
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
    Return the one question that is meant. Never guess: the newest is not always the one the user has read.

    :param waiting: questions as Airflow's API returns them
    :param name: the run's id, or the beginning of the release's commit or digest
    :param task: ``approve`` for approvals, ``deploy`` for overrides of windows
    :raises SystemExit: none is meant, or several may be; lists them
    """
    questions = [question for question in waiting if _is_about(question, environment, task)]
    where = f" for {environment}" if environment else ""
    if not questions:
        what = "an approval" if task == "approve" else "an answer"
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
    """Compare with what the question carries, not with what a user may have written elsewhere."""
    if name == question["task_instance"]["dag_run_id"]:
        return True
    start = name.lower().removeprefix("sha256:")
    about = _subject(question)
    digest = (about.digest or "").removeprefix("sha256:") if about else ""
    revision = (about.revision or "") if about else ""
    return len(start) >= _SHORTEST and (digest.startswith(start) or revision.startswith(start))


def _subject(question: Question) -> QuestionSubject | None:
    return subject_in(question["params"] or {})


def _option(question: Question) -> str:
    ti = question["task_instance"]
    stage = ti["task_id"].rpartition(".")[0]
    option = "--member" if ti["dag_id"].startswith(TRAIN_PREFIX) else "--environment"
    where = f"{option} {stage} " if stage else ""
    about = _subject(question)
    revision = (about.revision or "")[:8] if about else ""
    return f"  {where}--run-id {ti['dag_run_id']}   {revision} {question['subject']}"


def answer_question(api: AirflowApi, question: Question, option: str, reason: str) -> None:
    """
    Answer as the user who is logged in, once.

    :raises SystemExit: another answer was first, this user cannot answer, or Airflow does not answer
    """
    answer = _Answer(api, question, option, reason)
    try:
        api.repeated(
            answer.attempt,
            unknown="Airflow may have recorded your answer: `airflow cd status` shows what still waits.",
        )
    except RefusedError as error:
        raise SystemExit(_refusal(question, error)) from error


class _Answer:
    """An answer to one question, which counts once, however often it is sent."""

    def __init__(self, api: AirflowApi, question: Question, option: str, reason: str) -> None:
        self._api, self._question, self._option = api, question, option
        self._body = {"chosen_options": [option], "params_input": {"reason": reason}}
        ti = question["task_instance"]
        run = f"/dags/{quote(ti['dag_id'])}/dagRuns/{quote(ti['dag_run_id'])}"
        self._path = f"{run}/taskInstances/{quote(ti['task_id'])}/{ti['map_index']}/hitlDetails"

    def attempt(self, is_repetition: bool) -> None:
        """
        Send the answer, unless it is recorded already.

        :raises NoAnswerError: it may have arrived
        :raises SystemExit: another answer was first, or Airflow refuses
        """
        if is_repetition and self._is_recorded():
            return
        try:
            self._api.once("PATCH", self._path, json=self._body)
        except RefusedError as error:
            if error.status != 409:
                raise
            details = self._api.once("GET", self._path)
            # The request before was slow, and arrived after the details were read.
            if not (is_repetition and self._is_own(details)):
                raise SystemExit(_already_answered(details)) from error

    def _is_recorded(self) -> bool:
        details = self._api.once("GET", self._path)
        if details["response_received"] and not self._is_own(details):
            raise SystemExit(_already_answered(details))
        if not details["response_received"] and _asked(details) != _asked(self._question):
            raise SystemExit(
                f"{self._question['subject']!r}: the task asks again, so Airflow may have used your answer. "
                "Read the new question before you answer it; `airflow cd status` shows where it stands."
            )
        return bool(details["response_received"])

    def _is_own(self, details: dict[str, Any]) -> bool:
        by = (details["responded_by_user"] or {}).get("id")
        return by is not None and by == self._api.user and details["chosen_options"] == [self._option]


def _asked(question: Question) -> tuple[Any, ...]:
    """Return what differs between a question and the next one of the same task, whose texts are the same."""
    ti = question["task_instance"]
    return ti["id"], ti["try_number"], ti["scheduled_when"]


def _already_answered(details: dict[str, Any]) -> str:
    user = details["responded_by_user"] or {}
    by = user.get("name") or user.get("id") or "nobody in time"
    chosen = ", ".join(details["chosen_options"] or [])
    return f"Already answered: {chosen}, by {by} at {details['responded_at']}. Your answer was not taken."


def _refusal(question: Question, error: RefusedError) -> str:
    if error.status == 403:
        users = ", ".join(user["name"] for user in question["assigned_users"]) or "users who can edit the DAG"
        return (
            f"You cannot decide on {question['subject']!r} (HTTP 403): {users} may. Authors of a release do "
            "not approve it where self_approval is false."
        )
    if error.status == 404:
        return f"{question['subject']!r} is not asked any more: the run was deleted meanwhile (HTTP 404)."
    return str(error)


def promote(args: Namespace) -> None:
    """
    Let a rollout that asks go on.

    :raises SystemExit: with why, when that is not possible
    """
    _answer(args, GO_ON)


def abort(args: Namespace) -> None:
    """
    Abort a rollout that asks.

    :raises SystemExit: with why, when that is not possible
    """
    _answer(args, ABORT)


def _answer(args: Namespace, option: str) -> None:
    dag_ids = {f"{args.service}_{kind}" for kind in ("delivery", "deployment")}
    with logged_in(args) as api:
        asked = [
            one
            for one in waiting_questions(api, state=["deferred"])
            if option in one["options"] and one["task_instance"]["dag_id"] in dag_ids
        ]
        question = choose(asked, args.service, args.run_id, args.environment, task="deploy")
        api.check_enabled(question["task_instance"]["dag_id"])
        answer_question(api, question, option, args.reason)
    tell(question, option)
