"""Plays the matrix: saves every source state once, loads it into every build, takes failing groups apart."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio

from qmig_conformance.matrix import catalog, discover, groups
from qmig_conformance.matrix.blame import blame
from qmig_conformance.matrix.fields import differences
from qmig_conformance.matrix.loading import Loaded, load
from qmig_conformance.matrix.model import Blame, Board, BuildInfo, Cell, Device, Group, Outcome, Placed, State
from qmig_conformance.matrix.saving import Saved, Setup, save

#: Ends one start, save or load that never ends, in seconds. Its outcome is then `error`, never a verdict.
WATCHDOG = 60.0
#: Where guests' RAM and saved states are kept: in memory where the system has such a place.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to play. Empty sequences: everything there is."""

    builds: Sequence[BuildInfo]
    boards: Sequence[Board]
    devices: Sequence[str] = ()
    states: Sequence[State] = tuple(State)
    #: ordered pairs of labels
    pairs: Sequence[tuple[str, str]] = ()
    #: patterns of `devices` are held against types as well as names
    by_type: bool = True
    #: (I, N), I from 1: this part of the machines only
    shard: tuple[int, int] = (1, 1)
    #: machines that run at the same time
    jobs: int = 2
    watchdog: float = WATCHDOG


@dataclass(slots=True)
class Played:
    """All that came of it."""

    cells: list[Cell] = field(default_factory=list)
    #: board -> type -> why no machine here has it
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    #: cells of devices that fail only in one machine
    together: list[Cell] = field(default_factory=list)
    #: board -> what its builds refused
    refused: dict[str, Refused] = field(default_factory=dict)
    #: (board, state, source, destination) -> why the machine without devices does not move
    base: dict[tuple[str, State, str, str], Blame] = field(default_factory=dict)
    #: QEMUs started
    starts: int = 0


@dataclass(slots=True)
class Tried:
    """A group that was saved by one build and loaded by another."""

    saved: Saved
    loaded: Loaded | None

    @property
    def good(self) -> bool:
        return self.loaded is not None and self.loaded.good

    @property
    def named(self) -> frozenset[str]:
        return self.saved.named if self.loaded is None else self.loaded.named

    @property
    def certain(self) -> bool:
        return self.loaded is None and self.saved.blocked


async def describe_all(binaries: Sequence[Path], labels: Sequence[str] = ()) -> list[BuildInfo]:
    """The builds as they describe themselves, and each one's words for what only another one has."""
    found: dict[int, BuildInfo] = {}

    async def one(place: int, binary: Path) -> None:
        found[place] = await discover.describe(binary, labels[place] if labels else "")

    await _together([partial(one, place, binary) for place, binary in enumerate(binaries)])
    builds = [found[place] for place in range(len(binaries))]
    said: dict[int, BuildInfo] = {}

    async def other(place: int) -> None:
        build = builds[place]
        known = frozenset().union(*(b.types["device"] for b in builds if b.target == build.target))
        words = await discover.refusals(build.binary, known - build.types["device"])
        said[place] = replace(build, missing={**words, **build.missing})

    await _together([partial(other, place) for place in range(len(builds))])
    return [said[place] for place in range(len(builds))]


async def _together(jobs: Sequence[Callable[[], Awaitable[None]]], limit: int = 2) -> None:
    """Does the jobs in their order, so many at a time."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with trio.open_nursery() as nursery:
        for _ in range(limit):
            nursery.start_soon(work)


@contextmanager
def _folder() -> Iterator[Path]:
    base = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="qmig-matrix-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


async def play(plan: Plan, played: Played, report: Callable[[str, int], None]) -> None:
    """Plays the plan, machines without devices first; what came of it so far is always in `played`. `report`
    is told of every machine that is done with, and how many there are."""
    with _folder() as folder:
        number, count = plan.shard
        units = list(_units(plan, played, folder))
        bases = [unit for unit in units if not unit.group]
        others = [unit for unit in units if unit.group][number - 1 :: count]

        async def one(unit: Unit) -> None:
            await unit.play()
            names = ", ".join(placed.device.name for placed in unit.group) or "base machine"
            report(f"{unit.board.name} {unit.state}: {names}", len(bases) + len(others))

        for batch in (bases, others):
            await _together([partial(one, unit) for unit in batch], plan.jobs)


def _units(plan: Plan, played: Played, folder: Path) -> Iterator[Unit]:
    """Idle machines first: what builds refuse is known then for the initialised ones."""
    names = itertools.count()
    for state in plan.states:
        for board in plan.boards:
            builds = [build for build in plan.builds if build.target == board.target]
            devices = catalog.select(catalog.devices_of(board, builds), plan.devices, by_type=plan.by_type)
            played.left_out[board.name] = catalog.left_out(board, builds)
            refused = played.refused.setdefault(board.name, Refused())
            for group in [*groups.place(board, devices), ()] if builds else ():
                yield Unit(plan, builds, board, state, group, folder / str(next(names)), played, refused)


class Refused:
    """What builds of a board said of devices that they do not start or do not migrate, so as not to ask again
    for every pair."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, bool], Blame] = {}

    def note(self, build: BuildInfo, placed: Placed, said: Blame, *, saving: bool) -> None:
        self._said[build.label, placed.id, saving] = said

    def said(self, build: BuildInfo, placed: Placed, *, saving: bool) -> Blame | None:
        return self._said.get((build.label, placed.id, saving))


#: The device of a machine without any.
BASE = Device("base machine", "", (), ())


class Unit:
    """One group of devices in one state, for all pairs."""

    def __init__(
        self, plan: Plan, builds: Sequence[BuildInfo], board: Board, state: State, group: Group,
        folder: Path, played: Played, refused: Refused,
    ) -> None:  # fmt: skip
        self.plan, self.builds, self.board, self.state, self.group = plan, builds, board, state, group
        self.folder, self.played, self.refused = folder, played, refused
        self._saves: dict[tuple[str, str, tuple[str, ...]], Saved] = {}
        self._names = itertools.count()

    async def play(self) -> None:
        """All ordered pairs, a build with itself among them."""
        self.folder.mkdir()
        try:
            for source, destination in itertools.product(self.builds, repeat=2):
                if not self.plan.pairs or (source.label, destination.label) in self.plan.pairs:
                    await self._pair(source, destination)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _pair(self, source: BuildInfo, destination: BuildInfo) -> None:
        machine, why = discover.common_machine(self.board, [source, destination])
        pair = Pair(self, source, destination, machine)
        if not machine:
            for placed in self.group or _BASE:
                pair.unsupported(placed, why)
            return
        broken = self.played.base.get((self.board.name, self.state, source.label, destination.label))
        if broken and self.group:
            for placed in self.group:
                pair.base_fails(placed, broken)
            return
        able = [placed for placed in self.group if not pair.known_refusal(placed)]
        if not able and self.group:
            return
        found = await groups.search(tuple(able), pair.attempt)
        for part, tried in found.parts:
            for placed in part or _BASE:
                await pair.cell(placed, part, tried)
        self.played.together += [pair.combination(part, tried) for part, tried in found.together]

    async def saved(self, build: BuildInfo, machine: str, group: Group) -> Saved:
        """The state, saved when first asked for."""
        key = build.label, machine, tuple(placed.id for placed in group)
        if key not in self._saves:
            setup = Setup(self.board, machine, self.state, group)
            name = f"s{next(self._names)}"
            self.played.starts += 1
            saved = await save(build, setup, self.folder, name, self.plan.watchdog)
            self._saves[key] = saved
        return self._saves[key]

    async def loaded(self, build: BuildInfo, machine: str, group: Group, saved: Saved) -> Loaded:
        """The state, loaded by a build."""
        setup = Setup(self.board, machine, self.state, group)
        name = f"l{next(self._names)}"
        self.played.starts += 1
        return await load(build, setup, saved, self.folder, name, self.plan.watchdog)


#: Stands for the base machine where a group has no device.
_BASE = (Placed(BASE, 0, 0),)


class Pair:
    """A unit, between two builds."""

    def __init__(self, unit: Unit, source: BuildInfo, destination: BuildInfo, machine: str) -> None:
        self.unit, self.source, self.destination, self.machine = unit, source, destination, machine

    async def attempt(self, group: Group) -> Tried:
        saved = await self.unit.saved(self.source, self.machine, group)
        if not saved.good:
            return Tried(saved, None)
        return Tried(saved, await self.unit.loaded(self.destination, self.machine, group, saved))

    def known_refusal(self, placed: Placed) -> bool:
        """Whether a build has already said that it has no such device; its cell is then written."""
        for build, saving in ((self.source, True), (self.destination, False)):
            lacking = [type_ for type_ in placed.device.types if not build.has(type_)]
            if lacking:
                self.unsupported(placed, f"{build.label}: {build.missing.get(lacking[0], lacking[0])}")
                return True
            said = self.unit.refused.said(build, placed, saving=saving)
            if said:
                self._add(placed, Outcome.UNSUPPORTED).blame = said
                return True
        return False

    def unsupported(self, placed: Placed, words: str) -> None:
        self._add(placed, Outcome.UNSUPPORTED).blame = Blame(words=words)

    def base_fails(self, placed: Placed, why: Blame) -> None:
        """Nothing can be said of a device in a machine that does not move."""
        words = f"the machine without it does not move either: {why.words}"
        self._add(placed, Outcome.BASE_FAILS).blame = Blame(words=words)

    def _add(self, placed: Placed, outcome: Outcome) -> Cell:
        cell = self._cell(placed.device.name, outcome)
        self.unit.played.cells.append(cell)
        return cell

    def _cell(self, device: str, outcome: Outcome) -> Cell:
        return Cell(
            board=self.unit.board.name,
            machine=self.machine,
            device=device,
            state=self.unit.state,
            source=self.source.label,
            destination=self.destination.label,
            source_binary=str(self.source.binary),
            destination_binary=str(self.destination.binary),
            outcome=outcome,
        )

    def combination(self, group: Group, tried: Tried) -> Cell:
        """Devices that are good one by one and fail in one machine."""
        cell = self._cell(" with ".join(placed.device.name for placed in group), _outcome(tried))
        words = tried.loaded.words if tried.loaded is not None else tried.saved.words
        cell.blame, cell.together = blame(words), len(group)
        cell.source_says, cell.source_command = tried.saved.words, tried.saved.command
        if tried.loaded is not None:
            cell.destination_says, cell.destination_command = words, tried.loaded.command
        return cell

    async def cell(self, placed: Placed, group: Group, tried: Tried) -> None:
        """Writes the cell of one device of a group."""
        saved, loaded = tried.saved, tried.loaded
        outcome = _outcome(tried)
        cell = self._add(placed, outcome)
        cell.together = max(1, len(group))
        cell.source_says = saved.words
        prepared = saved.prepared.get(placed.id)
        cell.how = (
            prepared.how if prepared else "a running guest" if self.unit.state is State.INITIALISED else ""
        )
        cell.source_command = saved.command
        if loaded is not None:
            cell.destination_command, cell.destination_says = loaded.command, loaded.words
        if outcome is Outcome.WORKS:
            return
        words = loaded.words if loaded is not None else saved.words
        cell.blame = blame(words)
        if not group:
            key = self.unit.board.name, self.unit.state, self.source.label, self.destination.label
            self.unit.played.base[key] = cell.blame
        if outcome is Outcome.UNSUPPORTED:
            build = self.source if loaded is None else self.destination
            cell.blame = replace(
                cell.blame, words=f"{build.label}: {words.splitlines()[-1] if words else ''}"
            )
            self.unit.refused.note(build, placed, cell.blame, saving=loaded is None)
        if outcome is Outcome.DEVICE_DIFFERS and loaded is not None:
            cell.blame = Blame(
                field=loaded.differing.get(placed.id, ""), words=loaded.differing.get(placed.id, "")
            )
        if outcome in {Outcome.DESTINATION_REFUSES, Outcome.MEMORY_DIFFERS, Outcome.DEVICE_DIFFERS}:
            other = await self.unit.saved(self.destination, self.machine, group)
            if saved.stream and other.stream:
                cell.differences = differences(saved.stream, other.stream, cell.blame.section)


def _outcome(tried: Tried) -> Outcome:
    if tried.loaded is not None:
        return tried.loaded.outcome
    if tried.saved.refused:
        return Outcome.UNSUPPORTED
    if tried.saved.crashed:
        return Outcome.SOURCE_CRASHES
    return Outcome.ERROR if tried.saved.ours else Outcome.SOURCE_FAILS
