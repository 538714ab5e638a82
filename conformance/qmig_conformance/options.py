"""What the command line asked for, in a form that reaches all workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmig.builds import Qemu
from qmig_conformance.case import Profile, Role
from qmig_conformance.report.model import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A target with what is needed to play on it. `qemu` is None where recordings are judged."""

    target: Target
    qemu: Qemu | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of `qmig conformance run` and `list`. `shard` is (I, N), I from 1."""

    command: Sequence[str] = ()
    report: Path = field(default_factory=Path)
    targets: Sequence[Judged] = ()
    roles: Sequence[Role] = (Role.SOURCE, Role.DESTINATION)
    profile: Profile = Profile.DEFAULT
    select: str = ""
    strict: bool = False
    keep: bool = False
    shard: tuple[int, int] = (1, 1)
    list_only: bool = False

    def to_text(self) -> str:
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_text(cls, text: str) -> Options:
        given: Mapping[str, Any] = json.loads(text)
        return cls(
            **{
                **given,
                "report": Path(given["report"]),
                "roles": tuple(map(Role, given["roles"])),
                "profile": Profile(given["profile"]),
                "shard": tuple(given["shard"]),
                "targets": tuple(map(_judged, given["targets"])),
            }
        )


def _judged(given: Mapping[str, Any]) -> Judged:
    qemu = given["qemu"]
    return Judged(
        target=Target(**given["target"]),
        qemu=Qemu(**{**qemu, "binary": Path(qemu["binary"])}) if qemu else None,
    )
