"""
All benchmarks, one after the other; one that is too slow does not keep the others from running.

Which: ``python -m benchmarks parse waiting``; all without a name. ``--json FILE`` keeps the results.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "parse",
    "imports",
    "task_start",
    "waiting",
    "overhead",
    "superseding",
    "parked",
    "celery",
    "docker",
    "kubernetes",
    "train",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    options = ["--json", str(args.json)] if args.json else []
    failed = []
    for name in args.names or BENCHMARKS:
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options]).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"\ntoo slow, or failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
