"""The preempt channel: streams whose outcome is known, row by row."""

from __future__ import annotations

from qmig_conformance.hostile.cases import hold_row, rows_of
from qmig_conformance.hostile.preempt import TABLE
from qmig_conformance.hostile.table import Row
from qmig_conformance.play import Destination


@rows_of(TABLE)
def test_row(destination: Destination, row: Row) -> None:
    hold_row(destination, row)
