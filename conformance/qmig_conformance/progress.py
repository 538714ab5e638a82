"""How far a run is: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Begins when it knows how many there are."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def total(self, count: int) -> None:
        """So many cases will be played. Every worker says so."""
        if self._bar is not None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=count)
        self._bar.start()

    def played(self, name: str) -> None:
        """One more."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=name[:60])

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
