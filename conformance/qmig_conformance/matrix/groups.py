"""Which devices share a machine, and the search for those that make it fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from qmig_conformance.matrix.model import Board, Device, Group, Placed

#: The exclusive tag of a device that changes the machine around it, such as an IOMMU.
ALONE = "alone"


def place(board: Board, devices: Sequence[Device]) -> list[Group]:
    """Puts devices into as few machines as their slots, machine options and exclusive tags allow.

    A device's slot, and so the name of its sections, is the same in every machine that has it.
    """
    groups: list[list[Placed]] = []
    for number, device in enumerate(devices):
        group = next((group for group in groups if _fits(board, group, device)), None)
        if group is None:
            group = []
            groups.append(group)
        group.append(Placed(device, board.slots[len(group)], number))
    return [tuple(group) for group in groups]


def _fits(board: Board, group: Sequence[Placed], device: Device) -> bool:
    first = group[0].device
    return (
        len(group) < len(board.slots)
        and (first.machine, first.memory) == (device.machine, device.memory)
        and ALONE not in {device.exclusive, first.exclusive}
        and not (device.exclusive and any(one.device.exclusive == device.exclusive for one in group))
    )


class Tried(Protocol):
    """What a try with a group of devices says."""

    @property
    def good(self) -> bool: ...

    @property
    def named(self) -> frozenset[str]:
        """Ids of the devices that the message names; may be empty or wrong."""

    @property
    def certain(self) -> bool:
        """Whether what the message names cannot be there whatever is beside it."""

    @property
    def loaded(self) -> object:
        """None if it failed before anything was loaded."""


T = TypeVar("T", bound=Tried)


@dataclass(slots=True)
class Found(Generic[T]):
    """What a search found. Every device is in exactly one group of `parts`."""

    parts: list[tuple[Group, T]] = field(default_factory=list)
    #: groups that failed although each of their parts is good
    together: list[tuple[Group, T]] = field(default_factory=list)


async def search(group: Group, attempt: Callable[[Group], Awaitable[T]], *, whole: bool = True) -> Found[T]:
    """Tries `group`; while it fails, takes it apart, down to single devices.

    What a message names is tried alone, unless the message is `certain`. The rest is tried as a `whole`, and
    in halves from the second failed load on.
    """
    tried = await attempt(group)
    if tried.good or len(group) <= 1:
        return Found([(group, tried)])
    found = Found[T]()
    named = tuple(one for one in group if one.id in tried.named)
    rest = tuple(one for one in group if one.id not in tried.named)
    if tried.certain and named:
        found.parts += [((one,), tried) for one in named]
        pieces = [rest]
    else:
        pieces = [(one,) for one in named] if rest else []
        pieces += [rest or named] if rest and named and (whole or not tried.loaded) else halves(rest or named)
    for piece in pieces:
        if piece:
            below = await search(piece, attempt, whole=not tried.loaded)
            found.parts += below.parts
            found.together += below.together
    if all(result.good for _, result in found.parts):
        found.together.append((group, tried))
    return found


def halves(group: Group) -> list[Group]:
    """Two groups, the second of which may be empty."""
    middle = (len(group) + 1) // 2
    return [group[:middle], group[middle:]]
