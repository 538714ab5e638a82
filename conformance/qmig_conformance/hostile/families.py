"""The good migrations that the sweep makes wrong, each with the channel it changes and how it is played.

A family takes the script of its channel out of a `Good`, and makes a play of a changed one: whole, or cut at
a place, with the connection closed or left open behind the cut.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from qmig.legacy.commands import Ping
from qmig.testing.scenario import Scenario
from qmig.testing.scenarios import scenario
from qmig_conformance.hostile import disks, mapped_ram, postcopy, recovery
from qmig_conformance.hostile.channels import SETTINGS as MULTIFD_SETTINGS
from qmig_conformance.hostile.plays import Line, alone, in_phases, pong, together
from qmig_conformance.hostile.script import Script
from qmig_conformance.play import Connect, End, Expect, Good, Play, Send, Settle, Step


class Cut(NamedTuple):
    """Nothing more is sent from here on: `extra` bytes into the piece at `place`."""

    place: int
    extra: int
    end: bool


Play_ = Callable[[Good, Script, Cut | None], Play]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`name` is part of the ids of its cases."""

    name: str
    settings: Scenario
    script: Callable[[Good], Script]
    play: Play_
    since: str = "5.2"
    until: str = ""
    #: behind which a connection that ends is no failed load
    resumable: bool = False


def _main(good: Good) -> Script:
    return Script.main(good.channels["main"])


def _alone(good: Good, script: Script, cut: Cut | None) -> Play:
    if cut is None:
        return alone(good.settings, script.data())
    return alone(good.settings, script.before(cut.place, cut.extra), end=cut.end)


def _postcopy(good: Good, script: Script, cut: Cut | None) -> Play:
    found = postcopy.phases(script, *(cut[:2] if cut else ()))
    steps = in_phases(found, end=cut is None or cut.end, until=pong(postcopy.LOADING))
    return Play(settings=good.settings, steps=steps)


def _recovery_script(good: Good) -> Script:
    return _recovered(good.channels["main"])


@functools.lru_cache(maxsize=2)
def _recovered(main: bytes) -> Script:
    broken = recovery.Broken(main)
    data = broken.bitmaps + recovery.RESUME + broken.rest
    return Script.main(data, state=broken.script.state, headerless=True)


def _recovery(good: Good, script: Script, cut: Cut | None) -> Play:
    data = script.data() if cut is None else script.before(cut.place, cut.extra)
    return recovery.play(good, Line(recovery.MAIN, data, cut is not None and cut.end))


def _channel_0(good: Good) -> Script:
    return Script.multifd(good.channels["multifd-0"], _main(good).state)


def _multifd(good: Good, script: Script, cut: Cut | None) -> Play:
    data = script.data() if cut is None else script.before(cut.place, cut.extra)
    return together(
        good.settings,
        Line("main", good.channels["main"]),
        Line("multifd-0", data, cut is not None and cut.end),
        Line("multifd-1", good.channels["multifd-1"]),
    )


def _multifd_main(good: Good, script: Script, cut: Cut | None) -> Play:
    data = script.data() if cut is None else script.before(cut.place, cut.extra)
    return together(
        good.settings,
        Line("main", data, cut is not None and cut.end),
        Line("multifd-0", good.channels["multifd-0"]),
        Line("multifd-1", good.channels["multifd-1"]),
    )


def _urgent(good: Good) -> Script:
    """The preempt channel, or one that is made up where the destination had asked for nothing."""
    main = _main(good)
    data = good.channels.get("preempt", b"")
    if not data:
        data = main[postcopy.part_behind(main) + 1].data
    return Script.preempt(data, main.state)


def _preempt(good: Good, script: Script, cut: Cut | None) -> Play:
    main = _main(good)
    opened = main.find(Ping) + 1
    before, rest = postcopy.phases(main)
    start = main.before(opened)
    data = script.data() if cut is None else script.before(cut.place, cut.extra)
    steps: list[Step] = [
        Connect("main"),
        Send("main", start),
        Expect("main", pong(main.record(opened - 1).value)),
        Connect("preempt"),
        Send("main", before[len(start) :]),
        Expect("main", pong(postcopy.LOADING)),
        Settle(),
    ]
    if data:
        steps.append(Send("preempt", data))
    if cut is not None and cut.end:
        steps.append(End("preempt"))
    steps += [Settle(), Send("main", rest), Settle(), End("main")]
    if cut is None:  # a channel that ends before main is a broken one
        steps.append(End("preempt"))
    return Play(settings=good.settings, steps=tuple(steps))


MAIN: Final = Family(name="main", settings=scenario("return-path"), script=_main, play=_alone)
POSTCOPY: Final = Family(
    name="postcopy", settings=postcopy.SETTINGS, script=_main, play=_postcopy, resumable=True
)
RECOVERY: Final = Family(
    name="recovery", settings=postcopy.SETTINGS, script=_recovery_script, play=_recovery, resumable=True
)
MULTIFD: Final = Family(name="multifd", settings=MULTIFD_SETTINGS, script=_channel_0, play=_multifd)
MULTIFD_MAIN: Final = Family(name="multifd-main", settings=MULTIFD_SETTINGS, script=_main, play=_multifd_main)
PREEMPT: Final = Family(
    name="preempt",
    settings=scenario("postcopy-preempt"),
    script=_urgent,
    play=_preempt,
    since="7.1",
    resumable=True,
)
MAPPED: Final = Family(
    name="mapped-ram", settings=mapped_ram.SETTINGS, script=_main, play=_alone, since="9.0"
)
BITMAPS: Final = Family(name="dirty-bitmap", settings=disks.BITMAPS.settings, script=_main, play=_alone)
DISKS: Final = Family(name="block", settings=disks.DISKS.settings, script=_main, play=_alone, until="9.0")

FAMILIES: Final = (MAIN, POSTCOPY, RECOVERY, MULTIFD, MULTIFD_MAIN, PREEMPT, MAPPED, BITMAPS, DISKS)
