"""What a source does with what comes back: each row of `source-outcomes`."""

from __future__ import annotations

from qmig_conformance import expect
from qmig_conformance.hostile import returning
from qmig_conformance.hostile.cases import in_time, parametrized
from qmig_conformance.play import Destination


@parametrized("value", returning.cases())
def test_answered(source: Destination, value: str) -> None:
    entry = returning.registered()[value]
    in_time(source, entry.since, entry.until or "")
    expect.source_held(source.play(returning.ANSWERS[value].play()), entry, source.version)
