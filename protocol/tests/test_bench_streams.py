"""The benchmark's streams are real streams, and its harness runs."""

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qmig.builds import Qemu
from qmig.builds.store import version_key
from qmig.cli import main
from qmig.peers.qemu import start_qemu

BENCH = Path(__file__).parents[2] / "bench"
TEMPLATE = BENCH.parent / "spec/vectors/legacy/10.0-precopy-plain-pc-main.xz"
MIB = 1 << 20
PAGE = 4096


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("streams")


def expected_memory(streams: ModuleType, pattern: str, mib: int) -> bytes:
    rng = random.Random(1)
    pages = [rng.randbytes(PAGE) for _ in range(streams.DISTINCT_PAGES)]
    has_data = streams.PATTERNS[pattern]
    return b"".join(
        pages[index % len(pages)] if has_data(index) else bytes(PAGE) for index in range(mib * MIB // PAGE)
    )


@pytest.mark.parametrize("pattern", ["mixed", "long"])
def test_streams_are_sound_and_the_same_every_time(
    streams: ModuleType, pattern: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    template = streams.load_template(TEMPLATE)
    digests = []
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as out:
            digests.append(streams.write(template, 32, pattern, out))
    assert digests[0] == digests[1]
    assert main(["verify", str(tmp_path / "a")]) == 0
    assert main(["decode", str(tmp_path / "a"), "--extract-ram", str(tmp_path / "ram")]) == 0
    capfd.readouterr()
    assert (tmp_path / "ram/pc.ram").read_bytes() == expected_memory(streams, pattern, 32)


def test_what_cannot_be_a_template(streams: ModuleType) -> None:
    with pytest.raises(streams.TemplateError, match="not a QEMU stream"):
        streams.read_template(b"QEVM\0\0\0\x02\x07" + bytes(100))
    with pytest.raises(streams.TemplateError, match="ends inside a record"):
        streams.read_template(b"QEVM\0\0\0\x03\x07\0\0\1\0pc")


@pytest.fixture
def recent(qemu: Qemu) -> Qemu:
    if version_key(qemu.version) < (10,):
        pytest.skip("the template was recorded with machine type pc-i440fx-10.0")
    return qemu


async def test_a_real_qemu_loads_them(streams: ModuleType, recent: Qemu, tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    with stream.open("wb") as out:
        streams.write(streams.load_template(TEMPLATE), 16, "mixed", out)
    arguments = [
        "-M", "pc-i440fx-10.0", "-accel", "tcg", "-m", "16M", "-nodefaults", "-incoming", "defer", "-S",
        "-blockdev", "driver=null-co,read-zeroes=on,size=1048576,node-name=disk",
        "-device", "ide-hd,drive=disk,bootindex=0", "-device", "isa-serial",
    ]  # fmt: skip
    async with start_qemu(recent.binary, arguments, folder=tmp_path) as vm:
        await vm.incoming(f"exec:cat {stream}")
        outcome = await vm.wait_migration()
        assert outcome.status == "completed", outcome.error
        covered = await vm.save_ram_block("pc.ram", tmp_path / "block")
        assert sum(length for _, length in covered) == 16 * MIB
    assert (tmp_path / "block").read_bytes() == expected_memory(streams, "mixed", 16)


def test_harness(tmp_path: Path) -> None:
    """Every scenario runs and counts what was generated; figures of so small a guest mean nothing."""
    done = subprocess.run(
        [sys.executable, BENCH / "run.py", "--mib", "4", "--runs", "1", "--dir", tmp_path / "streams"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 16
    assert sum("not measured: no path given" in row for row in rows) == 2
    assert sorted(path.name for path in (tmp_path / "streams").iterdir()) == ["long-4.bin", "mixed-4.bin"]


def test_harness_without_the_script_it_was_told_of(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "run.py"), "--analyze", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such file" in done.stderr


def test_walk_of_a_recording(tmp_path: Path) -> None:
    """The walk's counts are those of an independent reader of the template."""
    done = subprocess.run(
        [sys.executable, BENCH / "walk.py", "devices", TEMPLATE], capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    assert document["sections"] == 31
    assert document["fields"] > 1000
