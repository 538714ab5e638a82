"""Good streams around the wrong ones: what loads none, or none any more, makes errors of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmig.errors import EnvironmentProblem
from qmig.testing import load_vectors
from qmig.testing.scenario import Scenario, Unsupported
from qmig_conformance.bracket import Bracket, control_of, controls
from qmig_conformance.case import Verdict
from qmig_conformance.hostile.tables import rows
from qmig_conformance.options import Options
from qmig_conformance.play import Good, Outcome, Play, Seen
from qmig_conformance.plugin import Suite

PLAIN = next(iter(controls().values()))
LOADED = Seen(outcome=Outcome.SUCCEED)
CRASHED = Seen(outcome=Outcome.CRASH, returncode=-11)
REFUSED = Seen(outcome=Outcome.FAIL_DEST_QUIT_ERR, words="no")


class Scripted:
    """A destination that comes to these outcomes, one after the other."""

    version = "10.0.13"

    def __init__(self, *outcomes: Seen | Exception) -> None:
        self.outcomes = list(outcomes)

    def good(self, settings: Scenario) -> Good:
        (vector,) = [
            found
            for found in load_vectors("legacy/recordings")
            if found.id.endswith("#11.1-precopy-plain-q35")
        ]
        return Good(settings, {"main": vector.data("main")})

    def play(self, play: Play) -> Seen:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def keep(self, folder: Path) -> None:
        raise NotImplementedError


def test_all_settings_have_a_good_stream() -> None:
    assert all(control_of(row.settings).entry.requirement == "LEG-DST-007" for row in rows())
    own = {row.settings.name for row in controls().values()}
    assert {"postcopy", "multifd-none-2", "mapped-ram", "dirty-bitmaps"} <= own


def test_asked_once_at_the_beginning_and_once_at_the_end() -> None:
    destination = Scripted(LOADED, LOADED)
    bracket = Bracket(destination)
    bracket.open(PLAIN.settings)
    bracket.open(PLAIN.settings)
    assert list(bracket.close()) == []
    assert destination.outcomes == []


@pytest.mark.parametrize("seen", [CRASHED, REFUSED], ids=str)
def test_what_loads_nothing_is_judged_by_nothing(seen: Seen) -> None:
    bracket = Bracket(Scripted(seen))
    for _ in range(2):
        with pytest.raises(EnvironmentProblem, match="control-good-stream, a good stream, does not load"):
            bracket.open(PLAIN.settings)
    assert list(bracket.close()) == []


def test_what_loads_no_more_is_told() -> None:
    destination = Scripted(LOADED, REFUSED)
    bracket = Bracket(destination)
    bracket.open(PLAIN.settings)
    suite = Suite(Options())
    suite.destinations["QEMU"] = destination, bracket
    ((row, case),) = suite.brackets()
    assert (row.verdict, row.target, row.actual) == (Verdict.ERROR, "QEMU", "fail-dest-quit-err: no")
    assert (row.case, row.variant, case) == (PLAIN.case.id, "at the end", PLAIN.case)


def test_a_build_without_the_feature_is_left_to_the_cases() -> None:
    bracket = Bracket(Scripted(Unsupported("no such capability"), LOADED))
    bracket.open(PLAIN.settings)
    assert list(bracket.close()) == []
