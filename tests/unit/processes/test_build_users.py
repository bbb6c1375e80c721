"""Which users run builds, and that each runs one job at a time."""

from __future__ import annotations

import grp
import os
import pwd
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.waiting import wait_until

from airflow_cd.exceptions import RunnerError
from airflow_cd.processes.build_users import BuildUser, borrowed, users_of

USERS = [BuildUser(f"cd-{n}", 3_000_000 + 2 * os.getpid() + n, 3_000_000, Path("/nowhere")) for n in (0, 1)]


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups and users of a machine."""
    groups = {"cd-build": ["one", "two"], "none": [], "odd": ["gone"], "worst": ["root"], "own": ["worker"]}
    ids = {"one": 4001, "two": 4002, "root": 0, "worker": os.geteuid()}
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_mem=groups[name]))
    monkeypatch.setattr(
        pwd,
        "getpwnam",
        lambda name: SimpleNamespace(
            pw_name=name, pw_uid=ids[name], pw_gid=ids[name], pw_dir=f"/builds/{name}"
        ),
    )


@pytest.mark.usefixtures("accounts")
def test_the_members_of_the_group_run_builds() -> None:
    assert users_of("cd-build") == (
        BuildUser("one", 4001, 4001, Path("/builds/one")),
        BuildUser("two", 4002, 4002, Path("/builds/two")),
    )


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ("none", "has no members"),
        ("odd", "gone"),
        ("missing", "missing"),
        ("worst", "'root' is root or"),
        ("own", "the worker's own user"),
    ],
)
def test_a_group_that_cannot_run_builds_is_refused(group: str, reason: str) -> None:
    with pytest.raises(RunnerError, match=rf"\[cd\] build_group is '{group}'.*{reason}"):
        users_of(group)


def test_a_user_is_lent_once_and_the_next_waits() -> None:
    waiting, got = threading.Event(), []

    def third() -> None:
        with borrowed(USERS, waiting.set) as user:
            got.append(user)

    with borrowed(USERS, waiting.set) as first:
        with borrowed(USERS, waiting.set) as second:
            assert [first, second] == USERS
            thread = threading.Thread(target=third)
            thread.start()
            assert waiting.wait(10)
            assert not got
        wait_until(lambda: got == [second], "the third has the user that is free again", timeout=10)
        thread.join(10)


def test_a_folder_of_locks_that_others_can_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_cd.processes.build_users.gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"airflow-cd-build-users-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(RunnerError, match="another user can write there"), borrowed(USERS, lambda: None):
        pass
