"""The matrix as a page of Markdown: who moves where, and why not."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from qmig_conformance.matrix.model import BuildInfo, Cell, Outcome, State
from qmig_conformance.matrix.run import Played
from qmig_conformance.report.model import Report, host

#: outcomes of (idle, initialised) -> mark; True: works
_MARKS: Final = {(True, True): "●", (True, False): "◐", (False, True): "◑", (False, False): "○"}
_LEGEND: Final = (
    "`●` moves, idle and initialised; `◐` idle only; `◑` initialised only; `○` neither; "
    "`–` a build has not got it, or says itself that it does not migrate; "
    "`·` the machine without it does not move either; `!` an error of ours. "
    "Columns are source to destination."
)
#: characters of a message that are shown
_WORDS: Final = 160

#: (board, device) -> (source, destination) -> its cells
Lines = dict[tuple[str, str], dict[tuple[str, str], list[Cell]]]


def write_table(path: Path, report: Report, builds: Sequence[BuildInfo], played: Played) -> None:
    """Writes the page."""
    path.write_text("\n".join(_page(report, builds, played)) + "\n", encoding="utf-8")


def _page(report: Report, builds: Sequence[BuildInfo], played: Played) -> Iterator[str]:
    lines = _lines(played.cells)
    system = host()
    yield "# Devices from build to build"
    yield ""
    yield "Written by `make matrix`; all types that any build has: `qmig conformance matrix --all-devices`."
    yield ""
    today = datetime.datetime.now(datetime.UTC).date()
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts().items())
    devices = len({device for _, device in lines})
    yield (
        f"{today}, {system['machine']}: {len(played.cells)} cells of {devices} devices ({counts}); "
        f"{played.starts} machines in {report.seconds:.0f} s."
    )
    yield ""
    for build in builds:
        yield f"* {build.label}, {build.target}: {build.package or build.binary}"
    for board in dict.fromkeys(board for board, _ in lines):
        yield from _board(board, {device: pairs for (own, device), pairs in lines.items() if own == board})
    yield from _causes(report)


def _lines(cells: Iterable[Cell]) -> Lines:
    found: Lines = {}
    for cell in cells:
        pairs = found.setdefault((cell.board, cell.device), {})
        pairs.setdefault((cell.source, cell.destination), []).append(cell)
    return found


def _board(board: str, lines: Mapping[str, Mapping[tuple[str, str], Sequence[Cell]]]) -> Iterator[str]:
    pairs = sorted({pair for line in lines.values() for pair in line}, key=_by_version)
    yield from ("", f"## {board}", "", _LEGEND, "")
    heads = [f"{_short(source)} {_short(destination)}" for source, destination in pairs]
    yield f"| device | {' | '.join(heads)} |"
    yield f"| --- |{' :-: |' * len(pairs)}"
    alike: dict[str, list[str]] = {}
    for device, line in lines.items():
        alike.setdefault(" | ".join(mark(line.get(pair, ())) for pair in pairs), []).append(_cell(device))
    for marks, devices in alike.items():
        yield f"| {'; '.join(devices)} | {marks} |"


def mark(cells: Sequence[Cell]) -> str:
    """One sign for both states. A state that was not played counts as the other one."""
    outcomes = {cell.state: cell.outcome for cell in cells}
    if not outcomes or set(outcomes.values()) == {Outcome.UNSUPPORTED}:
        return "–"
    if Outcome.ERROR in outcomes.values():
        return "!"
    if Outcome.BASE_FAILS in outcomes.values():
        return "·"
    works = {state: outcome is Outcome.WORKS for state, outcome in outcomes.items()}
    idle = works.get(State.IDLE, works.get(State.INITIALISED, False))
    return _MARKS[idle, works.get(State.INITIALISED, idle)]


def _causes(report: Report) -> Iterator[str]:
    reasons = {expected.number: expected for expected in report.expectations}
    found: dict[int, list[str]] = {}
    others: list[str] = []
    for row in report.rows:
        text = f"{row.variant}, {row.target.removeprefix('QEMU ')}"
        if row.waiver and row.verdict == "waived":
            found.setdefault(row.waiver, []).append(text)
        elif row.verdict not in {"pass", "unsupported", "informational"}:
            others.append(f"* **{row.verdict}** {_cell(text)}: {_cell(row.actual)[:_WORDS]}")
    yield from ("", "## Why not", "", "| cells | what | why |", "| --: | --- | --- |")
    for number, texts in sorted(found.items()):
        expected = reasons[number]
        what = f"{expected.case} ({expected.versions})" if expected.versions else expected.case
        yield f"| {len(texts)} | {_cell(what)} | {_cell(' '.join(expected.reason.split()))} |"
    if others:
        yield from ("", "## Not explained", "", *others)


def _by_version(pair: tuple[str, str]) -> list[list[int]]:
    return [[int(part) for part in label.split(".") if part.isdigit()] for label in pair]


def _short(label: str) -> str:
    return ".".join(label.split(".")[:2])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
