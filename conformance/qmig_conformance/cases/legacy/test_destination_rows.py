"""A destination is given the streams whose outcome is known (`spec/registries/destination-outcomes.toml`)."""

from __future__ import annotations

import pytest

from qmig_conformance.case import NotShown
from qmig_conformance.expect import held
from qmig_conformance.hostile.script import Absent
from qmig_conformance.hostile.table import Row
from qmig_conformance.hostile.tables import rows
from qmig_conformance.rig import Rig


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.case(row.case), id=row.case.id) for row in rows()]
)
def test_row(row: Row, destination: Rig) -> None:
    try:
        play = row.make(destination.good(row.settings))
    except Absent as absent:
        raise NotShown(f"this build's stream does not show it: {absent}") from None
    held(destination.play(play), row.entry, destination.version)
