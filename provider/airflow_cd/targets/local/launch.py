"""
Becomes a service's process. The supervisor runs this file by its path, with a specification file.

The specification (JSON: ``argv``, ``cwd``, ``env``) keeps the user's arguments away from the supervisor's
configuration syntax. Only the standard library is used: this starts with every instance.
"""

import json
import os
import sys


def main() -> None:
    """Replace this process by the one the specification describes."""
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SUPERVISOR_")}
    os.chdir(spec["cwd"])
    env = {**inherited, **spec["env"]}
    try:
        os.execvpe(spec["argv"][0], spec["argv"], env)
    except OSError as error:
        sys.exit(f"cannot start {spec['argv'][0]!r}: {error.strerror}")


if __name__ == "__main__":
    main()
