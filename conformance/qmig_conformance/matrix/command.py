"""``qmig conformance matrix``: its arguments, and its run from the builds to the report."""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qmig.builds import find_or_install, installed
from qmig.errors import EnvironmentProblem, QmigError
from qmig_conformance import expectations, interrupt
from qmig_conformance.matrix.boards import BOARDS
from qmig_conformance.matrix.common import COMMON
from qmig_conformance.matrix.model import BuildInfo, State
from qmig_conformance.matrix.rows import CASE, row_of, targets_of
from qmig_conformance.matrix.run import WATCHDOG, Plan, Played, describe_all, play
from qmig_conformance.matrix.table import write_table
from qmig_conformance.progress import Progress
from qmig_conformance.report import write_all
from qmig_conformance.report.model import Report
from qmig_conformance.report.terminal import print_summary
from qmig_conformance.target import say

EPILOG: Final = """\
Each machine is started once per build, idle and initialised by a guest that does what drivers do, and its
state is loaded by every other build. A cell passes if the migration completes, memory is equal, the guest
goes on, and its device is as it was and answers. Builds are those of `qmig builds list` unless some are
named. What fails and is known to, with its cause, is waived by expectations. Exit status as for run.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    matrix = commands.add_parser("matrix", help="devices from build to build", epilog=EPILOG)
    matrix.add_argument(
        "--qemu", metavar="BIN", action="append", default=[], help="a build; may be given again"
    )
    matrix.add_argument(
        "--machine",
        choices=[board.name for board in BOARDS],
        action="append",
        default=[],
        help="default: all",
    )
    matrix.add_argument("--device", metavar="GLOB", action="append", default=[], help="name or type; again")
    matrix.add_argument("--all-devices", action="store_true", help="every type that any build has")
    matrix.add_argument("--state", choices=list(State), action="append", default=[], help="default: both")
    matrix.add_argument(
        "--pair", metavar="A:B", action="append", default=[], help="from version A to B; again"
    )
    matrix.add_argument("--report", metavar="DIR", type=Path, default=Path("report"), help="default: report")
    matrix.add_argument("--table", metavar="FILE", type=Path, help="write the matrix as Markdown, too")
    matrix.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="default: cores")
    matrix.add_argument("--strict", action="store_true", help="an expectation that nothing met fails the run")
    matrix.add_argument("--expectations", metavar="FILE", type=Path, action="append", default=[])


def run(given: argparse.Namespace, command: Sequence[str], shard: tuple[int, int]) -> int:
    """0 everything works or is waived, 1 not. Raises EnvironmentProblem, QmigError; KeyboardInterrupt when
    the report of what was played is written."""
    now = datetime.datetime.now(datetime.UTC)
    known = expectations.load([*expectations.shipped(), *given.expectations], now.date())
    binaries = [find_or_install(explicit=Path(binary)).binary for binary in given.qemu] or _installed(
        given.machine
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # outside of trio
    builds = interrupt.run(describe_all, binaries)
    for build in builds:
        say(f"{build.binary}: QEMU {build.label} ({build.target})")
    plan = _plan(given, builds, shard)
    report = Report(started=now.isoformat(timespec="seconds"), seconds=0, command=command)
    began, played = time.monotonic(), Played()
    try:
        _play(plan, played)
    except KeyboardInterrupt:
        report.interrupted = True
    report.seconds = time.monotonic() - began
    _fill(report, played, builds, known)
    written = write_all(report, given.report)
    if given.table and not report.interrupted:
        write_table(given.table, report, builds, played)
    print_summary(report, written)
    say(f"{played.starts} machines were started in {report.seconds:.0f} s")
    if report.interrupted:
        raise KeyboardInterrupt
    return 0 if report.good(strict=given.strict) else 1


def _installed(machines: Sequence[str]) -> list[Path]:
    targets = {board.target for board in BOARDS if not machines or board.name in machines}
    found = [
        build.qemu(target).binary for build in installed() for target in sorted(targets & {*build.targets})
    ]
    if not found:
        raise EnvironmentProblem(
            "no builds are installed: `qmig builds get 7.2 10.0`, or name some with --qemu"
        )
    return found


def _plan(given: argparse.Namespace, builds: Sequence[BuildInfo], shard: tuple[int, int]) -> Plan:
    pairs = [tuple(pair.split(":")) for pair in given.pair]
    if any(len(pair) != 2 for pair in pairs):
        raise QmigError("--pair: two versions with a colon between them")
    labels = {build.label for build in builds}
    if unknown := {label for pair in pairs for label in pair} - labels:
        raise QmigError(
            f"--pair: no build {', '.join(sorted(unknown))}; there are {', '.join(sorted(labels))}"
        )
    chosen = bool(given.device or given.all_devices)
    return Plan(
        builds=builds,
        boards=[board for board in BOARDS if not given.machine or board.name in given.machine],
        devices=given.device if chosen else COMMON,
        by_type=chosen,
        states=tuple(State(state) for state in given.state) or tuple(State),
        pairs=[(pair[0], pair[1]) for pair in pairs],
        shard=shard,
        jobs=given.jobs,
        watchdog=WATCHDOG,
    )


def _play(plan: Plan, played: Played) -> None:
    progress = Progress()

    def done(name: str, count: int) -> None:
        progress.total(count)
        progress.played(name)

    try:
        interrupt.run(play, plan, played, done)
    finally:
        progress.close()


def _fill(
    report: Report, played: Played, builds: Sequence[BuildInfo], known: expectations.Expectations
) -> None:
    targets = targets_of(builds)
    met = dict.fromkeys((cell.source, cell.destination) for cell in [*played.cells, *played.together])
    report.targets = [target for pair, target in targets.items() if pair in met]
    report.cases = {CASE.id: CASE}
    for cell in [*played.cells, *played.together]:
        target = targets[cell.source, cell.destination]
        report.rows.append(known.judge(row_of(cell, target), target))
    report.rows.sort(key=lambda row: (row.target, row.id))
    report.expectations = known.report()
