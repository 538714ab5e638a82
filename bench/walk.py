#!/usr/bin/env python3
"""Library calls that `run.py` times, without the start-up of the interpreter; prints one JSON document.

walk.py pages FILE        LegacyReceiver over the mapped file: pages by block, round and kind
walk.py addresses FILE    the same, and the array of the pages' offsets for every event
walk.py devices FILE      all fields of all device sections, from the first of them to the end of the stream
"""

from __future__ import annotations

import json
import lzma
import mmap
import sys
import time
from pathlib import Path
from typing import Any

from qmig.legacy.ram import RamPages
from qmig.legacy.receiver import CLOSED, NEED_DATA, LegacyReceiver
from qmig.legacy.rounds import RoundTracker


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(before: tuple[float, float]) -> dict[str, float]:
    wall, cpu = _now()
    return {"wall": wall - before[0], "cpu": cpu - before[1]}


def pages(path: str, *, addresses: bool) -> dict[str, Any]:
    """Map the file, walk every record of it, count its pages."""
    counts: dict[tuple[str, int, str], int] = {}
    listed = 0
    before = _now()
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as region:
        region.madvise(mmap.MADV_SEQUENTIAL)
        receiver = LegacyReceiver()
        rounds = RoundTracker(receiver.state)
        with memoryview(region) as view:
            given = iter((view, b""))
            while (event := receiver.next_event()) is not CLOSED:
                if event is NEED_DATA:
                    receiver.receive_data(next(given))
                elif isinstance(event, RamPages):
                    number, last = rounds.pages("main", event.block, event.ascents)
                    for ascent in event.ascents:
                        for kind, some in (("normal", ascent.normal), ("zero", ascent.zero)):
                            key = event.block, number, kind
                            counts[key] = counts.get(key, 0) + some
                        number = min(number + 1, last)
                    if addresses:
                        listed += len(event.addresses())
            taken = _since(before)
            del event, receiver, given  # they hold views of the mapping
    rows = [{"block": b, "round": r, "kind": k, "pages": n} for (b, r, k), n in counts.items() if n]
    return {**taken, "counts": rows, "addresses": listed}


def devices(path: str) -> dict[str, Any]:
    """Decode the device state of a small recording."""
    from qmig.cli.devicetext import decoded
    from qmig.legacy.sections import DeviceState, SectionFull

    raw = Path(path).read_bytes()
    data = lzma.decompress(raw) if path.endswith(".xz") else raw
    receiver = LegacyReceiver()
    receiver.receive_data(data)
    section: SectionFull | None = None
    begun: tuple[float, float] | None = None
    found = fields = 0
    while (event := receiver.next_event()) is not CLOSED:
        if event is NEED_DATA:
            receiver.receive_data(b"")
        elif isinstance(event, SectionFull):
            section = event
            begun = begun or _now()
        elif isinstance(event, DeviceState):
            assert section is not None
            device = decoded(receiver.state, section, event)
            for _, field in device.walk():
                if field.children is None:
                    _ = field.value
                fields += 1
            found += 1
    assert begun is not None
    return {**_since(begun), "sections": found, "fields": fields}


def main() -> int:
    what, path = sys.argv[1:]
    document = devices(path) if what == "devices" else pages(path, addresses=what == "addresses")
    json.dump(document, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
