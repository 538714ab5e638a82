"""A postcopy that lost its connection, and what comes over the new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmig.legacy.commands import CommandHeader, Ping, PostcopyResume, RecvBitmap
from qmig.legacy.ram import RamBlockEntry, RamFlag, RamPages, raw_name
from qmig.legacy.sections import SectionEnd, SectionPart
from qmig_conformance.hostile import postcopy
from qmig_conformance.hostile.channels import hello
from qmig_conformance.hostile.plays import Line, in_phases, pong, recovered
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

TABLE: Final = Table("recovery", postcopy.SETTINGS)
MAIN: Final = "main-2"


class Broken:
    """A good postcopy, cut between two PARTs: what came before, and what is left to be sent."""

    def __init__(self, main: bytes) -> None:
        self.script = Script.main(main)
        self.cut = self._cut()
        self.rest = self._named().data(self.cut)
        names = [
            piece.record.idstr for piece in self.script.pieces if isinstance(piece.record, RamBlockEntry)
        ]
        self.bitmaps = b"".join(map(bitmap, dict.fromkeys(names)))

    def _cut(self) -> int:
        first = postcopy.part_behind(self.script)
        for kind in (SectionPart, SectionEnd):
            found = [place for place in self.script.places(kind, first) if place > first]
            if found:
                return found[0]
        return first

    def _named(self) -> Script:
        """The first page of the new connection names its block, as a source has it."""
        place = next(self.script.places(RamPages, self.cut), None)
        if place is None:
            return self.script
        block = self.script.record(place).block
        script = self.script.single(place)
        first = script.record(place)
        return script.change(place, word=first.word & ~int(RamFlag.CONTINUE), block=block)


def bitmap(block: str) -> bytes:
    """RECV_BITMAP."""
    return RecvBitmap(length=1 + len(raw_name(block)), block=block).encode()


RESUME: Final = PostcopyResume().encode()
Change = Callable[[Broken], bytes]


def play(good: Good, *lines: Line) -> Play:
    """The connection is lost, and these are made in its place."""
    broken = Broken(good.channels["main"])
    phases = postcopy.phases(broken.script, broken.cut)
    before = in_phases(phases, end=False, until=pong(postcopy.LOADING))
    return Play(settings=good.settings, steps=recovered(before, lines))


def row(value: str, *violates: str, end: bool = False) -> Callable[[Change], Change]:
    """Declares what the new main carries."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            return play(good, Line(MAIN, change(Broken(good.channels["main"])), end))

        TABLE.add(value, make, *violates)
        return change

    return declare


@row("recovery-control")
def control(broken: Broken) -> bytes:
    return broken.bitmaps + RESUME + broken.rest


@row("recovery-resume-alone", "LEG-PCP-040")
def resume_alone(broken: Broken) -> bytes:
    return RESUME + broken.rest


@row("recovery-resume-twice", "LEG-PCP-041", "LEG-CMD-018")
def resume_twice(broken: Broken) -> bytes:
    return broken.bitmaps + RESUME + RESUME + broken.rest


@row("recovery-bitmaps-asked-for-twice", "LEG-PCP-040", "LEG-CMD-019")
def bitmaps_twice(broken: Broken) -> bytes:
    return broken.bitmaps + broken.bitmaps + RESUME + broken.rest


@row("recovery-recv-bitmap-of-an-unknown-block", "LEG-PCP-040", "LEG-CMD-019")
def unknown_block(broken: Broken) -> bytes:
    return bitmap("zzz") + RESUME + broken.rest


@row("recovery-a-file-header", "LEG-HDR-004")
def file_header(broken: Broken) -> bytes:
    return broken.script.data()


@row("recovery-garbage", "LEG-PCP-040", "LEG-SEC-002")
def garbage(broken: Broken) -> bytes:
    return b"\x55" * 64


@row("recovery-connection-closed-at-once", "LEG-PCP-043", end=True)
def closed(broken: Broken) -> bytes:
    return b""


@row("recovery-silent", "LEG-PCP-040")
def silent(broken: Broken) -> bytes:
    return b""


@row("recovery-part-before-resume", "LEG-PCP-042")
def part_first(broken: Broken) -> bytes:
    return broken.bitmaps + broken.rest


@row("recovery-closed-behind-the-bitmaps", "LEG-PCP-041", end=True)
def closed_behind_bitmaps(broken: Broken) -> bytes:
    return broken.bitmaps


@row("recovery-ping-before-resume", "LEG-PCP-041")
def ping(broken: Broken) -> bytes:
    return broken.bitmaps + Ping(value=7).encode() + RESUME + broken.rest


@row("recovery-unknown-command", "LEG-CMD-002")
def unknown_command(broken: Broken) -> bytes:
    return CommandHeader(command=99, length=0).encode() + broken.bitmaps + RESUME + broken.rest


@row("recovery-a-multifd-hello", "LEG-PCP-043", "LEG-CHN-001")
def multifd_hello(broken: Broken) -> bytes:
    return hello(0)
