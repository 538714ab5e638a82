"""What is sent of changed channels: the steps of a play.

Connections of one play are made in the order given. All of them begin before the rest of any is sent,
because a destination of several channels reads none before all are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from qmig.legacy.returnpath import RpPong
from qmig.testing.scenario import Scenario
from qmig_conformance.play import Close, Connect, End, Expect, Play, Qmp, Send, Settle, Step

#: bytes by which a connection is told from others; the rest follows when all are made
HEAD: Final = 64


@dataclass(frozen=True, slots=True)
class Line:
    """One connection: its name, all its bytes, and whether it ends behind them."""

    name: str
    data: bytes = field(repr=False)
    end: bool = False


def together(settings: Scenario, *lines: Line) -> Play:
    """Several connections in this order."""
    steps: list[Step] = []
    for line in lines:
        steps.append(Connect(line.name))
        if line.data:
            steps.append(Send(line.name, line.data[:HEAD]))
        if line.end and len(line.data) <= HEAD:
            steps.append(End(line.name))
    for line in lines:
        if len(line.data) > HEAD:
            steps.append(Send(line.name, line.data[HEAD:]))
    steps += [End(line.name) for line in lines if line.end and len(line.data) > HEAD]
    return Play(settings=settings, steps=tuple(steps))


def alone(settings: Scenario, data: bytes, *, end: bool = True) -> Play:
    """One connection."""
    steps: list[Step] = [Connect("main"), Send("main", data)] if data else [Connect("main")]
    if end:
        steps.append(End("main"))
    return Play(settings=settings, steps=tuple(steps))


def in_phases(phases: Sequence[bytes], *, end: bool, until: bytes = b"") -> tuple[Step, ...]:
    """Main of a postcopy: what comes behind the package is sent when the guest runs, which shows in `until`
    having come back and the destination at rest."""
    steps: list[Step] = [Connect("main"), Send("main", phases[0])]
    if until:
        steps.append(Expect("main", until))
    steps.append(Settle())
    steps += [Send("main", phase) for phase in phases[1:] if phase]
    if end:
        steps.append(End("main"))
    return tuple(steps)


def pong(value: int) -> bytes:
    """What answers a PING."""
    return RpPong(value=value).encode()


def recovered(before: Iterable[Step], lines: Sequence[Line]) -> tuple[Step, ...]:
    """Loses main behind `before`, recovers, and makes these connections then."""
    steps = [*before, Settle(), Close("main"), Settle()]
    steps.append(Qmp("migrate-recover", {"uri": "{address}"}))
    for line in lines:
        steps.append(Connect(line.name))
        if line.data:
            steps.append(Send(line.name, line.data))
        if line.end:
            steps.append(End(line.name))
    return tuple(steps)


def with_capabilities(settings: Scenario, **capabilities: bool) -> Scenario:
    """The same machine with other migration capabilities; `_` stands for `-` in their names."""
    given = {name.replace("_", "-"): value for name, value in capabilities.items()}
    wanted: Mapping[str, Any] = {**settings.capabilities, **given}
    return replace(settings, capabilities=wanted)
