"""Runs the conformance suite again and again beside programs that want the processor, and compares verdicts.

    flakes.py [--times 20] [--burners 4] [--qemu BIN]... [--record]

Every row of every run has to have the verdict and the outcome that it has in the first one. `--record` writes
`conformance/FLAKES.md`. Exit status: 0 all the same, 1 not, 3 the suite could not be run.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

RESULTS = Path(__file__).resolve().parent.parent / "conformance" / "FLAKES.md"
BURN = "while True: sum(range(10000))"

#: (target, case, variant)
Key: TypeAlias = tuple[str, str, str]


class Run(NamedTuple):
    """One run of the suite: (verdict, outcome) by row."""

    rows: Mapping[Key, tuple[str, str]]
    targets: tuple[str, ...]
    seconds: float

    @property
    def counts(self) -> str:
        found = collections.Counter(verdict for verdict, _ in self.rows.values())
        return ", ".join(f"{count} {verdict}" for verdict, count in found.most_common())


@contextlib.contextmanager
def burning(burners: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    started = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(burners)]
    try:
        yield
    finally:
        for burner in started:
            burner.kill()
            burner.wait()


def once(qemus: list[str], folder: Path) -> Run:
    """Runs the suite in its default profile."""
    given = [word for qemu in qemus for word in ("--qemu", qemu)]
    command = [sys.executable, "-P", "-m", "qmig_conformance", "run", *given, "--report", str(folder)]
    started = time.monotonic()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - started
    report = folder / "report.json"
    if not report.exists():
        raise SystemExit(f"the suite ended with {done.returncode} and no report: {done.stderr.strip()}")
    document: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    rows = {
        (row["target"], row["case"], row["variant"]): (row["verdict"], row["outcome"])
        for row in document["rows"]
    }
    return Run(rows, tuple(target["name"] for target in document["targets"]), seconds)


def differences(runs: list[Run]) -> list[tuple[Key, list[str]]]:
    """Rows that are not the same in all runs, with what each run said."""
    keys = sorted({key for run in runs for key in run.rows})
    said = {key: [" ".join(run.rows.get(key, ("missing", ""))).strip() for run in runs] for key in keys}
    return [(key, texts) for key, texts in said.items() if len(set(texts)) > 1]


def page(runs: list[Run], found: list[tuple[Key, list[str]]], burners: int) -> str:
    """The results as Markdown."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    seconds = sorted(run.seconds for run in runs)
    how = (
        f"`make flakes` on {now}: {len(runs)} runs of the default profile on {', '.join(runs[0].targets)}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, beside {burners} processes that "
        "compute without end."
    )
    lines = [
        "# The suite under load",
        "",
        how,
        "",
        f"* rows of a run: {len(runs[0].rows)} ({runs[0].counts})",
        f"* rows whose verdict or outcome differed in any run: {len(found)}",
        f"* seconds of a run under this load: {seconds[0]:.0f} to {seconds[-1]:.0f}",
    ]
    for (target, case, variant), texts in found:
        counts = ", ".join(f"{count} × {text}" for text, count in collections.Counter(texts).most_common())
        lines.append(f"  * {case}{'@' if variant else ''}{variant} on {target}: {counts}")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--burners", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--qemu", action="append", default=[], metavar="BIN")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    runs: list[Run] = []
    with burning(given.burners):
        for number in range(given.times):
            with tempfile.TemporaryDirectory(prefix="qmig-flakes-") as folder:
                runs.append(once(given.qemu, Path(folder)))
            print(f"{number + 1}: {runs[-1].seconds:.0f} s, {runs[-1].counts}", flush=True)
    found = differences(runs)
    text = page(runs, found, given.burners)
    print(text)
    if given.record:
        RESULTS.write_text(text, encoding="utf-8")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
