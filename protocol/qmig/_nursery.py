"""A trio nursery for helper tasks that the caller need not know of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block ends.

    What the block raises comes out as it is, not inside an exception group, so that helper tasks do not show
    in the callers' ``except`` clauses. A helper's own failure cancels the block and comes out instead.
    """
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise essence(group) from None


def essence(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The only exception in `group`, cancellations left out; `group` itself if there are several."""
    _, rest = group.split(trio.Cancelled)
    left: BaseException = group if rest is None else rest
    while isinstance(left, BaseExceptionGroup) and (len(left.exceptions) == 1 or rest is None):
        left = left.exceptions[0]
    return left
