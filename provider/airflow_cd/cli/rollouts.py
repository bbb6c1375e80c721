"""``airflow cd promote`` and ``abort``: say how a rollout goes on that asks."""

from __future__ import annotations

from argparse import Namespace

from airflow_cd.cli.api import logged_in
from airflow_cd.cli.decide import answer_question, choose, tell
from airflow_cd.cli.questions import waiting_questions
from airflow_cd.model.rollout_request import ABORT, GO_ON


def promote(args: Namespace) -> None:
    """Let a rollout that asks go on. :raises SystemExit: with why, when that is not possible"""
    _answer(args, GO_ON)


def abort(args: Namespace) -> None:
    """Abort a rollout that asks. :raises SystemExit: with why, when that is not possible"""
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
