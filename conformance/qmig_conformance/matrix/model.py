"""What the matrix is made of: builds, boards, devices, states, cells."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class State(enum.StrEnum):
    """What has been done with a device before the guest moves."""

    #: nothing: no firmware has run, no BAR is assigned, no register was touched
    IDLE = "idle"
    #: by the machine's firmware and by a guest driver; the cell says how
    INITIALISED = "initialised"


class Outcome(enum.StrEnum):
    """What was seen. Nothing here is judged by a clock."""

    #: completed; memory equal; the guest goes on; its registers and requests are as before
    WORKS = "works"
    #: the source's migration failed
    SOURCE_FAILS = "source fails"
    #: the source was ended by a signal
    SOURCE_CRASHES = "source crashes"
    #: the destination ended with an error, or its migration failed, while it loaded
    DESTINATION_REFUSES = "destination refuses"
    #: the destination was ended by a signal
    DESTINATION_CRASHES = "destination crashes"
    #: loaded, but the guest's memory is not what the source's was
    MEMORY_DIFFERS = "memory differs"
    #: loaded, and then the guest did not go on: QEMU ended, or says the guest stopped
    GUEST_STOPS = "guest stops"
    #: the guest runs and sees something else in the device than before
    DEVICE_DIFFERS = "device differs"
    #: one of the builds says that it has no such device, machine or option, or cannot migrate it
    UNSUPPORTED = "unsupported"
    #: the machine itself, without the device, does not get from this build to that one
    BASE_FAILS = "base machine fails"
    #: ours: a watchdog, a driver that got no answer, a program that does not start
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """One QEMU program, as it describes itself over QMP."""

    label: str
    binary: Path
    #: ``x86_64``, ``aarch64``: what `query-target` says
    target: str
    version: tuple[int, int, int]
    package: str
    #: names of `query-machines`
    machines: frozenset[str]
    #: alias -> name
    aliases: Mapping[str, str]
    #: kind of bus (`discover.KINDS`) -> types of `qom-list-types`
    types: Mapping[str, frozenset[str]]
    #: types that the build lists as not creatable by a user
    internal: frozenset[str]
    #: type -> property names of `device-list-properties`
    properties: Mapping[str, frozenset[str]]
    #: types that this build lacks, though it or another one lists them -> its own words
    missing: Mapping[str, str] = field(default_factory=dict)

    def has(self, type_: str) -> bool:
        return type_ in self.types["device"] and type_ not in self.missing


@dataclass(frozen=True, slots=True)
class Board:
    """A kind of machine. `alias` is how builds name the newest machine type of the family."""

    name: str
    target: str
    alias: str
    #: arguments beside machine type, memory and guest
    arguments: tuple[str, ...] = ()
    #: PCI slots that devices may take on the first bus
    slots: range = range(0)
    #: which kinds of device fit
    buses: frozenset[str] = frozenset()
    #: whether the machine's own firmware runs before the guest of `State.INITIALISED`
    firmware: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """One row of the matrix.

    In `arguments`, ``{id}`` stands for a name of its own, ``{slot}`` for its PCI slot (hexadecimal),
    ``{number}`` for a number of its own, ``{bus}`` for a bus number.
    """

    name: str
    bus: str
    arguments: tuple[str, ...]
    #: QOM types that a build must have
    types: tuple[str, ...]
    #: at most one device with the same tag in a machine; empty: any number
    exclusive: str = ""
    #: additions to ``-machine`` and ``-m``; devices of one machine have the same
    machine: str = ""
    memory: str = ""
    #: arguments that only the idle or only the initialised machine has
    only: Mapping[State, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """A device in its place: the same in every machine of a board."""

    device: Device
    slot: int
    number: int

    @property
    def id(self) -> str:
        return f"d{self.number}"


Group = tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class Blame:
    """Where it went wrong. Empty strings where nothing says it."""

    section: str = ""
    field: str = ""
    #: QEMU's line that says so
    words: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that the two builds store differently for the same device in the same state."""

    section: str
    field: str
    source: str
    destination: str


@dataclass(slots=True, kw_only=True)
class Cell:
    """One device, one state, one ordered pair of builds, one machine type."""

    board: str
    machine: str
    device: str
    state: State
    source: str
    destination: str
    outcome: Outcome
    #: how the device was initialised
    how: str = ""
    blame: Blame = field(default_factory=Blame)
    source_says: str = ""
    destination_says: str = ""
    differences: list[Difference] = field(default_factory=list)
    #: devices that were in the same machine
    together: int = 1
    #: the programs, and their command lines
    source_binary: str = ""
    destination_binary: str = ""
    source_command: str = ""
    destination_command: str = ""

    @property
    def variant(self) -> str:
        """Board, device and state, as a report's row has them."""
        return f"{self.board}/{self.device}/{self.state}"
