"""Expectations: what waives, what does not, and what is told about them."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from qmig.errors import QmigError
from qmig.spec.ids import read_requirements
from qmig.testing import spec_root
from qmig_conformance import expectations
from qmig_conformance.case import Verdict
from qmig_conformance.expectations import in_range
from qmig_conformance.report.model import Row, Target

TODAY = datetime.date(2026, 11, 25)
TARGET = Target(name="QEMU 7.2.22", kind="qemu", version="7.2.22", package="Debian 1:7.2")
ROW = Row(
    case="a.b",
    target=TARGET.name,
    role="destination",
    level="must",
    verdict=Verdict.FAIL,
    actual="crash (signal 5)",
)
ENTRY = """
[[expect]]
case = "a.*"
versions = ">=7.2, <10"
message = 'signal 5'
reason = "it does"
link = "LEG-DST-016"
"""


def load(text: str, tmp_path: Path) -> expectations.Expectations:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return expectations.load([path], TODAY)


@pytest.mark.parametrize(
    ("row", "target", "verdict", "state"),
    [
        (ROW, TARGET, Verdict.WAIVED, "used"),
        (replace(ROW, verdict=Verdict.NON_STRICT), TARGET, Verdict.WAIVED, "used"),
        (replace(ROW, verdict=Verdict.PASS), TARGET, Verdict.UNEXPECTED_PASS, "fixed"),
        (replace(ROW, actual="signal 11"), TARGET, Verdict.FAIL, "unmatched"),
        (replace(ROW, verdict=Verdict.ERROR), TARGET, Verdict.ERROR, "unmatched"),
        (replace(ROW, verdict=Verdict.UNSUPPORTED), TARGET, Verdict.UNSUPPORTED, "unmatched"),
        (replace(ROW, case="b.a"), TARGET, Verdict.FAIL, ""),
        (ROW, replace(TARGET, version="10.0.13"), Verdict.FAIL, ""),
        (ROW, replace(TARGET, version=""), Verdict.FAIL, ""),
    ],
)
def test_what_an_expectation_makes_of_a_row(
    row: Row, target: Target, verdict: Verdict, state: str, tmp_path: Path
) -> None:
    known = load(ENTRY, tmp_path)
    assert known.judge(row, target).verdict is verdict
    assert [one.state for one in known.report()] == ([state] if state else [])


def test_an_expired_one_waives_nothing(tmp_path: Path) -> None:
    known = load(f"{ENTRY}expires = 2026-11-24\n", tmp_path)
    assert known.judge(ROW, TARGET).verdict is Verdict.FAIL
    assert [one.state for one in known.report()] == ["expired"]
    assert load(f"{ENTRY}expires = 2026-11-25\n", tmp_path).judge(ROW, TARGET).verdict is Verdict.WAIVED


def test_one_that_is_not_steady_may_pass(tmp_path: Path) -> None:
    known = load(f"{ENTRY}steady = false\n", tmp_path)
    assert known.judge(replace(ROW, verdict=Verdict.PASS), TARGET).verdict is Verdict.PASS
    assert known.judge(ROW, TARGET).verdict is Verdict.WAIVED


def test_one_for_a_package_is_for_that_only(tmp_path: Path) -> None:
    known = load(f"{ENTRY}package = 'Fedora'\n", tmp_path)
    assert known.judge(ROW, TARGET).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("version", "bounds", "good"),
    [
        ("10.0.13", "<=10.0", True),
        ("10.0.13", "<10.0.13", False),
        ("10.0.13", ">=10, <11", True),
        ("7.2.22", ">=10", False),
        ("11.1.2", "==11.1", True),
        ("11.1.2", ">11.1", False),
        ("", ">=5", False),
        ("", "", True),
    ],
)
def test_ranges(version: str, bounds: str, good: bool) -> None:
    assert in_range(version, bounds) is good


@pytest.mark.parametrize(
    "text",
    [
        "[[expect]]\ncase = 'x'\n",
        f"{ENTRY}typo = 1\n",
        f"{ENTRY}expires = 'soon'\n",
        ENTRY.replace("'signal 5'", "'('"),
        ENTRY.replace(">=7.2, <10", "7.2"),
        "nonsense",
    ],
)
def test_a_file_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(QmigError, match=r"x\.toml"):
        load(text, tmp_path)


def test_those_that_come_with_the_suite_can_be_read_and_link_to_statements() -> None:
    known = expectations.load(expectations.shipped(), TODAY)
    statements = read_requirements(spec_root())[0]
    assert len(known.entries) > 50
    for one in known.entries:
        assert one.link in statements, one.cases
        assert one.reason.strip()
