"""A model of two endpoints, their QEMUs, their guest, and everything that can happen to them.

It runs on the tables that the code runs on (`qmig.handshake.source_table`, `destination_table`), explores
every order of events, and holds each state that it reaches to what must never happen:

* both guests run at once;
* a message or an event of a QEMU for which there is no row;
* a situation in which nothing can happen and that is not the end, or from which no end can be reached;
* ends that do not agree.

    found = explore(Features(handover=True))
    assert not found.faults, found.faults[0]
"""

from __future__ import annotations

from qmig.testing.model.explore import Explored, Fault, explore
from qmig.testing.model.world import Features, World, initial

__all__ = ["Explored", "Fault", "Features", "World", "explore", "initial"]
