"""What is judged: QEMU builds, or qmig's own peers and the recordings that come with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from qmig.builds import Qemu, find_or_install
from qmig.errors import EnvironmentProblem
from qmig_conformance.options import Judged
from qmig_conformance.report.model import Target


def choose(binaries: Sequence[str], *, recordings_only: bool) -> list[Judged]:
    """The builds named, or one that is found or installed; else our own peers, and it says so. Raises
    EnvironmentProblem for a build that was named and is none."""
    if recordings_only:
        return [recordings("asked for")]
    if binaries:
        found = [_build(find_or_install(explicit=Path(binary), report=_progress)) for binary in binaries]
        return _named_apart(found)
    try:
        return [_build(find_or_install(report=_progress))]
    except EnvironmentProblem as problem:
        say(f"no QEMU can be had here: {problem}")
        say("judging qmig's own peers instead, and the recordings that come with it")
        return [reference()]


def reference() -> Judged:
    """Our own peers; as source, the recordings in the repository."""
    return Judged(target=Target(name="qmig's own peers", kind="reference"))


def recordings(reason: str) -> Judged:
    """Those in the repository; `reason` says why nothing else is judged."""
    return Judged(target=Target(name=f"recordings in the repository ({reason})", kind="recordings"))


def _build(qemu: Qemu) -> Judged:
    say(f"judging {qemu}")
    target = Target(
        name=f"QEMU {qemu.version} ({qemu.target})",
        kind="qemu",
        version=qemu.version,
        package=qemu.package,
        binary=str(qemu.binary),
    )
    return Judged(target=target, qemu=qemu)


def _named_apart(found: list[Judged]) -> list[Judged]:
    """Builds of the same version are told apart by their paths."""
    names = [judged.target.name for judged in found]
    return [
        Judged(
            target=Target(
                name=f"{one.target.name} at {one.target.binary}",
                kind=one.target.kind,
                version=one.target.version,
                package=one.target.package,
                binary=one.target.binary,
            ),
            qemu=one.qemu,
        )
        if names.count(one.target.name) > 1
        else one
        for one in found
    ]


def _progress(text: str, done: float | None) -> None:
    if done is None:
        say(text)


def say(text: str) -> None:
    """A line about the run, to stderr."""
    sys.stderr.write(f"qmig conformance: {text}\n")
