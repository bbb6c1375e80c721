"""What every runner does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.build_user import as_root, build_user
from tests.support.cluster_jobs import need_nodes_that_answer
from tests.support.engine import PYTHON

from airflow_cd.exceptions import CommandError, CommandTimeoutError
from airflow_cd.hooks.docker import docker_client
from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.model.runner import DockerRunnerSettings, KubernetesRunnerSettings
from airflow_cd.processes.build_users import BuildUser
from airflow_cd.runners.base import Runner
from airflow_cd.runners.registry import RUNNERS, open_runner

Run = Callable[..., list[str]]


@pytest.fixture(
    params=[pytest.param(kind, marks=[as_root] if kind == "build_users" else []) for kind in sorted(RUNNERS)]
)
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param == "subprocess":
        return open_runner("subprocess")
    if request.param == "build_users":
        return open_runner("build_users", [request.getfixturevalue("other_user")])
    if request.param == "kubernetes":
        need_nodes_that_answer(request.getfixturevalue("cluster_client"))
        settings = KubernetesRunnerSettings(image=PYTHON, namespace=request.getfixturevalue("namespace"))
        return open_runner("kubernetes", settings, lambda: kubernetes_client(None, None))
    request.getfixturevalue("engine")
    return open_runner("docker", DockerRunnerSettings(image=PYTHON), lambda: docker_client(None, None))


@pytest.fixture
def other_user() -> Iterator[BuildUser]:
    with build_user() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def run(runner: Runner, folder: Path) -> Run:
    """Run commands as one job and return their output."""

    def run(*commands: list[str], timeout: float = 60, env: dict[str, str] | None = None) -> list[str]:
        lines: list[str] = []
        with runner.job(str(folder), folder):
            for argv in commands:
                runner.run(argv, cwd=folder, env=env or {}, timeout=timeout, on_line=lines.append)
        return lines

    return run


def python(code: str, *arguments: str) -> list[str]:
    return ["python3", "-c", code, *arguments]


def test_odd_output_is_survived(run: Run) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'10%\r100%\n\xff\xfe\n' + b'x' * 70000 + b'\r\nend')"
    assert run(python(code)) == ["100%", "��", "x" * 65536, "x" * (70000 - 65536), "end"]


def test_each_kind_of_output_comes_in_its_order(run: Run) -> None:
    code = "import sys\nfor n in range(50): print(n, file=(sys.stdout, sys.stderr)[n % 2], flush=True)"
    lines = [int(line) for line in run(python(code))]
    assert [n for n in lines if n % 2 == 0] == list(range(0, 50, 2))
    assert [n for n in lines if n % 2] == list(range(1, 50, 2))


def test_a_failing_command_says_what_it_said_last(run: Run) -> None:
    with pytest.raises(CommandError, match="exit code 3\nbye") as caught:
        run(python("print('bye'); raise SystemExit(3)"), ["touch", "never"])
    assert (caught.value.exit_code, caught.value.tail) == (3, ("bye",))


@pytest.mark.parametrize(("mode", "code"), [(None, 127), (0o644, 126)])
def test_what_cannot_be_run_is_said(run: Run, folder: Path, mode: int | None, code: int) -> None:
    if mode:
        (folder / "tool").write_text("#!/bin/sh\n")
        (folder / "tool").chmod(mode)
    with pytest.raises(CommandError, match="'./tool'") as caught:
        run(["./tool"])
    assert caught.value.exit_code == code


def test_a_script_of_the_source_is_found(run: Run, folder: Path) -> None:
    (folder / "tool").write_text("#!/bin/sh\ncat data\n")
    (folder / "tool").chmod(0o755)
    (folder / "data").write_text("of the source\n")
    assert run(["./tool"]) == ["of the source"]


def test_arguments_are_never_given_to_a_shell(run: Run, folder: Path) -> None:
    hostile = ["$(touch evil)", "; touch evil", "`touch evil`", "a b", "-x", "$(HOME) $HOME $$ $$(HOME)"]
    assert run(["printf", "%s\n", *hostile]) == hostile
    assert list(folder.iterdir()) == []


def test_given_variables_are_there_and_the_workers_are_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("MY_TOKEN", "secret")
    code = "import os; print(*(f'{n}={v}' for n, v in os.environ.items()), sep='\\n')"
    seen = run(python(code), env={"GIVEN": "1", "TZ": "Europe/Berlin"})
    assert {"GIVEN=1", "TZ=Europe/Berlin", "SOURCE_DATE_EPOCH=315532800"} <= set(seen)
    assert not [line for line in seen if line.startswith(("AIRFLOW", "MY_TOKEN"))]


def test_commands_of_a_job_see_what_those_before_did(run: Run) -> None:
    first = "import os; open('made', 'w').write('x'); open(os.environ['HOME'] + '/.made-too', 'w').write('y')"
    then = "import os; print(open('made').read() + open(os.environ['HOME'] + '/.made-too').read())"
    clean = "import os; os.unlink(os.environ['HOME'] + '/.made-too')"
    assert run(python(first), python(then), python(clean)) == ["xy"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_commands_did_to_the_workspace_is_there_afterwards(run: Run, folder: Path, fails: bool) -> None:
    (folder / "gone").write_text("x")
    (folder / "kept").mkdir()
    (folder / "kept" / "ünïcode 日本").write_text("x")
    (folder / "link").symlink_to("kept")
    code = """
import os, sys
os.unlink("gone")
os.makedirs("new/deep")
open("new/deep/tool", "w").write("y")
os.chmod("new/deep/tool", 0o755)
os.symlink("deep", "new/link")
os.link("new/deep/tool", "hard")
sys.exit(int(sys.argv[1]))
"""
    if fails:
        with pytest.raises(CommandError):
            run(python(code, "1"))
    else:
        run(python(code, "0"))
    found: dict[str, Any] = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    assert set(found) == {
        *("hard", "kept", "kept/ünïcode 日本", "link", "new", "new/deep", "new/deep/tool", "new/link")
    }
    assert found["new/deep/tool"].read_text() == found["hard"].read_text() == "y"
    assert found["new/deep/tool"].stat().st_mode & 0o111
    assert (found["link"].readlink(), found["new/link"].readlink()) == (Path("kept"), Path("deep"))
    assert {path.stat().st_uid for path in found.values()} == {folder.stat().st_uid}


def test_a_command_that_takes_too_long_is_ended(run: Run) -> None:
    with pytest.raises(CommandTimeoutError, match="longer than 2 s"):
        run(["sleep", "300"], timeout=2)


def test_kill_ends_the_command(runner: Runner, folder: Path) -> None:
    """The first line has come by then, while the command still runs."""
    with pytest.raises(CommandError), runner.job("kill", folder):
        argv = ["sh", "-c", "echo up; sleep 300"]
        runner.run(argv, cwd=folder, env={}, timeout=250, on_line=lambda line: runner.kill())
