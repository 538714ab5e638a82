"""trio with interrupts that cancel.

Python's own KeyboardInterrupt may strike any task, the event loop behind a monitor among them, and what then
waits for that loop waits for ever.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


def run(work: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """`trio.run`. SIGINT and SIGTERM cancel the work; when it has cleaned up, KeyboardInterrupt is raised."""
    done: list[T] = []

    async def watched() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                done.append(await work(*arguments))
                nursery.cancel_scope.cancel()

    try:
        trio.run(watched)
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None
    if not done:
        raise KeyboardInterrupt
    return done[0]
