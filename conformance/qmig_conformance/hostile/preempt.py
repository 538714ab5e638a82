"""The preempt channel: what it carries, and whether it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from qmig.legacy.ram import RamFlag, RamPage, RamXbzrlePage
from qmig_conformance.case import Profile
from qmig_conformance.hostile import families as fam
from qmig_conformance.hostile import ram
from qmig_conformance.hostile.channels import hello
from qmig_conformance.hostile.families import Cut
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Connect, End, Good, Play, Send

FAMILY: Final = fam.PREEMPT
TABLE: Final = Table("preempt", FAMILY.settings)
CHANNEL: Final = "preempt"

Change = Callable[[Script], tuple[Script, Cut | None]]


def row(value: str, *violates: str) -> Callable[[Change], Change]:
    """Declares a change of the preempt channel."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            return FAMILY.play(good, *change(FAMILY.script(good)))

        TABLE.add(value, make, *violates)
        return change

    return declare


def _only(good: Good, keep: Callable[[object], bool]) -> Play:
    """The good play with some of its steps only."""
    play = FAMILY.play(good, FAMILY.script(good), None)
    return replace(play, steps=tuple(step for step in play.steps if keep(step)))


def _of_preempt(step: object) -> bool:
    return isinstance(step, Connect | Send | End) and step.name == CHANNEL


def _first(script: Script, *new: bytes | RamPage | RamXbzrlePage) -> tuple[Script, None]:
    return script.put(0, *new), None


@row("preempt-control")
def control(script: Script) -> tuple[Script, None]:
    return script, None


@row("preempt-unknown-flag", "LEG-PRE-003")
def unknown_flag(script: Script) -> tuple[Script, None]:
    return _first(script, ram.word(0x800))


@row("preempt-xbzrle-page", "LEG-PRE-003", "LEG-RAM-060")
def xbzrle(script: Script) -> tuple[Script, None]:
    return _first(script, ram.difference(b"\x02\x01\xff"))


@row("preempt-a-multifd-hello", "LEG-PRE-001", "LEG-CHN-001")
def multifd(script: Script) -> tuple[Script, None]:
    return _first(script, hello(0))


@row("preempt-continue-first", "LEG-PRE-002")
def continue_first(script: Script) -> tuple[Script, None]:
    flags = RamFlag.PAGE | RamFlag.CONTINUE
    return _first(script, RamPage(word=int(flags), data=bytes(ram.PAGE)))


@row("preempt-unknown-block", "LEG-PRE-002", "LEG-RAM-040")
def unknown_block(script: Script) -> tuple[Script, None]:
    return _first(script, RamPage(word=int(RamFlag.PAGE), block="zzz", data=bytes(ram.PAGE)))


@row("preempt-offset-beyond-the-block", "LEG-RAM-042")
def beyond(script: Script) -> tuple[Script, None]:
    page = RamPage(word=1 << 40 | RamFlag.PAGE, block=ram.BLOCK, data=bytes(ram.PAGE))
    return _first(script, page)


@row("preempt-a-page-twice", "LEG-PCP-031")
def twice(script: Script) -> tuple[Script, None]:
    script = script.single(0)
    return script.put(1, script[0].data), None


@row("preempt-cut-inside-a-page", "LEG-PRE-005")
def cut(script: Script) -> tuple[Script, Cut]:
    return script, Cut(0, ram.PAGE // 2, end=True)


@row("preempt-closed-at-once", "LEG-PRE-005")
def closed(script: Script) -> tuple[Script, Cut]:
    return script, Cut(0, 0, end=True)


# Up to 20 s: the destination looks again and again whether the connection is there.
TABLE.add(
    "preempt-no-such-connection",
    lambda good: _only(good, lambda step: not _of_preempt(step)),
    "LEG-PRE-006",
    "LEG-PRE-007",
    profile=Profile.FULL,
)
