"""Every situation that can be reached, and what is wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src
from qmig.handshake.table import Row
from qmig.testing.model.machines import DestinationTable, Machines, NoRow, SourceTable
from qmig.testing.model.moves import moves
from qmig.testing.model.world import Features, World, initial

#: faults that are told of one run; more say the same
_ENOUGH: Final = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and how it came to that: the names of the moves from the beginning."""

    message: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {at:3} {move}" for at, move in enumerate(self.trace, 1))])


@dataclass(slots=True)
class Explored:
    """What was found. `used` are the rows that were fired."""

    features: Features
    states: int = 0
    moves: int = 0
    ends: set[tuple[str, str]] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    used: set[Row[Any, Any, Any]] = field(default_factory=set)


def explore(
    features: Features, source: SourceTable = src.TABLE, destination: DestinationTable = dst.TABLE
) -> Explored:
    """All situations that can be reached with these features and tables. Stops at a few faults."""
    return _Exploration(features, Machines(features, source, destination)).run()


class _Exploration:
    def __init__(self, features: Features, machines: Machines) -> None:
        self.machines = machines
        self.found = Explored(features)
        #: how each situation was first come to
        self.came: dict[World, tuple[World, str] | None] = {}
        self.before: dict[World, list[World]] = {}

    def run(self) -> Explored:
        start = initial(self.found.features)
        self.came[start] = None
        todo = deque([start])
        while todo and len(self.found.faults) < _ENOUGH:
            world = todo.popleft()
            for name, after in self._moves(world):
                self.found.moves += 1
                self.before.setdefault(after, []).append(world)
                if after not in self.came:
                    self.came[after] = (world, name)
                    if problem := wrong(after):
                        self._fault(problem, after)
                    todo.append(after)
        if not self.found.faults:
            self._exits()
        self.found.states = len(self.came)
        self.found.used = self.machines.used
        return self.found

    def _moves(self, world: World) -> Iterator[tuple[str, World]]:
        if world.over and not world.unseen:
            self.found.ends.add((world.source.outcome, world.destination.outcome))
            return
        count = 0
        try:
            for move in moves(self.machines, world):
                count += 1
                yield move
        except NoRow as problem:
            self._fault(f"no row: {problem}", world)
            return
        if not count:
            self._fault("nothing can happen any more", world)

    def _exits(self) -> None:
        """From every situation an end can be reached."""
        todo = deque(world for world in self.came if world.over)
        good = set(todo)
        while todo:
            for world in self.before.get(todo.popleft(), ()):
                if world not in good:
                    good.add(world)
                    todo.append(world)
        stuck = next((world for world in self.came if world not in good), None)
        if stuck is not None:
            self._fault("no end can be reached", stuck)

    def _fault(self, message: str, world: World) -> None:
        trace: list[str] = []
        here: World | None = world
        while here is not None and (came := self.came[here]) is not None:
            here, name = came
            trace.append(name)
        place = f"S {world.source.state.name}, D {world.destination.state.name}"
        self.found.faults.append(Fault(f"{message} ({place})", tuple(reversed(trace))))


def wrong(world: World) -> str:
    """What may not be; empty if all is well."""
    if world.both_run:
        return "both guests run"
    if not world.over or world.unseen:
        return ""
    ours, theirs = world.source.outcome, world.destination.outcome
    if ours == "moved" and theirs != "ran":
        return f"S says moved, D ended {theirs or 'listening'}"
    if ours != "moved" and theirs == "ran":
        return f"D has the guest, S says {ours}"
    if ours == "moved" and world.source_runs:
        return "S says moved and runs the guest"
    if ours in {"here", "probed"} and world.destination_runs:
        return "S has the guest and D runs it"
    return ""
