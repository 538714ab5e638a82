"""Timing of child processes: best of several runs, interleaved, on a warm page cache."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Time(NamedTuple):
    """Seconds. On a busy machine only `cpu` (user and system) says something."""

    wall: float
    cpu: float


Action = Callable[[], Time]


class Failed(Exception):
    """A measured program did not do what it should; the text names it and its last words."""


@contextmanager
def installed_python() -> Iterator[None]:
    """Lets Python programs run as an installed package does: from byte code, with buffered output."""
    names = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPYCACHEPREFIX")
    old = {name: os.environ.pop(name, None) for name in names}
    with tempfile.TemporaryDirectory(prefix="qmig-bench-") as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        try:
            yield
        finally:
            del os.environ["PYTHONPYCACHEPREFIX"]
            os.environ.update({name: value for name, value in old.items() if value is not None})


def program(command: Sequence[str | Path]) -> Time:
    """A program from start to end; its output goes to /dev/null."""
    used, before = _children(), time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    taken = Time(time.perf_counter() - before, _children() - used)
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Failed(f"{command[0]} ended with status {done.returncode}: {' '.join(words)}")
    return taken


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def answer(command: Sequence[str | Path]) -> dict[str, Any]:
    """The JSON document that a program prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"{command[0]}: {done.stderr.decode('utf-8', 'replace').strip()[-500:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def private_memory(command: Sequence[str | Path]) -> int:
    """The largest private (anonymous) resident memory of a program, bytes, looked at every millisecond.

    File pages that it maps do not count: they belong to the page cache.
    """
    with subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        status = Path(f"/proc/{child.pid}/status")
        most = 0
        while child.poll() is None:
            try:
                text = status.read_text()
            except ProcessLookupError:  # it has just ended
                continue
            for line in text.splitlines():
                if line.startswith("RssAnon:"):
                    most = max(most, int(line.split()[1]) << 10)
            time.sleep(0.001)
    if child.returncode:
        raise Failed(f"{command[0]} ended with status {child.returncode}")
    if not most:
        raise Failed("this kernel does not tell RssAnon in /proc/PID/status")
    return most


def best(actions: dict[str, Action], runs: int) -> dict[str, Time]:
    """The smallest figures of each action. They take turns, so that a busy moment meets all of them."""
    found: dict[str, Time] = {}
    for _ in range(runs):
        for name, action in actions.items():
            now = action()
            old = found.get(name, now)
            found[name] = Time(min(now.wall, old.wall), min(now.cpu, old.cpu))
    return found


def warm(path: Path) -> None:
    """Have a file in the page cache as the kernel's read-ahead puts it there.

    A writer with pieces of odd sizes leaves it there in small folios, which makes mapping the file ten times
    as expensive as for a file that was read (0.09 s against 0.007 s for touching each page of 900 MB).
    """
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        piece = bytearray(1 << 20)
        for _ in range(2):
            file.seek(0)
            while file.readinto(piece):
                pass


def machine() -> str:
    """Processor, cores, kernel, interpreter and how busy it is, for the record."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    system = os.uname()
    python = platform.python_version()
    load = f"load {os.getloadavg()[0]:.1f} before"
    return f"{model}, {os.cpu_count()} cores, Linux {system.release}, Python {python}, {load}"
