#!/usr/bin/env python3
"""Measures our destination with a real QEMU as the source, beside `socat` to a file, in one run.

    live.py [--qemu BINARY] [--mib 512] [--runs 5] [--record]

Every migration is of the same stopped guest, over a unix socket, without a bandwidth limit. The destination
keeps its books in full: every record is read and checked, RAM is rebuilt into files. Time is the source's
own `total-time`, CPU that of the receiving process from listening to the end. Exit status 3 where QEMU or
socat is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent))

import measure
from run import Row, record, table

from qmig.builds import find
from qmig.peers.destination import serve_destination
from qmig.peers.qemu import QemuProcess, start_qemu
from qmig.testing.guest import firmware

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One migration: the source's time, the receiver's CPU, both in seconds."""

    wall: float
    cpu: float


# -- the receivers ------------------------------------------------------------------------------------------


def receive(address: str, channels: int, folder: Path) -> int:
    """This script as the receiving process: says that it listens, then what it cost."""

    async def run() -> float:
        async with serve_destination(address, multifd_channels=channels, ram=folder) as destination:
            print("listening", flush=True)
            before = time.process_time()
            await destination.completed()
            return time.process_time() - before

    print(json.dumps({"cpu": trio.run(run)}), flush=True)
    return 0


async def ours(vm: QemuProcess, folder: Path, channels: int = 0) -> Figure:
    command = [sys.executable, __file__, "--receive", f"unix:{folder}/m", "--channels", str(channels)]
    with subprocess.Popen([*command, "--into", folder / "ram"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            await trio.to_thread.run_sync(process.stdout.readline)
            wall = await migrate(vm, f"unix:{folder}/m")
            answer = json.loads(await trio.to_thread.run_sync(process.stdout.readline))
        except BaseException:
            process.kill()
            raise
    shutil.rmtree(folder / "ram")
    return Figure(wall, answer["cpu"])


async def socat(vm: QemuProcess, folder: Path, *options: str) -> Figure:
    path, out = folder / "s", folder / "out"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(["socat", "-u", *options, f"UNIX-LISTEN:{path}", f"OPEN:{out},creat,trunc"])
    while not path.exists():
        await trio.sleep(0.01)
    wall = await migrate(vm, f"unix:{path}")
    await trio.to_thread.run_sync(process.wait)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    out.unlink()
    return Figure(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


async def migrate(vm: QemuProcess, uri: str) -> float:
    await vm.migrate(uri)
    outcome = await vm.wait_migration()
    if outcome.status != "completed":
        raise measure.Failed(f"the source ended {outcome.status}: {outcome.error}")
    while (await vm.execute("query-status"))["status"] != "postmigrate":  # some ms behind "completed"
        await trio.sleep(0.01)
    await vm.execute("cont")  # what has been migrated away can be migrated again only when it has run
    await vm.execute("stop")
    return float(outcome.info["total-time"]) / 1000


# -- the run ------------------------------------------------------------------------------------------------


def _best(figures: list[Figure]) -> Figure:
    return Figure(min(figure.wall for figure in figures), min(figure.cpu for figure in figures))


async def measured(binary: Path, mib: int, runs: int, folder: Path) -> list[Row]:
    # All but the first and the last few MiB are data; a page of zeros costs nobody anything.
    program = firmware(fill=(2 * MIB, (mib - 8) * MIB), dirty=(MIB, MIB + 4096))
    arguments = ["-M", "pc", "-accel", "tcg", "-m", f"{mib}M", "-nodefaults", "-net", "none"]
    async with start_qemu(binary, arguments, program=program) as vm:
        await vm.wait_guest(program)
        await vm.execute("stop")
        await vm.set_parameters({"max-bandwidth": 1 << 40})
        figures: dict[str, list[Figure]] = {"socat": [], "socat -b 1M": [], "qmig": []}
        for _ in range(runs):  # taking turns
            figures["socat"].append(await socat(vm, folder))
            figures["socat -b 1M"].append(await socat(vm, folder, "-b", str(MIB)))
            figures["qmig"].append(await ours(vm, folder))
        by = {name: _best(found) for name, found in figures.items()}
        await vm.set_capabilities({"multifd": True})
        counts: dict[int, list[Figure]] = {4: [], 16: []}
        for _ in range(runs):  # taking turns
            for channels, found in counts.items():
                await vm.set_parameters({"multifd-channels": channels})
                found.append(await ours(vm, folder, channels))
        by |= {str(channels): _best(found) for channels, found in counts.items()}
    return [*_rows(by, mib)]


def _rows(by: dict[str, Figure], mib: int) -> Iterator[Row]:
    ours, few, many = by["qmig"], by["4"], by["16"]

    def speed(figure: Figure) -> str:
        return f"{mib / figure.wall:.0f} MiB/s"

    for name in ("socat", "socat -b 1M"):
        peer, held = by[name], name == "socat"
        fast, cost = peer.wall / ours.wall, ours.cpu / peer.cpu
        what, target = "receiving precopy, throughput", ">= 0.8" if held else ""
        yield Row(
            what, speed(ours), f"{name} {speed(peer)}", fast, None, target, fast >= 0.8 if held else None
        )
        what, target = "receiving precopy, CPU", "<= 2" if held else ""
        spent = f"{name} {peer.cpu:.2f} s"
        yield Row(what, f"{ours.cpu:.2f} s", spent, cost, None, target, cost <= 2 if held else None)
    ratio = many.cpu / few.cpu
    what, good = "CPU of 16 multifd channels", ratio <= 1
    yield Row(what, f"{many.cpu:.2f} s", f"4 channels {few.cpu:.2f} s", ratio, None, "<= 1", good)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--qemu", type=Path, help="the build to measure with; default: what qmig builds has, or PATH"
    )
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="append to bench/RESULTS.md")
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    parser.add_argument("--channels", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.receive:
        return receive(args.receive, args.channels, args.into)
    found = find("x86_64") if args.qemu is None else None
    binary = args.qemu or (found and found.binary)
    for name, there in (("a qemu-system-x86_64", binary), ("socat", shutil.which("socat"))):
        if not there:
            print(f"live.py: not measured: {name} is missing", file=sys.stderr)
            return 3
    with tempfile.TemporaryDirectory(prefix="qmig-bench-") as folder:
        rows = trio.run(measured, binary, args.mib, args.runs, Path(folder))
    print(f"{found or binary}\n{table(rows)}")
    if args.record:
        record(f"{found or binary}\n\n{table(rows)}", measure.machine(), args.mib, args.runs)
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
