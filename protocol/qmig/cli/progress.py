"""A progress bar on stderr, for long inputs on a terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from qmig.legacy.session import MigrationSession

T = TypeVar("T")


def with_bar(story: Iterator[T], session: MigrationSession, total: int) -> Iterator[T]:
    """The items of `story`, while the bar follows how much of the `total` bytes was read."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        for item in story:
            done = sum(line.position - line.offset for line in session.lines())
            progress.update(task, completed=done)
            yield item
