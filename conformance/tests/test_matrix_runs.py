"""The matrix with a real QEMU: from a build to itself, everything that is common works or is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from qmig.builds import Qemu
from qmig.builds.store import find
from qmig_conformance.case import Verdict
from qmig_conformance.report.model import read

COMMAND = [sys.executable, "-P", "-m", "qmig_conformance", "matrix"]
DEVICES = ("virtio-net-pci", "virtio-blk-pci", "e1000", "usb-kbd on qemu-xhci", "nvme", "sdhci-pci")


@pytest.fixture(scope="module")
def qemu() -> Qemu:
    found = find("x86_64")
    if found is None:
        pytest.skip("no QEMU: neither in the builds' prefix (qmig builds get) nor on PATH")
    return found


def test_a_build_to_itself(qemu: Qemu, tmp_path: Path) -> None:
    """sdhci-pci has registers that no section saves (LEG-VER-001): the guest must see that."""
    given = [word for device in DEVICES for word in ("--device", device)]
    done = subprocess.run(
        [*COMMAND, "--qemu", str(qemu.binary), "--machine", "pc", *given, "--report", str(tmp_path / "r"),
         "--table", str(tmp_path / "M.md")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = read(tmp_path / "r" / "report.json")
    rows = {row.variant: row for row in report.rows}
    assert done.returncode == 0, done.stdout + done.stderr
    assert {target.kind for target in report.targets} == {"pair"}
    assert {f"pc/{name}/idle" for name in ("base machine", *DEVICES)} <= set(rows)
    for name in ("base machine", *DEVICES[:4]):
        for state in ("idle", "initialised"):
            assert rows[f"pc/{name}/{state}"].verdict is Verdict.PASS, rows[f"pc/{name}/{state}"]
    assert "DRIVER_OK, a frame sent" in rows["pc/virtio-net-pci/initialised"].actual
    assert rows["pc/sdhci-pci/initialised"].outcome == "device differs"
    assert rows["pc/sdhci-pci/initialised"].waiver
    assert Counter(row.verdict for row in rows.values())[Verdict.WAIVED] == 1
    assert "| sdhci-pci | ◐ |" in (tmp_path / "M.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_broken_off_nothing_is_left(number: signal.Signals, qemu: Qemu, tmp_path: Path) -> None:
    mark = {"QMIG_TEST_MARK": str(tmp_path)}
    with subprocess.Popen(
        [*COMMAND, "--qemu", str(qemu.binary), "--machine", "pc", "--report", str(tmp_path / "r")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **mark},
        start_new_session=True,
    ) as matrix:  # fmt: skip
        while not [command for command in marked(str(tmp_path)) if "-incoming" in command]:
            assert matrix.poll() is None
            time.sleep(0.02)
        matrix.send_signal(number)
        said, problems = matrix.communicate()
    assert matrix.returncode == 2, problems  # pytest's for interrupted; qmig makes it 130
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
    """Command lines of processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "environ").read_text(errors="replace"):
                found.append((entry / "cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return found
