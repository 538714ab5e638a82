"""Cells as rows of a report: one target per ordered pair of builds, one variant per board, device and
state."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from qmig_conformance.case import Case, Level, Role, Verdict
from qmig_conformance.matrix.model import BuildInfo, Cell, Outcome
from qmig_conformance.report.model import Row, Target

CASE: Final = Case(
    id="legacy.pair.matrix",
    requirement="LEG-VER-001",
    level=Level.MUST,
    roles=Role.PAIR,
    title="A machine with a device moves from one build to another, and guest and device go on as before.",
)
EXPECTED: Final = "it completes; memory is equal, the guest goes on, its device is as it was and answers"
_COMMAND: Final = ("qmig", "conformance", "matrix")
_VERDICTS: Final = {
    Outcome.WORKS: Verdict.PASS,
    Outcome.UNSUPPORTED: Verdict.UNSUPPORTED,
    Outcome.BASE_FAILS: Verdict.INFORMATIONAL,
    Outcome.ERROR: Verdict.ERROR,
}


def target_of(source: BuildInfo, destination: BuildInfo) -> Target:
    """An ordered pair as a target. Programs for other processors than the first are not named."""
    return Target(
        name=f"QEMU {source.label} to {destination.label}",
        kind="pair",
        version=_version(source),
        package=source.package,
        binary=str(source.binary),
        peer_version=_version(destination),
        peer_package=destination.package,
        peer_binary=str(destination.binary),
    )


def _version(build: BuildInfo) -> str:
    return ".".join(map(str, build.version))


def targets_of(builds: Sequence[BuildInfo]) -> dict[tuple[str, str], Target]:
    """By the labels of source and destination, sources first."""
    found: dict[tuple[str, str], Target] = {}
    for source in builds:
        for destination in builds:
            if source.target == destination.target:
                found.setdefault((source.label, destination.label), target_of(source, destination))
    return found


def row_of(cell: Cell, target: Target) -> Row:
    """One cell. What was seen is in `actual`, what both sides said in `stderr`."""
    return Row(
        case=CASE.id,
        variant=cell.variant,
        target=target.name,
        role=str(Role.PAIR),
        level=str(Level.MUST),
        verdict=_VERDICTS.get(cell.outcome, Verdict.FAIL),
        outcome=str(cell.outcome),
        expected=EXPECTED if cell.outcome not in _VERDICTS else "",
        actual=_seen(cell),
        repeat=shlex.join([*_COMMAND, *_words(cell, target)]),
        stderr=_said(cell),
    )


def _seen(cell: Cell) -> str:
    parts = [
        f"machine {cell.machine}" if cell.machine else "",
        f"initialised by {cell.how}" if cell.how else "",
        f"with {cell.together - 1} more devices in the machine" if cell.together > 1 else "",
    ]
    seen = [text for text in parts if text]
    if cell.outcome in {Outcome.UNSUPPORTED, Outcome.BASE_FAILS}:
        return "; ".join([cell.blame.words or str(cell.outcome), *seen])
    if cell.outcome is not Outcome.WORKS:
        where = [
            f"section {cell.blame.section}" if cell.blame.section else "",
            f"field {cell.blame.field}" if cell.blame.field else "",
        ]
        found = " ".join(text for text in where if text)
        seen = [f"{cell.outcome}: {found or cell.blame.words}", *seen]
        seen += [
            f"stored differently: {one.section} {one.field}: {one.source} by the source's build, "
            f"{one.destination} by the destination's"
            for one in cell.differences
        ]
    return "; ".join(seen)


def _words(cell: Cell, target: Target) -> Sequence[str]:
    """The command line that plays this cell alone."""
    pair = f"{target.version}:{target.peer_version}"
    binaries = dict.fromkeys((cell.source_binary, cell.destination_binary))
    named = [word for binary in binaries for word in ("--qemu", binary)]
    return (
        *named,
        "--machine",
        cell.board,
        "--device",
        cell.device,
        "--state",
        str(cell.state),
        "--pair",
        pair,
    )


def _said(cell: Cell) -> str:
    said = (
        ("source", cell.source_command),
        ("source", cell.source_says),
        ("destination", cell.destination_command),
        ("destination", cell.destination_says),
    )
    return "\n".join(f"{side}: {line}" for side, words in said for line in words.splitlines())
