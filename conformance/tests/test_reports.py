"""Reports: what is written is read again, merged, and says the same in all formats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qmig.errors import QmigError
from qmig_conformance.case import Case, Level, Role, Verdict
from qmig_conformance.report import model, write_all
from qmig_conformance.report.model import Expected, Report, Row, Target, condensed, merged

CASE = Case(
    id="legacy.destination.x",
    requirement="LEG-DST-011",
    level=Level.MUST,
    roles=Role.DESTINATION,
    title="A magic | with # odd <words>",
)
ROW = Row(case=CASE.id, target="QEMU 1", role="destination", level="must", verdict=Verdict.PASS)
HOSTILE = 'said "\x1b[31m" \\ # TODO\n</script><b>| \x00'


def report(*rows: Row) -> Report:
    found = Report(started="2026-01-01T00:00:00+00:00", seconds=1.5, command=["qmig"], rows=list(rows))
    found.targets = [Target(name=name, kind="qemu") for name in dict.fromkeys(row.target for row in rows)]
    found.cases = {CASE.id: CASE}
    return found


ALL = [
    replace(ROW, variant=str(verdict), verdict=verdict, actual=HOSTILE, expected="so", repeat="again")
    for verdict in Verdict
]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from qmig.testing import spec_root

    written = write_all(report(*ALL), tmp_path)
    assert all(path.exists() for path in written)
    document = json.loads((tmp_path / "report.json").read_text())
    schema = json.loads((spec_root() / "schema" / "conformance-report.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    again = model.read(tmp_path / "report.json")
    assert again.rows == ALL
    assert again.cases == {CASE.id: CASE}


def test_all_formats_count_the_same(tmp_path: Path) -> None:
    write_all(report(*ALL), tmp_path)
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    counted = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": "8", "failures": "2", "errors": "1", "skipped": "3"}
    tap = (tmp_path / "report.tap").read_text().splitlines()
    assert tap[:2] == ["TAP version 14", "1..8"]
    results = [line for line in tap if line.startswith(("ok", "not ok"))]
    assert sum(line.startswith("not ok") for line in results) == 4  # a TODO is one
    assert sum(" # TODO" in line for line in results) == 1
    assert sum(" # SKIP" in line for line in results) == 2
    markdown = (tmp_path / "report.md").read_text()
    assert "\x1b" not in markdown
    assert "<b>" not in markdown
    assert markdown.count("\n## ") == 5


@pytest.mark.parametrize(
    ("verdict", "good", "strictly"),
    [
        (Verdict.PASS, True, True),
        (Verdict.FAIL, False, False),
        (Verdict.ERROR, False, False),
        (Verdict.UNEXPECTED_PASS, False, False),
        (Verdict.NON_STRICT, True, False),
        (Verdict.WAIVED, True, True),
        (Verdict.UNSUPPORTED, True, True),
        (Verdict.INFORMATIONAL, True, True),
    ],
)
def test_what_makes_a_run_bad(verdict: Verdict, good: bool, strictly: bool) -> None:
    found = report(replace(ROW, verdict=verdict))
    assert (found.good(), found.good(strict=True)) == (good, strictly)


def test_an_unmatched_expectation_is_bad_only_strictly() -> None:
    found = report(ROW)
    found.expectations = [expected("unmatched")]
    assert found.good()
    assert not found.good(strict=True)


def expected(state: str, rows: int = 0) -> Expected:
    return Expected(
        number=1, case="x", versions="", message="m", reason="r", link="l", expires="", state=state, rows=rows
    )


def test_merging_is_a_union() -> None:
    first, second = report(ROW), report(replace(ROW, target="QEMU 2"), replace(ROW, verdict=Verdict.FAIL))
    first.expectations, second.expectations = [expected("unmatched")], [expected("used", 2)]
    both = merged([first, second], ["merge"])
    assert [row.target for row in both.rows] == ["QEMU 1", "QEMU 2"]
    assert both.rows[0].verdict is Verdict.PASS
    assert [target.name for target in both.targets] == ["QEMU 1", "QEMU 2"]
    assert both.expectations == [expected("used", 2)]
    assert both.seconds == 3


def test_variants_that_show_nothing_give_way() -> None:
    nothing = replace(ROW, verdict=Verdict.INFORMATIONAL, variant="a")
    shown = replace(ROW, variant="b")
    assert condensed([nothing, shown]) == [shown]
    assert condensed([nothing, replace(nothing, variant="c")]) == [replace(nothing, variant="")]
    assert len(condensed([nothing, replace(nothing, target="other")])) == 2


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "qmig/conformance-report/1"}', '{"schema": "qmig/conformance-report/2"}'],
)
def test_what_is_no_report_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(QmigError, match=r"report\.json: "):
        model.read(path)
