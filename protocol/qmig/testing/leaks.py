"""What this process holds: to show that nothing was left behind."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """Equal before and after, nothing was left."""

    descriptors: int
    #: process ids
    children: frozenset[str]
    threads: int

    @classmethod
    def now(cls) -> Held:
        """What is held once garbage is collected."""
        gc.collect()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
        # An idle thread of trio's own stock has such a name; one that works has that of its work.
        working = [thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")]
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return cls(descriptors, frozenset(children), len(working))
