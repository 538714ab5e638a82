"""python -m qmig_conformance run|list|report|repeat|matrix [options]: see `qmig conformance --help`."""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from qmig.errors import EnvironmentProblem, QmigError
from qmig_conformance import expectations, target
from qmig_conformance.case import Profile, Role
from qmig_conformance.controller import Controller
from qmig_conformance.matrix import command as matrix
from qmig_conformance.options import Options
from qmig_conformance.reference.selfcheck import SelfCheck, told
from qmig_conformance.repeat import repeat
from qmig_conformance.report import write_all
from qmig_conformance.report.model import merged, read
from qmig_conformance.report.terminal import print_summary

BASE = Path(__file__).parent
#: our exit codes that pytest has too (`qmig.cli.conformance` maps them)
USAGE, ENVIRONMENT, INTERRUPTED = 4, 3, 2
EPILOG = """\
run judges builds as source and as destination: it migrates them into this program and into a file, checks
everything they send, compares the rebuilt memory with the guest's; and it gives them good, wrong and
hostile streams and looks at what becomes of them. It prints a summary and writes reports; the one to look
at is report.html. repeat plays one row again: 0 the outcome is the same, 1 it is another. Without --qemu:
the newest of `qmig builds list`, else QEMU in PATH, else one is fetched into the cache; where none can be
had it says so and judges qmig's own peers. Exit status: 0 everything required is met, 1
something is not, 2 wrong usage, 3 environment, 130 cancelled.
"""


def parser() -> argparse.ArgumentParser:
    """The command line. argparse ends the process with 2 for wrong usage."""
    whole = argparse.ArgumentParser(prog="qmig conformance", epilog=EPILOG)
    commands = whole.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="judge builds", epilog=EPILOG)
    run.add_argument("--qemu", metavar="BIN", action="append", default=[], help="a build; may be given again")
    run.add_argument("--role", choices=[Role.SOURCE, Role.DESTINATION], help="default: both")
    run.add_argument("--report", metavar="DIR", type=Path, default=Path("report"), help="default: report")
    run.add_argument("--strict", action="store_true", help="a SHOULD that is not met fails the run")
    run.add_argument("--keep", action="store_true", help="keep the artefacts of what passes, too")
    run.add_argument("--jobs", metavar="N", type=_count, default=os.cpu_count() or 1, help="default: cores")
    run.add_argument(
        "--expectations", metavar="FILE", type=Path, action="append", default=[], help="more of them"
    )
    run.add_argument("--reference", action="store_true", help="judge qmig's own peers")
    run.add_argument(
        "--recordings-only", action="store_true", help="judge the recordings that come with qmig"
    )
    listing = commands.add_parser("list", help="the cases: id, level, statement, role, profile, title")
    for command in (run, listing):
        command.add_argument(
            "--select", metavar="PREFIX", default="", help="cases whose id or statement begins so"
        )
    check = commands.add_parser("self-check", help="the suite itself, on peers with seeded faults")
    check.add_argument("--profile", choices=list(Profile), default=Profile.DEFAULT, help="default: default")
    check.add_argument("--report", metavar="DIR", type=Path, default=Path("report"), help="default: report")
    check.add_argument("--table", metavar="FILE", type=Path, help="write the outcome as Markdown, too")
    matrix.add_to(commands)
    for command in (run, commands.choices["matrix"]):
        command.add_argument(
            "--shard", metavar="I/N", type=_shard, default=(1, 1), help="play this part only"
        )
    run.add_argument("--profile", choices=list(Profile), default=Profile.DEFAULT, help="default: default")
    again = commands.add_parser("repeat", help="one play again, from its artefacts")
    again.add_argument("folder", metavar="FOLDER", type=Path, help="artefacts of a row of a destination")
    again.add_argument("--qemu", metavar="BIN", type=Path, help="default: the build it was played on")
    again.add_argument("--keep", metavar="DIR", type=Path, help="write artefacts of this play")
    reports = commands.add_parser("report", help="work with reports")
    ways = reports.add_subparsers(dest="way", required=True)
    merge = ways.add_parser("merge", help="shards, or runs on several builds, into one report")
    merge.add_argument("files", metavar="JSON", nargs="+", type=Path)
    merge.add_argument("-o", "--report", metavar="DIR", type=Path, required=True)
    render = ways.add_parser("render", help="all formats of a report.json")
    render.add_argument("files", metavar="JSON", nargs=1, type=Path)
    render.add_argument("-o", "--report", metavar="DIR", type=Path, help="default: beside it")
    return whole


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _shard(text: str) -> tuple[int, int]:
    place, _, count = text.partition("/")
    found = (int(place), int(count))
    if not 1 <= found[0] <= found[1]:
        raise argparse.ArgumentTypeError("I/N with 1 <= I <= N")
    return found


def main(arguments: list[str]) -> int:
    """Runs a command; returns an exit code of pytest's."""
    try:
        given = parser().parse_args(arguments)
    except SystemExit as ended:  # argparse's 2 would be taken for pytest's "interrupted"
        return USAGE if ended.code else 0
    command = ["qmig", "conformance", *arguments]
    try:
        if given.command == "report":
            return _report(given, command)
        if given.command == "repeat":
            return 0 if repeat(given.folder, given.qemu, given.keep) else 1
        if given.command == "matrix":
            return matrix.run(given, command, given.shard)
        if given.command == "list":
            return _play(Options(command=command, select=given.select, list_only=True), 1, [])
        if given.command == "self-check":
            return _self_check(given, command)
        own = [target.reference()] if given.reference else []
        targets = own or target.choose(given.qemu, recordings_only=given.recordings_only)
        roles = (Role(given.role),) if given.role else (Role.SOURCE, Role.DESTINATION)
        options = Options(
            command=command,
            report=given.report.absolute(),
            targets=targets,
            roles=roles,
            profile=Profile(given.profile),
            select=given.select,
            strict=given.strict,
            keep=given.keep,
            shard=given.shard,
        )
        options.report.mkdir(parents=True, exist_ok=True)
        return _play(options, given.jobs, given.expectations)
    except KeyboardInterrupt:
        return INTERRUPTED
    except EnvironmentProblem as problem:
        target.say(str(problem))
        return ENVIRONMENT
    except OSError as problem:
        target.say(str(problem))
        return ENVIRONMENT
    except QmigError as problem:
        target.say(str(problem))
        return USAGE


def _report(given: argparse.Namespace, command: Sequence[str]) -> int:
    report = merged([read(path) for path in given.files], command)
    print_summary(report, write_all(report, given.report or given.files[0].parent))
    return 0 if report.good() else 1


def _self_check(given: argparse.Namespace, command: Sequence[str]) -> int:
    """0 an honest peer passes, each case fails on a faulty one, and nearly all faults are caught."""
    options = Options(
        command=command,
        report=given.report.absolute(),
        targets=[target.reference()],
        profile=Profile(given.profile),
    )
    options.report.mkdir(parents=True, exist_ok=True)
    plugin = SelfCheck()
    code = _play(options, 1, [], plugin)
    checked = plugin.check()
    lines = list(told(read(options.report / "report.json"), checked))
    sys.stdout.write("\n".join(lines[4:]) + "\n")
    if given.table:
        given.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return code or (0 if checked.good() else 1)


def _play(options: Options, jobs: int, more: Sequence[Path], *plugins: object) -> int:
    now = datetime.datetime.now(datetime.UTC)
    known = expectations.load([*expectations.shipped(), *more], now.date())
    controller = Controller(options, known, now.isoformat(timespec="seconds"))
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell without job control has what it starts in the background ignore it, and workers inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = ["-s", "--qmig-options", options.to_text(), "-p", "qmig_conformance.plugin"]
    for unwanted in ("terminal", "cacheprovider", "trio", "pytest-trio", "cov", "randomly", "timeout"):
        words += ["-p", f"no:{unwanted}"]
    words += ["-c", str(BASE / "suite.ini"), "--rootdir", str(BASE), "--import-mode=importlib"]
    if options.list_only:
        words.append("--collect-only")
    elif jobs > 1:
        words += ["-n", str(jobs), "--max-worker-restart", "1000"]
    code = int(pytest.main([*words, str(BASE / "cases")], plugins=[controller, *plugins]))
    if not options.list_only:
        print_summary(controller.report, write_all(controller.report, options.report))
    return code


def _interrupt(number: int, frame: object) -> None:
    """A request to end is taken like Ctrl-C, so that no QEMU is left behind; workers are asked as well."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    for child in children.read_text().split() if children.exists() else ():
        os.kill(int(child), signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
