"""When a process rests, and when it turns in circles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from qmig_conformance import rest
from qmig_conformance.rest import UNANSWERED, Watch

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="what a thread waits for is read from Linux's /proc"
)


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs this code and has said that it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"print('begins', flush=True)\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_waits_for_input_rests() -> None:
    with python("import sys; sys.stdin.read()") as process:
        watch = Watch(process.pid)
        trio.run(watch.until_quiet, UNANSWERED)
        assert watch.quiet >= UNANSWERED
        assert not watch.spins
        assert "threads asleep" in watch.words()


@pytest.mark.parametrize(
    ("name", "code"),
    [("SPIN", "while True: pass"), ("NAPS", "import time\nwhile True: time.sleep(0.0001)")],
)
def test_a_process_that_turns_in_circles_is_told(
    name: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it computes in them or sleeps for a moment."""
    monkeypatch.setattr(rest, "SPIN", 50_000_000 if name == "SPIN" else 1 << 62)
    monkeypatch.setattr(rest, "NAPS", 50 if name == "NAPS" else 1 << 62)
    with python(code) as process:
        threads = rest.look(process.pid)
        assert threads is not None
        if name == "NAPS" and not threads[0].call:
            pytest.skip("this kernel does not show what a thread waits for")
        watch = Watch(process.pid)
        trio.run(watch.until_quiet, UNANSWERED)
        assert watch.spins
        assert "since anything passed" in watch.words()
        watch.touch()
        assert not watch.spins
