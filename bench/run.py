#!/usr/bin/env python3
"""Measures qmig beside other readers, in one run, and says whether the targets of issue 2 are met.

    run.py [--analyze PATH] [--dir DIR] [--mib 1024] [--runs 5] [--only NAME]… [--record] [--strict]

``--analyze`` is QEMU's ``scripts/analyze-migration.py`` (not shipped here; `bench/README.md` says where to
get it). Streams are generated below ``--dir`` and removed at the end unless the folder was given.
``--record`` appends the figures to `bench/RESULTS.md`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import measure
import streams
from measure import Action, Failed, Time

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE.parent / "spec/vectors/legacy/10.0-precopy-plain-pc-main.xz"
RESULTS = HERE / "RESULTS.md"
QMIG: tuple[str | Path, ...] = (sys.executable, "-m", "qmig")
NOT_MEASURED = "not measured: no path given (--analyze)"


@dataclass(frozen=True)
class Row:
    """One line of the result: a figure, what it is compared with, and the target for their ratio."""

    what: str
    ours: str
    peer: str
    ratio: float | None
    #: the same of CPU time
    cpu: float | None
    target: str
    good: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "MISSED", None: "-"}[self.good]


@dataclass(frozen=True)
class Setup:
    """What is measured, and how often."""

    folder: Path
    files: dict[str, Path]
    analyze: Path | None
    runs: int
    mib: int


def at_most(what: str, ours: Time, peer: Time, peer_name: str, limit: float) -> Row:
    ratio, cpu = ours.wall / peer.wall, ours.cpu / peer.cpu if peer.cpu else None
    peer_text = f"{peer_name} {peer.wall:.3f} s"
    return Row(what, f"{ours.wall:.3f} s", peer_text, ratio, cpu, f"<= {limit:g}", ratio <= limit)


# -- scenarios -----------------------------------------------------------------------------------------


def walk(setup: Setup) -> list[Row]:
    """Record walk against dd reading the same file."""
    rows = []
    limits = {"mixed": 1.2, "long": 0.5}
    for name, path in setup.files.items():
        actions: dict[str, Action] = {
            "dd": partial(measure.program, ["dd", f"if={path}", "of=/dev/null", "bs=1M"]),
            "pages": partial(_walk, "pages", name, path, setup.mib),
            "addresses": partial(_walk, "addresses", name, path, setup.mib),
        }
        figures = measure.best(actions, setup.runs)
        for kind, text in (("pages", "record walk"), ("addresses", "record walk, arrays of addresses")):
            rows.append(at_most(f"{text}, {name}", figures[kind], figures["dd"], "dd", limits[name]))
    return rows


def _walk(mode: str, pattern: str, path: Path, mib: int) -> Time:
    """A walk that does not count what was generated is worth nothing."""
    document = measure.answer([sys.executable, HERE / "walk.py", mode, path])
    blocks: dict[str, dict[tuple[int, str], int]] = {}
    for row in document["counts"]:
        blocks.setdefault(row["block"], {})[row["round"], row["kind"]] = row["pages"]
    largest = max(blocks.values(), key=lambda counts: sum(counts.values()))
    pages = (mib << 20) // streams.PAGE
    normal = sum(map(streams.PATTERNS[pattern], range(pages)))
    expected = {(1, "normal"): normal, (1, "zero"): pages - normal}
    if largest != {key: value for key, value in expected.items() if value}:
        raise Failed(f"the walk of {path} counted {largest}, generated were {expected}")
    counted = sum(sum(counts.values()) for counts in blocks.values())
    if mode == "addresses" and document["addresses"] != counted:
        raise Failed(f"the walk of {path} lists {document['addresses']} addresses of {counted} pages")
    return Time(document["wall"], document["cpu"])


def decode(setup: Setup) -> list[Row]:
    """The whole command against the whole of QEMU's script."""
    rows = []
    for name, path in setup.files.items():
        what = f"qmig decode, {name}"
        actions: dict[str, Action] = {"qmig": partial(measure.program, [*QMIG, "decode", path])}
        if setup.analyze is None:
            ours = measure.best(actions, setup.runs)["qmig"].wall
            rows.append(Row(what, f"{ours:.3f} s", NOT_MEASURED, None, None, "<= 0.25", None))
            continue
        command: list[str | Path] = [sys.executable, setup.analyze, "-f", path, "-d", "state"]
        actions["peer"] = partial(measure.program, command)
        figures = measure.best(actions, setup.runs)
        rows.append(at_most(what, figures["qmig"], figures["peer"], "analyze-migration.py", 0.25))
    return rows


def memory(setup: Setup) -> list[Row]:
    """Private memory of decode, for the big files and for one of a sixteenth of their size."""
    small = setup.folder / "small.bin"
    with small.open("wb") as out:
        streams.write(streams.load_template(TEMPLATE), max(setup.mib // 16, 1), "mixed", out)
    rows = []
    for name, path in [*setup.files.items(), ("mixed, 1/16", small)]:
        most = max(measure.private_memory([*QMIG, "decode", path]) for _ in range(setup.runs))
        rows.append(_memory_row(f"private memory of decode, {name}", most))
    for name, path in setup.files.items():
        ram = setup.folder / "ram"
        most = measure.private_memory([*QMIG, "decode", path, "--extract-ram", ram])
        shutil.rmtree(ram)
        rows.append(_memory_row(f"private memory of decode --extract-ram, {name}", most))
    small.unlink()
    return rows


def _memory_row(what: str, most: int) -> Row:
    return Row(what, f"{most / (1 << 20):.1f} MiB", "-", None, None, "<= 40 MiB", most <= 40 << 20)


def extraction(setup: Setup) -> list[Row]:
    """Writing the RAM of a stream to files against copying the stream."""
    rows = []
    ram, copy = setup.folder / "ram", setup.folder / "copy"

    def clear() -> None:
        shutil.rmtree(ram, ignore_errors=True)
        copy.unlink(missing_ok=True)

    def settled(command: Sequence[str | Path]) -> Time:
        clear()
        os.sync()
        return measure.program(command)

    for name, path in setup.files.items():
        actions: dict[str, Action] = {
            "cp": partial(settled, ["cp", "--reflink=never", path, copy]),
            "qmig": partial(settled, [*QMIG, "decode", path, "--extract-ram", ram]),
        }
        figures = measure.best(actions, setup.runs)
        rows.append(at_most(f"qmig decode --extract-ram, {name}", figures["qmig"], figures["cp"], "cp", 2))
    clear()
    return rows


def start_up(setup: Setup) -> list[Row]:
    """From nothing to the end of the help."""
    actions: dict[str, Action] = {
        "help": partial(measure.program, [*QMIG, "--help"]),
        "python": partial(measure.program, [sys.executable, "-c", "pass"]),
    }
    figures = measure.best(actions, max(setup.runs, 10))
    ours, bare = figures["help"].wall, f"python -c pass {figures['python'].wall:.3f} s"
    return [Row("qmig --help", f"{ours:.3f} s", bare, None, None, "< 0.15 s", ours < 0.15)]


def devices(setup: Setup) -> list[Row]:
    """Device state to typed fields, all of them looked at."""
    counts: set[tuple[int, int]] = set()

    def once() -> Time:
        document = measure.answer([sys.executable, HERE / "walk.py", "devices", TEMPLATE])
        counts.add((document["sections"], document["fields"]))
        return Time(document["wall"], document["cpu"])

    taken = measure.best({"devices": once}, max(setup.runs, 10))["devices"].wall
    ((sections, fields),) = counts
    what = f"device state, {sections} sections, {fields} fields"
    return [Row(what, f"{taken * 1000:.1f} ms", "-", None, None, "<= 50 ms", taken <= 0.05)]


SCENARIOS: dict[str, Callable[[Setup], list[Row]]] = {
    "walk": walk,
    "decode": decode,
    "memory": memory,
    "extraction": extraction,
    "start-up": start_up,
    "devices": devices,
}


# -- running -------------------------------------------------------------------------------------------


@contextmanager
def prepared(given: Path | None, mib: int) -> Iterator[tuple[Path, dict[str, Path]]]:
    """The folder and the generated streams in it, in the page cache as a reading leaves them there."""
    folder = Path(tempfile.mkdtemp(prefix="qmig-bench-")) if given is None else given
    folder.mkdir(parents=True, exist_ok=True)
    try:
        template = streams.load_template(TEMPLATE)
        files = {}
        for pattern in streams.PATTERNS:
            files[pattern] = folder / f"{pattern}-{mib}.bin"
            with files[pattern].open("wb") as out:
                streams.write(template, mib, pattern, out)
        for path in files.values():
            measure.warm(path)
        yield folder, files
    finally:
        if given is None:
            shutil.rmtree(folder, ignore_errors=True)


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    head = ("measured", "qmig", "beside it", "ratio", "of CPU time", "target", "")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        ratio, cpu = ("" if figure is None else f"{figure:.2f}" for figure in (row.ratio, row.cpu))
        cells = (row.what, row.ours, row.peer, ratio, cpu, row.target, row.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def record(text: str, machine: str, mib: int, runs: int) -> None:
    """Append one run to `RESULTS.md`."""
    command = shlex.join([f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = f"## {now}\n\n{machine}; {mib} MiB guest, best of {runs}; `{command}`\n\n"
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(f"\n{head}{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--analyze", type=Path, metavar="PATH")
    parser.add_argument("--dir", type=Path, metavar="DIR")
    parser.add_argument("--mib", type=int, default=1024, help="size of the guest's main memory")
    parser.add_argument("--runs", type=int, default=5, help="each figure is the best of so many")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="one scenario (may be repeated)")
    parser.add_argument("--record", action="store_true", help="append to bench/RESULTS.md")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a target is missed")
    args = parser.parse_args()
    if args.analyze is not None and not args.analyze.is_file():
        print(f"run.py: {args.analyze}: no such file", file=sys.stderr)
        return 2
    if args.mib < 1 or args.runs < 1:
        parser.error("--mib and --runs are positive")
    machine = measure.machine()
    print(machine, file=sys.stderr)
    rows: list[Row] = []
    try:
        with measure.installed_python(), prepared(args.dir, args.mib) as (folder, files):
            setup = Setup(folder, files, args.analyze and args.analyze.absolute(), args.runs, args.mib)
            for name in args.only or SCENARIOS:
                print(f"{name} …", file=sys.stderr)
                rows += SCENARIOS[name](setup)
    except (Failed, streams.TemplateError, OSError) as problem:
        print(f"run.py: {problem}", file=sys.stderr)
        return 3
    print(table(rows))
    if args.record:
        record(table(rows), machine, args.mib, args.runs)
    return 1 if args.strict and any(row.good is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
