"""Shows what the demonstration does, while it does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_MARKS = {"done": "[green]✔[/]", "failed": "[red]✘[/]"}


@dataclass
class Step:
    """One thing that is to be observed. ``seen`` says what was."""

    service: str
    what: str
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    state: str = "running"
    seen: str = ""

    def elapsed(self) -> float:
        """Return how long the step has taken so far, or took."""
        return time.monotonic() - self.started if self.state == "running" else self.seconds


class Board:
    """
    The steps, shown live on a terminal, and line by line elsewhere.

    :param console: where to show them
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps: list[Step] = []
        self._lock = threading.Lock()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the steps as they go."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=8):
            yield

    @contextmanager
    def step(self, service: str, what: str) -> Iterator[Step]:
        """Take one step; what is assigned to ``seen`` is shown beside it."""
        step = Step(service, what)
        with self._lock:
            self.steps.append(step)
        try:
            yield step
        except BaseException:
            self._end(step, "failed")
            raise
        self._end(step, "done")

    def say(self, text: str) -> None:
        """Print something that is not a step."""
        self.console.print(text, soft_wrap=True)

    def table(self) -> Table:
        """Return everything that happened, with seconds."""
        table = Table(
            "", "service", "step", "seconds", "observed", title="What happened", title_justify="left"
        )
        for step in self.steps:
            table.add_row(
                _MARKS.get(step.state, "…"), step.service, step.what, f"{step.elapsed():.1f}", Text(step.seen)
            )
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table.grid(padding=(0, 1))
        with self._lock:
            for step in self.steps:
                mark = Spinner("dots") if step.state == "running" else Text.from_markup(_MARKS[step.state])
                table.add_row(
                    mark, step.service, step.what, f"{step.elapsed():5.1f} s", Text(step.seen, "dim")
                )
        yield table

    def _end(self, step: Step, state: str) -> None:
        step.seconds, step.state = time.monotonic() - step.started, state
        if not self.console.is_terminal:
            mark = "ok  " if state == "done" else "FAIL"
            line = f"{mark} {step.service:8} {step.what:44} {step.seconds:5.1f} s  {step.seen}"
            self.console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)
