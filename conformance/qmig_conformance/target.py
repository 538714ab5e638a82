"""What is judged: a QEMU build, or the recordings that come with qmig."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qmig.builds import Qemu, find_or_install
from qmig.errors import EnvironmentProblem

#: our exit code for "environment problem"; `qmig conformance` passes it on
ENVIRONMENT = 3


@dataclass(frozen=True, slots=True)
class Target:
    """`qemu` is None when recordings are judged; `reason` then says why."""

    qemu: Qemu | None
    reason: str = ""

    def describe(self) -> Mapping[str, Any]:
        if self.qemu is None:
            return {"name": f"recordings in the repository ({self.reason})", "kind": "recordings"}
        return {
            "name": str(self.qemu),
            "kind": "qemu",
            "version": self.qemu.version,
            "package": self.qemu.package,
            "binary": str(self.qemu.binary),
        }


def choose_target(binary: str | None, *, recordings_only: bool) -> Target:
    """The build named, or found, or installed; else the recordings, and it says so."""
    if recordings_only:
        return Target(None, "asked for")
    try:
        qemu = find_or_install(explicit=Path(binary) if binary else None, report=_say)
    except EnvironmentProblem as problem:
        if binary:
            pytest.exit(f"qmig conformance: {problem}", returncode=ENVIRONMENT)
        say(f"no QEMU can be had here: {problem}")
        say("judging the recordings that come with qmig instead")
        return Target(None, f"no QEMU: {problem}")
    say(f"judging {qemu}")
    return Target(qemu)


def _say(text: str, done: float | None) -> None:
    if done is None:
        say(text)


def say(text: str) -> None:
    """A line about the run, to stderr."""
    sys.stderr.write(f"qmig conformance: {text}\n")
