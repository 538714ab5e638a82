"""What a run leaves behind: a table on the terminal, `report.json`, `junit.xml`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from qmig_conformance.case import Case, Verdict

SCHEMA = "qmig/conformance-report/1"
BAD = frozenset({Verdict.FAIL, Verdict.ERROR})
#: order in which one requirement's verdicts count: the worst is shown
SEVERITY = (
    Verdict.ERROR,
    Verdict.FAIL,
    Verdict.NON_STRICT,
    Verdict.PASS,
    Verdict.UNSUPPORTED,
    Verdict.INFORMATIONAL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case's outcome. `artefacts` is a folder relative to the report's; `detail` a traceback of ours."""

    id: str
    title: str
    requirement: str
    level: str
    role: str
    scenario: str
    verdict: Verdict
    expected: str = ""
    actual: str = ""
    detail: str = ""
    artefacts: str = ""
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of the suite against one target."""

    target: Mapping[str, Any]
    command: Sequence[str]
    started: str
    rows: list[Row] = field(default_factory=list)

    def counts(self) -> dict[Verdict, int]:
        seen = Counter(row.verdict for row in self.rows)
        return {verdict: seen[verdict] for verdict in SEVERITY if seen[verdict]}

    @property
    def good(self) -> bool:
        return not any(row.verdict in BAD for row in self.rows)

    def by_requirement(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: (row.requirement, row.id)):
            found.setdefault(row.requirement, []).append(row)
        return found


def worst(rows: Iterable[Row]) -> Verdict:
    """The verdict that stands for several cases of one requirement."""
    verdicts = {row.verdict for row in rows}
    return next(verdict for verdict in SEVERITY if verdict in verdicts)


def write_json(run: Run, path: Path) -> None:
    document = {
        "schema": SCHEMA,
        "started": run.started,
        "command": list(run.command),
        "target": dict(run.target),
        "counts": {str(verdict): count for verdict, count in run.counts().items()},
        "cases": [asdict(row) for row in run.rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_junit(run: Run, path: Path) -> None:
    """One suite per requirement, as h2spec does: the class name is the requirement."""
    root = ElementTree.Element("testsuites", name="qmig conformance")
    for requirement, rows in run.by_requirement().items():
        failures = sum(row.verdict is Verdict.FAIL for row in rows)
        errors = sum(row.verdict is Verdict.ERROR for row in rows)
        skipped = sum(row.verdict in {Verdict.UNSUPPORTED, Verdict.INFORMATIONAL} for row in rows)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=requirement,
            tests=str(len(rows)),
            failures=str(failures),
            errors=str(errors),
            skipped=str(skipped),
        )
        for row in rows:
            _junit_case(suite, row)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


_TAGS = {
    Verdict.FAIL: "failure",
    Verdict.ERROR: "error",
    Verdict.UNSUPPORTED: "skipped",
    Verdict.INFORMATIONAL: "skipped",
}


def _junit_case(suite: ElementTree.Element, row: Row) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=row.requirement, name=row.id, time=f"{row.seconds:.3f}"
    )
    tag = _TAGS.get(row.verdict)
    if tag is not None:
        note = ElementTree.SubElement(case, tag, message=_printable(row.actual))
        note.text = _printable(f"expected: {row.expected}\nactual: {row.actual}\nartefacts: {row.artefacts}")
    elif row.actual:
        ElementTree.SubElement(case, "system-out").text = _printable(row.actual)


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def print_summary(run: Run, folder: Path) -> None:
    """Requirements with their worst verdict, then every verdict that is not a pass in full."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"qmig conformance: {escape(str(run.target.get('name', '?')))}")
    for heading in ("requirement", "verdict", "cases", "what"):
        table.add_column(heading, no_wrap=heading != "what")
    not_shown = []
    for requirement, rows in run.by_requirement().items():
        verdict = worst(rows)
        if verdict is Verdict.INFORMATIONAL:
            not_shown.append(requirement)
            continue
        passed = sum(row.verdict is Verdict.PASS for row in rows)
        table.add_row(requirement, _styled(verdict), f"{passed}/{len(rows)}", escape(rows[0].title))
    console.print(table)
    if not_shown:
        console.print(f"not shown by this run (reasons in report.json): {', '.join(not_shown)}")
    for row in run.rows:
        if row.verdict in {*BAD, Verdict.NON_STRICT}:
            console.print(f"{_styled(row.verdict)} {escape(row.id)} [{row.requirement}]", soft_wrap=True)
            console.print(f"  expected: {escape(row.expected)}", soft_wrap=True)
            console.print(f"  actual:   {escape(row.actual)}", soft_wrap=True)
            if row.artefacts:
                console.print(f"  see:      {escape(str(folder / row.artefacts))}", soft_wrap=True)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in run.counts().items()))
    console.print(f"report: {folder / 'report.json'} and {folder / 'junit.xml'}", soft_wrap=True)


def print_list(cases: Iterable[Case]) -> None:
    """The cases there are, once each."""
    for declared in sorted(set(cases), key=lambda declared: declared.id):
        sys.stdout.write(f"{declared.id}\t{declared.level}\t{declared.requirement}\t{declared.title}\n")


_COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold magenta",
    Verdict.NON_STRICT: "yellow",
}


def _styled(verdict: Verdict) -> str:
    colour = _COLOURS.get(verdict, "dim")
    return f"[{colour}]{verdict}[/]"
