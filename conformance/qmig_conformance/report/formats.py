"""A report for other programs: JUnit, TAP, Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from qmig_conformance.case import Verdict
from qmig_conformance.report.model import SEVERITY, Report, Row

_TAGS: Final = {
    Verdict.FAIL: "failure",
    Verdict.UNEXPECTED_PASS: "failure",
    Verdict.ERROR: "error",
    Verdict.UNSUPPORTED: "skipped",
    Verdict.INFORMATIONAL: "skipped",
    Verdict.WAIVED: "skipped",
}


def write_junit(report: Report, path: Path) -> None:
    """One suite per target, one class per statement."""
    root = ElementTree.Element("testsuites", name="qmig conformance")
    for target in report.targets:
        rows = [row for row in report.rows if row.target == target.name]
        tags = [_TAGS.get(row.verdict) for row in rows]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=target.name,
            timestamp=report.started,
            tests=str(len(rows)),
            failures=str(tags.count("failure")),
            errors=str(tags.count("error")),
            skipped=str(tags.count("skipped")),
        )
        for row in rows:
            _junit_case(report, suite, row)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _junit_case(report: Report, suite: ElementTree.Element, row: Row) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=report.requirement_of(row), name=row.id, time=f"{row.seconds:.3f}"
    )
    tag = _TAGS.get(row.verdict)
    text = printable(_words(row))
    if tag is not None:
        note = ElementTree.SubElement(case, tag, message=printable(f"{row.verdict}: {row.actual}"))
        note.text = text
    elif row.actual:
        ElementTree.SubElement(case, "system-out").text = text


def write_tap(report: Report, path: Path) -> None:
    """TAP version 14. A waived failure is a TODO, what cannot be shown a SKIP."""
    lines = ["TAP version 14", f"1..{len(report.rows)}"]
    for number, row in enumerate(report.rows, 1):
        bad = row.verdict in {Verdict.FAIL, Verdict.ERROR, Verdict.UNEXPECTED_PASS, Verdict.WAIVED}
        directive = {
            Verdict.UNSUPPORTED: f" # SKIP {_tap(row.actual)}",
            Verdict.INFORMATIONAL: f" # SKIP {_tap(row.actual)}",
            Verdict.WAIVED: f" # TODO {_tap(row.actual)}",
        }.get(row.verdict, "")
        name = f"{row.target}: {row.id}"
        lines.append(f"{'not ok' if bad else 'ok'} {number} - {_tap(name)}{directive}")
        if bad:
            lines += ["  ---", *(f"  {line}" for line in _yaml(report, row)), "  ..."]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _yaml(report: Report, row: Row) -> Iterator[str]:
    values = {
        "verdict": str(row.verdict),
        "requirement": report.requirement_of(row),
        "expected": row.expected,
        "actual": row.actual,
        "repeat": row.repeat,
    }
    for key, value in values.items():
        if value:
            escaped = printable(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            yield f'{key}: "{escaped}"'


def _tap(text: str) -> str:
    """`#` begins a directive."""
    return _one_line(text).replace("\\", "\\\\").replace("#", "\\#")


def write_markdown(report: Report, path: Path) -> None:
    """Counts per target, then everything that is not met, waived or unexpected."""
    lines = ["# Conformance", "", f"Started {report.started}, {report.seconds:.0f} s.", ""]
    verdicts = [verdict for verdict in SEVERITY if verdict in report.counts()]
    lines += [
        f"| target | {' | '.join(verdicts)} |",
        f"| --- |{' ---: |' * len(verdicts)}",
    ]
    for target in report.targets:
        counts = report.counts(target.name)
        lines.append(f"| {_cell(target.name)} | {' | '.join(str(counts.get(v, 0)) for v in verdicts)} |")
    for verdict in (Verdict.ERROR, Verdict.FAIL, Verdict.UNEXPECTED_PASS, Verdict.NON_STRICT, Verdict.WAIVED):
        rows = [row for row in report.rows if row.verdict is verdict]
        if rows:
            lines += [
                "",
                f"## {verdict} ({len(rows)})",
                "",
                "| case | target | statement | expected | actual |",
            ]
            lines.append("| --- | --- | --- | --- | --- |")
            for row in rows:
                cells = (row.id, row.target, report.requirement_of(row), row.expected, row.actual)
                lines.append(f"| {' | '.join(map(_cell, cells))} |")
    if report.expectations:
        lines += ["", "## Expectations", "", *_heading("case", "versions", "state", "rows", "reason")]
        for one in report.expectations:
            cells = (one.case, one.versions, one.state, str(one.rows), one.reason)
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _heading(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|").replace("<", "&lt;")


def _words(row: Row) -> str:
    parts = {"expected": row.expected, "actual": row.actual, "artefacts": row.artefacts, "repeat": row.repeat}
    lines = [f"{name}: {value}" for name, value in parts.items() if value]
    return "\n".join([*lines, *([row.detail] if row.detail else [])])


def _one_line(text: str) -> str:
    return " ".join(printable(text).split("\n"))


def printable(text: str) -> str:
    """Without what XML and terminals cannot hold."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
