"""Runs of the suite as a user starts them: in parts, with several workers, broken off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qmig.builds import Qemu
from qmig.builds.store import find
from qmig_conformance.report.model import read

COMMAND = [sys.executable, "-P", "-m", "qmig_conformance"]


@pytest.fixture(scope="module")
def qemu() -> Qemu:
    found = find("x86_64")
    if found is None:
        pytest.skip("no QEMU: neither in the builds' prefix (qmig builds get) nor on PATH")
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_shards_are_the_whole(tmp_path: Path) -> None:
    given = ("run", "--recordings-only", "--select", "LEG-SEC-02", "--jobs", "1", "--report")
    whole = run(*given, str(tmp_path / "whole"))
    parts = [run(*given, str(tmp_path / str(part)), "--shard", f"{part}/3") for part in (1, 2, 3)]
    assert [part.returncode for part in (whole, *parts)] == [0] * 4
    files = [str(tmp_path / str(part) / "report.json") for part in (1, 2, 3)]
    assert all(read(Path(file)).rows for file in files)
    merged = run("report", "merge", *files, "-o", str(tmp_path / "merged"))
    assert merged.returncode == 0, merged.stderr
    rows = [{row.id for row in read(tmp_path / name / "report.json").rows} for name in ("whole", "merged")]
    # A case that no scenario of a shard shows has a row of its own there.
    assert {row for row in rows[0] if "@" in row} == {row for row in rows[1] if "@" in row}


def test_a_build_is_judged(qemu: Qemu, tmp_path: Path) -> None:
    select = "legacy.destination.header.wrong-magic"
    done = run(
        "run", "--qemu", str(qemu.binary), "--select", select, "--keep", "--report", str(tmp_path / "r")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = read(tmp_path / "r" / "report.json").rows[0]
    assert (row.verdict, row.outcome) == ("pass", "fail-dest-quit-err")
    assert "QEVM" not in row.sent.splitlines()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_broken_off_nothing_is_left(number: signal.Signals, qemu: Qemu, tmp_path: Path) -> None:
    """Once the first artefacts are there, workers are at work."""
    mark = {"QMIG_TEST_MARK": str(tmp_path)}
    given = ["--qemu", str(qemu.binary), "--keep", "--jobs", "2", "--report", str(tmp_path / "r")]
    with subprocess.Popen(
        [*COMMAND, "run", *given],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **mark},
        start_new_session=True,
    ) as suite:  # fmt: skip
        while not list((tmp_path / "r").glob("*/*/meta.json")):
            assert suite.poll() is None
            time.sleep(0.02)
        if number is signal.SIGINT:
            os.killpg(suite.pid, number)  # as a terminal does
        else:
            suite.send_signal(number)
        said, problems = suite.communicate()
    assert suite.returncode == 2, problems
    assert read(tmp_path / "r" / "report.json").interrupted
    assert "ended before all cases were played" in said
    # Who waits for us to end, to clean up, sees that in its own time.
    left: list[str] = []
    for _ in range(600):
        if not (left := marked(str(tmp_path))):
            break
        time.sleep(0.05)
    assert left == []


def marked(text: str) -> list[str]:
    """Processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "environ").read_text(errors="replace"):
                found.append((entry / "cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return found
