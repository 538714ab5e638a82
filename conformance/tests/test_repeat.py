"""`qmig conformance repeat`: from a folder alone, on the build that it names or on another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qmig.builds import BuildError, Qemu, installed
from qmig.builds.store import find_on_path
from qmig.errors import QmigError
from qmig.testing.scenario import Scenario
from qmig.testing.scenarios import scenario
from qmig_conformance import artefacts
from qmig_conformance.play import Connect, End, Outcome, Play, Seen, Send
from qmig_conformance.repeat import repeat

NO_MAGIC = (Connect("main"), Send("main", b"\x1b[2J" * 8), End("main"))


def folder_of(tmp_path: Path, settings: Scenario, outcome: Outcome, argv: list[str]) -> Path:
    seen = Seen(outcome=outcome)
    artefacts.save(tmp_path / "play", Play(settings=settings, steps=NO_MAGIC), seen, argv=argv, qmp=[])
    return tmp_path / "play"


@pytest.fixture(scope="module")
def qemu() -> Qemu:
    try:
        found = [build.qemu("x86_64") for build in installed() if "x86_64" in build.targets]
        build = next(iter(found), None) or find_on_path("x86_64")
    except BuildError as problem:
        pytest.skip(f"no working qemu-system-x86_64: {problem}")
    if build is None:
        pytest.skip("no qemu-system-x86_64: neither in the builds' prefix (qmig builds get 10.0) nor on PATH")
    return build


@pytest.mark.parametrize(("before", "same"), [(Outcome.FAIL_DEST_QUIT_ERR, True), (Outcome.SUCCEED, False)])
def test_a_play_comes_again(
    qemu: Qemu, tmp_path: Path, capsys: pytest.CaptureFixture[str], before: Outcome, same: bool
) -> None:
    settings = scenario("return-path")
    folder = folder_of(tmp_path, settings, before, [str(qemu.binary)])
    assert repeat(folder, keep=tmp_path / "kept") is same
    said = capsys.readouterr().out
    assert "steps: connect main; send main" in said
    assert "fail-dest-quit-err (" + ("as before" if same else "before: succeed") in said
    assert "\x1b" not in said
    play, outcome = artefacts.load(tmp_path / "kept")
    assert (play.steps, outcome) == (NO_MAGIC, "fail-dest-quit-err")


def test_a_folder_without_a_play_says_so(tmp_path: Path) -> None:
    with pytest.raises(QmigError, match="not the artefacts of a play"):
        repeat(tmp_path)
    folder = folder_of(tmp_path, Scenario(name="x", what="x"), Outcome.WAITS, [])
    with pytest.raises(QmigError, match="no build is named"):
        repeat(folder)


def test_the_command_says_so_too(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "qmig", "conformance", "repeat", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not the artefacts of a play" in done.stderr
