#!/usr/bin/env python3
"""Migrations in a row with a real QEMU, our peer on either side: nothing may be left behind (`make soak`).

    soak.py [--times 500] [--build 10.0] [--record]

Half of them migrate a QEMU into our destination, half our source into a QEMU, over the scenarios in turn.
Descriptors, child processes, threads and resident memory of this process are looked at after every 50; the
first 50 are for warming up. Exit status 1 if anything has grown, 3 where there is no QEMU.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import trio

from qmig.builds import Qemu, find
from qmig.peers.play import receive_from, start_side
from qmig.peers.play_source import record, send_to
from qmig.testing.leaks import Held
from qmig.testing.scenarios import scenario

RESULTS = Path(__file__).resolve().parent.parent / "protocol" / "SOAK.md"
#: what is played in turn: one connection, many, and files
NAMES = ("return-path", "multifd-none-4", "xbzrle", "precopy-file")
STEP = 50
#: resident memory that may come and go between two looks: allocators do not give back at once
SLACK = 16 << 20


class Look(NamedTuple):
    """What this process has; `memory` is resident, in bytes."""

    held: Held
    memory: int

    @classmethod
    def now(cls) -> Look:
        held = Held.now()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(held, pages * os.sysconf("SC_PAGE_SIZE"))

    def grown(self, before: Look) -> list[str]:
        """What has changed or grown since, in words."""
        more = [] if self.held == before.held else [f"{before.held} before, {self.held} now"]
        if self.memory > before.memory + SLACK:
            more.append(f"memory: {before.memory >> 20} MiB before, {self.memory >> 20} MiB now")
        return more


async def once(qemu: Qemu, number: int) -> None:
    """One migration; raises where it does not complete."""
    played = scenario(NAMES[number // 2 % len(NAMES)])
    if number % 2:
        async with start_side(qemu, played) as side, receive_from(side) as received:
            assert received.source.status == "completed", received.source
        return
    with tempfile.TemporaryDirectory(prefix="qmig-soak-") as folder:
        image = await record(qemu, played, Path(folder))
        async with start_side(qemu, played, incoming=True) as side:
            sent = await send_to(side, image, Path(folder))
            assert sent.outcome.phase.value == "completed", sent.outcome


async def soak(qemu: Qemu, times: int) -> list[Look]:
    held = []
    for number in range(times):
        await once(qemu, number)
        if (number + 1) % STEP == 0:
            held.append(Look.now())
            print(f"{number + 1}: {held[-1]}", flush=True)
    return held


def page(qemu: Qemu, times: int, seconds: float, held: list[Look]) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "# Migrations in a row",
        "",
        f"Written by `tools/soak.py --times {times} --record` on {now}: {qemu}, {os.cpu_count()} CPUs, Linux",
        f"{platform.release()}; {times} migrations in {seconds:.0f} s, half of them into our destination and",
        f"half out of our source, {', '.join(NAMES)} in turn. What the process has:",
        "",
        "| after | descriptors | child processes | threads | resident MiB |",
        "|---|---|---|---|---|",
    ]
    for at, found in enumerate(held, 1):
        own = found.held
        columns = at * STEP, own.descriptors, len(own.children), own.threads, found.memory >> 20
        lines.append(f"| {' | '.join(map(str, columns))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--build", help="version of the build, such as 10.0; default: what there is")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    args = parser.parse_args()
    qemu = find("x86_64", args.build) if args.build else find("x86_64")
    if qemu is None:
        print("soak.py: no qemu-system-x86_64: neither in the builds' prefix nor on PATH", file=sys.stderr)
        return 3
    begun = time.monotonic()
    held = trio.run(soak, qemu, args.times)
    if args.record:
        RESULTS.write_text(page(qemu, args.times, time.monotonic() - begun, held), encoding="utf-8")
    grown = held[-1].grown(held[0])
    print(f"{qemu}: {args.times} migrations, {'; '.join(grown) or 'nothing has grown'}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
