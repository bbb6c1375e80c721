"""The user who types a command: named with ``--user`` and a password, or by an access token."""

from __future__ import annotations

import json
import os
import sys
import warnings
from argparse import Namespace
from base64 import urlsafe_b64decode
from getpass import GetPassWarning, getpass

TOKEN_VARIABLE = "AIRFLOW_CD_TOKEN"
PASSWORD_VARIABLE = "AIRFLOW_CD_PASSWORD"


def has_login(args: Namespace) -> bool:
    """Return whether the command names its user."""
    return bool(args.user or os.environ.get(TOKEN_VARIABLE))


def given_token() -> str:
    """
    Return the access token from the environment.

    :raises SystemExit: there is none, or it cannot be one
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise SystemExit(f"No user is named: give --user, or put an access token into {TOKEN_VARIABLE}.")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SystemExit(f"{TOKEN_VARIABLE} holds no access token: it contains spaces or control characters.")
    return token


def password_of(user: str) -> str:
    """
    Return the user's password, from the environment or the terminal.

    :raises SystemExit: there is no terminal, or its input ended
    :raises KeyboardInterrupt: the user pressed Ctrl-C
    """
    if password := os.environ.get(PASSWORD_VARIABLE):
        return password
    try:
        with warnings.catch_warnings():
            # Without a terminal, getpass would read the next line of standard input, whatever that is.
            warnings.simplefilter("error", GetPassWarning)
            return getpass(f"Password of {user}: ")
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise
    except (EOFError, OSError, GetPassWarning) as error:
        raise SystemExit(
            f"No terminal to ask for the password of {user!r}: put the password into {PASSWORD_VARIABLE}, "
            f"or leave out --user and put an access token into {TOKEN_VARIABLE}."
        ) from error


def subject_of(token: str) -> str | None:
    """Return the id of the user that Airflow's access tokens name, or ``None`` for another token."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None
