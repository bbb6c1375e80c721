"""An RPC extension that supervisord loads: adds one program without reading all others again."""

from __future__ import annotations

from configparser import Error as UnreadableError
from typing import Any


class Programs:
    """
    What it answers to by XML-RPC.

    :param supervisord: the process's ``supervisor.supervisord.Supervisor``
    """

    def __init__(self, supervisord: Any) -> None:
        self._supervisord = supervisord

    def add(self, file: str) -> bool:
        """
        Run what a file defines from now on.

        :raises RPCError: ``NO_FILE``, ``CANT_REREAD``, or ``ALREADY_ADDED`` when one of that name runs
        """
        from supervisor.options import UnhosedConfigParser
        from supervisor.rpcinterface import RPCError
        from supervisor.xmlrpc import Faults

        options = self._supervisord.options
        parser = UnhosedConfigParser()
        parser.expansions = options.environ_expansions
        try:
            if not parser.read(file):
                raise RPCError(Faults.NO_FILE, file)
            groups = options.process_groups_from_parser(parser)
        except (UnreadableError, ValueError) as error:
            raise RPCError(Faults.CANT_REREAD, str(error)) from error
        for group in groups:
            if not self._supervisord.add_process_group(group):
                raise RPCError(Faults.ALREADY_ADDED, group.name)
        return True


def make_programs(supervisord: Any) -> Programs:
    """Return the part, for ``[rpcinterface:airflow_cd]`` in supervisord's configuration."""
    return Programs(supervisord)
