"""A server on this machine that answers as Airflow's API does, and loses requests and answers on request."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import jwt

Answer = tuple[int, Any]
Fault = Callable[[Callable[[], Answer]], Answer | None]

_KEY = "a secret of this test server that nothing checks"
SUCCESS = {"verified": True, "version": "1.0.0", "digest": "sha256:" + "a" * 64}


class PretendedAirflow(ThreadingHTTPServer):
    """
    One delivery, one rollout and one train, whose questions can be answered and whose runs can be started.

    ``faults`` are used up in turn, each by the first request with its method and path: see :meth:`fails`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.faults: list[tuple[str, str, Fault]] = []
        self.requests: list[str] = []
        self.questions: list[dict[str, Any]] = []
        self.answers: list[tuple[str, str]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.kept_back: list[str] = []
        self.events: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Return its address, without a trailing slash."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ask(self, dag_id: str, task_id: str, *options: str) -> dict[str, Any]:
        """Put a question, and return it."""
        about = {"manifest": f"sha256:{'e' * 64}", "digest": f"sha256:{'d' * 64}", "revision": "c" * 40}
        question = {
            "subject": f"{task_id} of {dag_id}?",
            "body": "**hello**",
            "params": {"about": {"value": about, "description": None, "schema": {}}},
            "options": list(options),
            "assigned_users": [],
            "responded_by_user": None,
            "responded_at": None,
            "chosen_options": None,
            "response_received": False,
            "task_instance": {
                "id": "1f4e",
                "dag_id": dag_id,
                "dag_run_id": "run_1",
                "task_id": task_id,
                "map_index": -1,
                "try_number": 1,
                "scheduled_when": "2026-01-01T00:00:00Z",
            },
        }
        self.questions.append(question)
        return question

    def fails(self, method: str, path: str, *faults: Fault) -> None:
        """
        Treat the next requests so, one for each fault.

        :param path: what the path ends with, as a regular expression
        :param faults: takes what handles the request; its result is the answer, ``None`` to hang up instead
        """
        self.faults += [(method, path, fault) for fault in faults]

    def asked(self, method: str, path: str) -> int:
        """Return how many requests had this method and a path that ends so."""
        return sum(bool(re.search(f"^{method} .*{path}$", one)) for one in self.requests)

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Return the fault that this request meets, and use it up."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            for number, (one, ending, fault) in enumerate(self.faults):
                if one == method and re.search(f"{ending}$", path):
                    del self.faults[number]
                    return fault
        return None

    def stop(self) -> None:
        """Take no more connections."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *args: Any) -> None:
        """Say nothing: clients of tests hang up."""

    # What Airflow does.

    def handled(self, method: str, path: str, body: Any, user: str) -> Answer:
        """Do what is asked for, and return the answer."""
        with self.lock:
            for pattern, handle in _ROUTES:
                if found := re.fullmatch(pattern, f"{method} {path}"):
                    return handle(self, body, user, *map(unquote, found.groups()))
        return 404, {"detail": f"no {path}"}

    def _log_in(self, body: Any, user: str) -> Answer:
        if body["password"] != "right":
            return 401, {"detail": "Invalid credentials"}
        return 201, {"access_token": jwt.encode({"sub": body["username"]}, _KEY)}

    def _dag(self, body: Any, user: str, dag_id: str) -> Answer:
        return 200, {"is_paused": False}

    def _waiting(self, body: Any, user: str, dag_id: str) -> Answer:
        found = [
            one
            for one in self.questions
            if dag_id in ("~", one["task_instance"]["dag_id"]) and not one["response_received"]
        ]
        return 200, {"hitl_details": found, "total_entries": len(found)}

    def _question(self, body: Any, user: str, dag_id: str, task_id: str) -> Answer:
        return 200, self._found(dag_id, task_id)

    def _answer(self, body: Any, user: str, dag_id: str, task_id: str) -> Answer:
        question = self._found(dag_id, task_id)
        if question["response_received"]:
            return 409, {"detail": "Human-in-the-loop detail has already been updated"}
        self.record(question, user, body["chosen_options"][0])
        return 200, question

    def record(self, question: dict[str, Any], user: str, option: str) -> None:
        """Record an answer, as one that the user gives in the UI."""
        question["responded_by_user"] = {"id": user, "name": user}
        question["responded_at"] = "2026-01-01T00:00:09Z"
        question["chosen_options"], question["response_received"] = [option], True
        self.answers.append((user, option))

    def ask_again(self, question: dict[str, Any]) -> None:
        """Forget the answer, as Airflow does when the task has used it and asks its next question."""
        question.update(responded_by_user=None, responded_at=None, chosen_options=None)
        question["response_received"] = False
        question["task_instance"]["scheduled_when"] = "2026-01-01T00:00:10Z"

    def _found(self, dag_id: str, task_id: str) -> dict[str, Any]:
        wanted = (dag_id, task_id)
        (found,) = (
            one
            for one in self.questions
            if (one["task_instance"]["dag_id"], one["task_instance"]["task_id"]) == wanted
        )
        return found

    def _start(self, body: Any, user: str, dag_id: str) -> Answer:
        run_id = body.get("dag_run_id") or f"manual__{len(self.runs)}"
        if run_id in self.runs:
            return 409, {"detail": {"reason": "Unique constraint violation"}}
        self.runs[run_id] = {"dag_run_id": run_id, "dag_id": dag_id, "state": "success", "conf": body["conf"]}
        return 200, self.runs[run_id]

    def _runs(self, body: Any, user: str, dag_id: str) -> Answer:
        found = [run for run in self.runs.values() if run["dag_id"] == dag_id]
        return 200, {"dag_runs": found, "total_entries": len(found)}

    def _run(self, body: Any, user: str, dag_id: str, run_id: str) -> Answer:
        return (200, self.runs[run_id]) if run_id in self.runs else (404, {"detail": "no such run"})

    def _tasks(self, body: Any, user: str, dag_id: str, run_id: str) -> Answer:
        task_id = "depart" if dag_id.startswith("train_") else "production.roll_back"
        return 200, {"task_instances": [{"task_id": task_id, "state": "success"}], "total_entries": 1}

    def _value(self, body: Any, user: str) -> Answer:
        return 200, {"value": SUCCESS}

    def _keep_back(self, body: Any, user: str) -> Answer:
        if self.kept_back:
            return 409, {"detail": "The XCom with key: `cancelled` already exists."}
        self.kept_back.append(body["value"])
        return 201, {"value": body["value"]}

    def _assets(self, body: Any, user: str) -> Answer:
        names = {f"cd/{extra['service']}/{extra['environment']}" for extra in self.events}
        return 200, {"assets": [{"id": 1, "name": name} for name in names], "total_entries": len(names)}

    def _events(self, body: Any, user: str) -> Answer:
        events = []
        for extra in self.events:
            dag_id, _, run_id = extra["actor"].partition("/")
            events.append({"extra": extra, "source_dag_id": dag_id, "source_run_id": run_id})
        return 200, {"asset_events": events, "total_entries": len(events)}


_DAG = "/api/v2/dags/([^/]+)"
_TASK = f"{_DAG}/dagRuns/[^/]+/taskInstances/([^/]+)/-1"
_ROUTES: tuple[tuple[str, Callable[..., Answer]], ...] = (
    ("POST /auth/token", PretendedAirflow._log_in),
    (f"GET {_DAG}", PretendedAirflow._dag),
    (f"GET {_DAG}/dagRuns/~/hitlDetails", PretendedAirflow._waiting),
    (f"GET {_TASK}/hitlDetails", PretendedAirflow._question),
    (f"PATCH {_TASK}/hitlDetails", PretendedAirflow._answer),
    (f"POST {_DAG}/dagRuns", PretendedAirflow._start),
    (f"GET {_DAG}/dagRuns", PretendedAirflow._runs),
    (f"GET {_DAG}/dagRuns/([^/]+)", PretendedAirflow._run),
    (f"GET {_DAG}/dagRuns/([^/]+)/taskInstances", PretendedAirflow._tasks),
    ("GET .*/xcomEntries/return_value", PretendedAirflow._value),
    ("POST .*/taskInstances/depart/xcomEntries", PretendedAirflow._keep_back),
    ("GET /api/v2/assets", PretendedAirflow._assets),
    ("GET /api/v2/assets/events", PretendedAirflow._events),
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, PretendedAirflow)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        path = urlsplit(self.path).path
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = jwt.decode(token, options={"verify_signature": False})["sub"] if token else ""

        def handle() -> Answer:
            return server.handled(self.command, path, body, user)

        fault = server.fault_for(self.command, path)
        answer = fault(handle) if fault else handle()
        if answer is None:
            self.close_connection = True
            return
        status, content = answer
        text = content if isinstance(content, str) else json.dumps(content)
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_PATCH = do_GET

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def unheard(handle: Callable[[], Answer]) -> None:
    """Hang up before anything is done."""


def unanswered(handle: Callable[[], Answer]) -> None:
    """Do what is asked for, and hang up without an answer."""
    handle()


def answers(status: int, content: Any = "<html>busy</html>", *, done: bool = False) -> Fault:
    """Answer with this status instead. :param done: do what is asked for nevertheless"""

    def fault(handle: Callable[[], Answer]) -> Answer:
        if done:
            handle()
        return status, content

    return fault


# As Airflow answers when SQLite is busy for too long.
LOCKED = {"detail": {"reason": "Database error", "statement": "hidden", "orig_error": "hidden"}}


@contextmanager
def pretended_airflow() -> Iterator[PretendedAirflow]:
    """Open one on a free port of this machine."""
    with PretendedAirflow() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
