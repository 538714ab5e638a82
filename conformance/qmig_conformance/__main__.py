"""python -m qmig_conformance run|list [options]: see `qmig conformance --help`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import pytest

from qmig_conformance.plugin import Options, Suite

BASE = Path(__file__).parent
EPILOG = """\
run migrates a real QEMU into this program and into a file, checks everything it sends, compares the rebuilt
memory with the guest's, prints a summary and writes report.json and junit.xml. Without --qemu: the newest of
`qmig builds list`, else QEMU in PATH, else one is fetched into the cache; where none can be had it says so
and judges the recordings that come with qmig. Exit status: 0 everything required is met, 1 something is not,
2 wrong usage, 3 environment, 130 cancelled.
"""


def options(arguments: list[str]) -> Options:
    """The command line. argparse ends the process with 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="qmig conformance", epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="judge a build", epilog=EPILOG)
    run.add_argument("--qemu", metavar="BIN", help="the build to judge")
    run.add_argument("--report", metavar="DIR", type=Path, default=Path("report"), help="default: report")
    run.add_argument("--strict", action="store_true", help="a SHOULD that is not met fails the run")
    run.add_argument(
        "--recordings-only", action="store_true", help="judge the recordings that come with qmig"
    )
    listing = commands.add_parser("list", help="the cases: id, level, requirement, title")
    for command in (run, listing):
        command.add_argument(
            "--select", metavar="PREFIX", default="", help="cases whose id or requirement begins so"
        )
    given = parser.parse_args(arguments)
    if given.command == "list":
        return Options(
            command=arguments, report=Path(), select=given.select, recordings_only=True, list_only=True
        )
    return Options(
        command=["qmig", "conformance", *arguments],
        report=given.report.absolute(),
        qemu=given.qemu,
        select=given.select,
        strict=given.strict,
        recordings_only=given.recordings_only,
    )


def _interrupt(number: int, frame: object) -> None:
    """A request to end is taken like Ctrl-C, so that no QEMU is left behind."""
    signal.raise_signal(signal.SIGINT)


def main(arguments: list[str]) -> int:
    """Runs pytest on the suite's own cases and returns its exit code."""
    chosen = options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    fixed = [
        *(
            "-s",
            "-p",
            "no:terminal",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:trio",
            "-p",
            "no:xdist",
            "-p",
            "no:cov",
        ),
        *("-c", str(BASE / "suite.ini"), "--rootdir", str(BASE), "--import-mode=importlib"),
    ]
    if chosen.list_only:
        fixed.append("--collect-only")
    return pytest.main([*fixed, str(BASE / "cases")], plugins=[Suite(chosen)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
