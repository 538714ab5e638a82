"""What a run says on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from qmig_conformance.case import Case, Verdict
from qmig_conformance.report.formats import printable
from qmig_conformance.report.model import BAD, Report, Row, worst

_COLOURS: Final = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.UNEXPECTED_PASS: "bold red",
    Verdict.ERROR: "bold magenta",
    Verdict.NON_STRICT: "yellow",
    Verdict.WAIVED: "cyan",
}


def print_summary(report: Report, written: Iterable[Path]) -> None:
    """A line per target and chapter, then every row that is bad or loose in full, then the files' paths."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    for target in report.targets:
        table = Table(title=f"qmig conformance: {escape(target.name)}")
        for heading, right in (("chapter", False), ("verdict", False), ("met", True), ("rows", True)):
            table.add_column(heading, justify="right" if right else "left", no_wrap=True)
        for chapter, rows in _by_chapter(report, target.name).items():
            met = sum(row.verdict is Verdict.PASS for row in rows)
            table.add_row(chapter, _styled(worst(rows)), str(met), str(len(rows)))
        console.print(table)
    for row in report.rows:
        if row.verdict in {*BAD, Verdict.NON_STRICT}:
            _print_row(report, row)
    for expected in report.expectations:
        if expected.state != "used":
            console.print(
                f"expectation {expected.state}: {escape(expected.case)} ({escape(expected.versions)}): "
                f"{escape(expected.reason)}",
                soft_wrap=True,
            )
    for target in report.targets:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts(target.name).items())
        console.print(f"{escape(target.name)}: {counts or 'nothing was played'}", soft_wrap=True)
    if report.interrupted:
        console.print("ended before all cases were played")
    for path in written:
        console.print(f"report: {escape(str(path))}", soft_wrap=True)


def _print_row(report: Report, row: Row) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(
        f"{_styled(row.verdict)} {escape(row.id)} on {escape(row.target)} \\[{report.requirement_of(row)}]",
        soft_wrap=True,
    )
    for name, value in (("expected", row.expected), ("actual", row.actual), ("repeat", row.repeat)):
        if value:
            console.print(f"  {name}: {escape(printable(value))}", soft_wrap=True)


def _by_chapter(report: Report, target: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.target == target:
            chapter = report.requirement_of(row).rpartition("-")[0] or "?"
            found.setdefault(f"{chapter} {row.role}", []).append(row)
    return dict(sorted(found.items()))


def _styled(verdict: Verdict) -> str:
    return f"[{_COLOURS.get(verdict, 'dim')}]{verdict}[/]"


def print_list(cases: Iterable[Case]) -> None:
    """The cases there are, once each."""
    for declared in sorted(set(cases), key=lambda declared: declared.id):
        columns = (declared.id, declared.level, declared.requirement, declared.roles, declared.profile)
        sys.stdout.write("\t".join([*columns, declared.title]) + "\n")
