"""Groups of devices: how they are put into machines, and how a group that fails is taken apart."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from qmig_conformance.matrix.boards import BOARDS, board
from qmig_conformance.matrix.groups import ALONE, halves, place, search
from qmig_conformance.matrix.model import Device, Group, Placed


def device(name: str, *, exclusive: str = "", memory: str = "") -> Device:
    return Device(name, "pci", (f"-device {name}",), (name,), exclusive=exclusive, memory=memory)


def group_of(count: int) -> Group:
    return tuple(Placed(device(f"t{number}"), 2 + number, number) for number in range(count))


@dataclass
class Tried:
    """What a try came to: which of the bad ones it had, and what its message named."""

    good: bool
    named: frozenset[str] = frozenset()
    certain: bool = False
    loaded: object = True


@dataclass
class Machine:
    """Fails where a device of `bad` is in it, or all of `quarrel`; names what it is told to."""

    bad: Collection[str]
    quarrel: Collection[str] = ()
    honest: bool = True
    certain: bool = False
    tries: list[tuple[str, ...]] = field(default_factory=list)

    async def attempt(self, group: Group) -> Tried:
        await trio.lowlevel.checkpoint()
        ids = [one.id for one in group]
        self.tries.append(tuple(ids))
        bad = [id_ for id_ in ids if id_ in self.bad]
        quarrel = bool(self.quarrel) and set(self.quarrel) <= set(ids)
        named = frozenset(bad[:1]) if self.honest else frozenset(ids[-1:])
        return Tried(not bad and not quarrel, named, self.certain and bool(bad))


@given(
    count=st.integers(1, 12),
    bad=st.sets(st.integers(0, 11)),
    honest=st.booleans(),
    certain=st.booleans(),
)
def test_every_device_that_fails_is_found_and_no_other(
    count: int, bad: set[int], honest: bool, certain: bool
) -> None:
    """A message that is certain is honest."""
    machine = Machine({f"d{number}" for number in bad}, honest=honest or certain, certain=certain)
    found = trio.run(search, group_of(count), machine.attempt)
    said = {one.id: tried.good for part, tried in found.parts for one in part}
    assert said == {f"d{number}": number not in bad for number in range(count)}
    assert sum(len(part) for part, _ in found.parts) == count
    assert len(machine.tries) <= 4 * count + 1
    if not bad:
        assert machine.tries == [tuple(f"d{number}" for number in range(count))]


def test_what_fails_only_together_is_told() -> None:
    machine = Machine((), quarrel=("d1", "d6"), honest=False)
    found = trio.run(search, group_of(8), machine.attempt)
    assert all(tried.good for _, tried in found.parts)
    assert all({"d1", "d6"} <= {one.id for one in group} for group, _ in found.together)
    assert found.together


@pytest.mark.parametrize("count", range(5))
def test_halves(count: int) -> None:
    first, second = halves(group_of(count))
    assert (*first, *second) == group_of(count)
    assert 0 <= len(first) - len(second) <= 1


def test_devices_share_machines_as_far_as_they_can() -> None:
    devices = [
        device("a"), device("vga1", exclusive="vga"), device("vga2", exclusive="vga"), device("b"),
        device("iommu", exclusive=ALONE), device("dimm", memory="slots=4"), device("c"),
    ]  # fmt: skip
    groups = place(board("pc"), devices)
    assert [[one.device.name for one in group] for group in groups] == [
        ["a", "vga1", "b", "c"], ["vga2"], ["iommu"], ["dimm"],
    ]  # fmt: skip
    for group in groups:
        slots = [one.slot for one in group]
        assert all(low < high for low, high in pairwise(slots))
    assert len({one.id for group in groups for one in group}) == len(devices)


@pytest.mark.parametrize("one", BOARDS, ids=lambda one: one.name)
def test_no_machine_has_more_devices_than_slots(one: object) -> None:
    chosen = board(one.name)  # type: ignore[attr-defined]
    groups = place(chosen, [device(f"t{number}") for number in range(100)])
    assert all(len(group) <= len(chosen.slots) for group in groups)
    assert sum(len(group) for group in groups) == 100
