"""Each connection of a migration missing, extra, early, late, silent, cut short or replaced by another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qmig.testing.scenario import Scenario
from qmig_conformance.hostile import families as fam
from qmig_conformance.hostile.families import Family
from qmig_conformance.hostile.judged import Held
from qmig_conformance.hostile.plays import Line, together
from qmig_conformance.play import Connect, End, Good, Play, Send, Settle

GARBAGE: Final = b"\x55" * 64
#: bytes of a hello, or of a header and a little more
PART: Final = 12


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Connections in their order; those of `late` are made when the destination rests with the others."""

    lines: Sequence[Line]
    late: Sequence[Line] = ()


#: gets the lines of a good migration and the number of the one that is wrong
Work = Callable[[list[Line], int], Arrangement]


def _replaced(line: Callable[[Line], Line]) -> Work:
    return lambda lines, at: Arrangement([*lines[:at], line(lines[at]), *lines[at + 1 :]])


def _added(line: Callable[[Line], Line]) -> Work:
    """One more connection, behind the one it is made of."""
    return lambda lines, at: Arrangement([*lines[: at + 1], line(lines[at]), *lines[at + 1 :]])


def _again(line: Line) -> Line:
    return replace(line, name=f"{line.name}-again")


WRONG: Final[Mapping[str, Work]] = {
    "missing": lambda lines, at: Arrangement([*lines[:at], *lines[at + 1 :]]),
    "silent": _replaced(lambda line: Line(line.name, b"")),
    "closed": _replaced(lambda line: Line(line.name, b"", end=True)),
    "one-byte": _replaced(lambda line: Line(line.name, line.data[:1])),
    "one-byte-closed": _replaced(lambda line: Line(line.name, line.data[:1], end=True)),
    "part": _replaced(lambda line: Line(line.name, line.data[:PART])),
    "part-closed": _replaced(lambda line: Line(line.name, line.data[:PART], end=True)),
    "garbage": _replaced(lambda line: Line(line.name, GARBAGE)),
    "garbage-closed": _replaced(lambda line: Line(line.name, GARBAGE, end=True)),
    "twice": _added(_again),
    "extra-silent": _added(lambda line: Line(f"{line.name}-extra", b"")),
    "extra-closed": _added(lambda line: Line(f"{line.name}-extra", b"", end=True)),
    "extra-garbage": _added(lambda line: Line(f"{line.name}-extra", GARBAGE)),
    "early": lambda lines, at: Arrangement([lines[at], *lines[:at], *lines[at + 1 :]]),
    "late": lambda lines, at: Arrangement([*lines[:at], *lines[at + 1 :]], [lines[at]]),
    "ends": _replaced(lambda line: replace(line, end=True)),
}


#: what a source never does
VIOLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "missing": ("LEG-MFD-003",),
    "silent": ("LEG-CHN-001",),
    "garbage": ("LEG-CHN-001",),
    "twice": ("LEG-CHN-015",),
    "extra-silent": ("LEG-CHN-015",),
    "extra-closed": ("LEG-CHN-015",),
    "extra-garbage": ("LEG-CHN-015",),
    "early": ("LEG-CHN-010",),
    "late": ("LEG-CHN-010",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arranged:
    """One wrong arrangement."""

    family: Family
    channel: str
    name: str
    work: Work
    #: names of all channels, in the order in which a source connects them
    channels: tuple[str, ...]

    @property
    def id(self) -> str:
        """Of the case."""
        return f"legacy.destination.sweep.{self.family.name}.{self.channel}.{self.name}"

    @property
    def settings(self) -> Scenario:
        """Of the good stream."""
        return self.family.settings

    @property
    def title(self) -> str:
        """In words."""
        return f"connection {self.channel}: {self.name}"

    @property
    def versions(self) -> tuple[str, str]:
        """First and last version that can be asked."""
        return self.family.since, self.family.until

    @property
    def slow(self) -> bool:
        """None of them takes long."""
        return False

    @property
    def verdict(self) -> Held:
        """No statement says more than LEG-DST-165."""
        return Held(violates=VIOLATES.get(self.name, ()))

    def play(self, good: Good) -> Play:
        lines = [Line(name, good.channels[name]) for name in self.channels]
        made = self.work(lines, self.channels.index(self.channel))
        play = together(good.settings, *made.lines)
        if not made.late:
            return play
        steps = [*play.steps, Settle()]
        for line in made.late:
            steps += [Connect(line.name), Send(line.name, line.data)]
            steps += [End(line.name)] if line.end else []
        return replace(play, steps=tuple(steps))


def _arranged(family: Family, *channels: str, wrong: Sequence[str] = ()) -> Iterator[Arranged]:
    for channel in wrong or channels:
        for name, work in WRONG.items():
            if name == "early" and channel == channels[0]:
                continue  # it is the first as it is
            yield Arranged(family=family, channel=channel, name=name, work=work, channels=channels)


ARRANGED: Final[tuple[Arranged, ...]] = (
    *_arranged(fam.MAIN, "main"),
    *_arranged(fam.MULTIFD, "main", "multifd-0", "multifd-1", wrong=("main", "multifd-1")),
)
