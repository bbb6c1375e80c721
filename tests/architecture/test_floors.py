"""The floors of the house: imports go downward only, and every folder has its floor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
    )


def test_imports_go_downward_only() -> None:
    ran = lint(ROOT)
    assert ran.returncode == 0, ran.stdout


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    package = tmp_path / "airflow_cd"
    for floor in ("model", "operators"):
        (package / floor).mkdir(parents=True)
        (package / floor / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "model" / "low.py").write_text("import airflow_cd.operators.high\n")
    (package / "operators" / "high.py").touch()
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package = airflow_cd\n"
        "[importlinter:contract:floors]\nname = floors\ntype = layers\ncontainers = airflow_cd\n"
        "layers =\n    operators\n    model\n"
    )
    ran = lint(tmp_path)
    assert ran.returncode != 0
    assert "airflow_cd.model.low -> airflow_cd.operators.high" in ran.stdout


def test_no_file_is_named_after_nothing() -> None:
    vague = {"utils", "helpers", "common", "manager", "core", "misc"}
    assert [path for path in (ROOT / "provider").rglob("*.py") if path.stem in vague] == []


def test_files_stay_readable() -> None:
    """A file is one concept, as long as it needs; this is an alarm, not a rule."""
    long = {
        path: n
        for path in (ROOT / "provider").rglob("*.py")
        if (n := len(path.read_text().splitlines())) > 700
    }
    assert long == {}
