"""The suite on our own peers: an honest one passes, each case fails on a faulty one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qmig_conformance.case import Case, Level, Role, Unmet
from qmig_conformance.play import Outcome, Seen
from qmig_conformance.reference.faults import ANSWERS, destination_faults, statement_of
from qmig_conformance.reference.selfcheck import Checked, SelfCheck, Shown
from qmig_conformance.report.model import read

COMMAND = [sys.executable, "-P", "-m", "qmig_conformance"]
REFUSED = Seen(outcome=Outcome.FAIL, words="main: offset 0x0, FileHeader: magic is 1 [LEG-HDR-001]")


def test_all_of_it(tmp_path: Path) -> None:
    """Every row of destination-outcomes, a sample of the sweep, every rule of sources."""
    done = subprocess.run(
        [*COMMAND, "self-check", "--report", str(tmp_path), "--table", str(tmp_path / "S.md")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = read(tmp_path / "report.json")
    assert [target.kind for target in report.targets] == ["reference"]
    assert {row.verdict for row in report.rows} <= {"pass", "non-strict", "waived", "informational"}
    assert {expected.state for expected in report.expectations} == {"used"}
    text = (tmp_path / "S.md").read_text()
    assert "0 fail on none" in text
    assert "Cases that fail on nothing" not in text


def test_run_on_our_own_peers(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", "--reference", "--select", "legacy.destination.header", "--report", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row.target for row in read(tmp_path / "report.json").rows} == {"qmig's own peers"}


def shown(call: object) -> Shown:
    declared = Case(id="x", requirement="LEG-HDR-001", level=Level.MUST, roles=Role.DESTINATION)
    return Shown(declared, call, {"destination": None}, None, REFUSED)  # type: ignore[arg-type]


def sees_nothing(destination: object) -> None:
    """A case that cannot fail."""


def wants_a_refusal(destination: object) -> None:
    seen = destination.play(None)  # type: ignore[attr-defined]
    if seen.outcome is not Outcome.FAIL or not seen.words:
        raise Unmet(expected="a refusal", actual=str(seen.outcome))


@pytest.mark.parametrize(("case", "good"), [(sees_nothing, False), (wants_a_refusal, True)])
def test_a_case_that_cannot_fail_is_found(case: object, good: bool) -> None:
    plugin = SelfCheck()
    plugin.shown.append(shown(case))
    checked = plugin.check()
    assert bool(checked.untripped) is not good
    assert checked.good() is good
    assert (checked.missed == []) is good


def test_too_many_faults_that_nothing_catches() -> None:
    checked = Checked()
    for number in range(100):
        checked.note(f"fault {number}", "case", fails=number >= 5)
    assert checked.good()
    checked.note("fault 100", "other", fails=False)
    assert not checked.good()
    assert not Checked().good()


def test_each_fault_changes_what_it_is_about_only() -> None:
    faults = destination_faults({"LEG-HDR-001", "LEG-SEC-002"})
    assert len({fault.name for fault in faults}) == len(faults) > len(ANSWERS)
    changed = {fault.name for fault in faults if fault.change(REFUSED) is not None}
    assert changed
    assert all(name.startswith("LEG-HDR-001: ") for name in changed)
    assert statement_of(REFUSED) == "LEG-HDR-001"
    assert statement_of(Seen(outcome=Outcome.FAIL, words="no pages left")) == ""
