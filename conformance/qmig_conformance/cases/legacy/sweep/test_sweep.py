"""Each field, each order, each cut and each connection wrong: nothing crashes and nothing blocks."""

from __future__ import annotations

from qmig_conformance.hostile.cases import Swept, hold_swept, swept
from qmig_conformance.hostile.connections import ARRANGED
from qmig_conformance.hostile.sweep import ITEMS
from qmig_conformance.play import Destination


@swept(ITEMS)
def test_records(destination: Destination, item: Swept) -> None:
    hold_swept(destination, item)


@swept(ARRANGED)
def test_connections(destination: Destination, item: Swept) -> None:
    hold_swept(destination, item)
