"""What the model knows: a value for everything that can differ between two situations.

Control is two queues of words; a QEMU is one word that says what matters for the guest:

source      run → active → pre (stopped, resumes by itself) → device (the same, state is being sent) → done
            (stopped, resumes no more); failed: it has given up, and runs its guest unless that was stopped
            before; idle: cancelled; owed: postcopy, stopped, pages owed; finishing: no page is owed any more
destination none → listening → loaded (paused) → running; dead. Without hold: listening → running
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from qmig.handshake import destination_table as dst
from qmig.handshake import source_table as src


@dataclass(frozen=True, slots=True)
class Features:
    """Which optional names are on, and how many bad things may happen in one run, and which."""

    handover: bool = True
    resume: bool = False
    recheck: bool = False
    mux: bool = False
    postcopy: bool = False
    preempt: bool = False
    probe: bool = False
    peer: bool = False
    #: cuts, failures, cancels, violations and crashes, all together
    faults: int = 1
    crashes: bool = False
    violations: bool = False

    def source_facts(self) -> frozenset[str]:
        """What S knows when it has committed."""
        names = {
            "handover": self.handover,
            "resume": self.resume,
            "retry": self.resume,
            "recheck": self.recheck,
            "mux": self.mux,
            "can-postcopy": self.postcopy,
            "description.peer": self.peer,
        }
        return frozenset(name for name, on in names.items() if on)

    def __str__(self) -> str:
        on = [name for name in self.__slots__ if getattr(self, name) is True]
        return f"{', '.join(on) or 'nothing'}; {self.faults} faults"


class Side(NamedTuple):
    """One endpoint's machine. `reads`: whether it still takes messages."""

    state: src.State | dst.State
    facts: frozenset[str] = frozenset()
    outcome: str = ""
    reads: bool = True
    record: str = ""

    def has(self, *facts: str) -> bool:
        return self.facts.issuperset(facts)

    def plus(self, *facts: str) -> Side:
        return self._replace(facts=self.facts | set(facts))

    def minus(self, *facts: str) -> Side:
        return self._replace(facts=self.facts - set(facts))


class World(NamedTuple):
    """One situation."""

    source: Side
    destination: Side
    to_destination: tuple[str, ...] = ()
    to_source: tuple[str, ...] = ()
    #: whether what is said on control arrives
    link: bool = True
    qemu_source: str = "run"
    source_runs: bool = True
    #: S's guest was stopped by `stop`, so that its QEMU does not resume it
    stopped: bool = False
    #: S's QEMU has failed or runs its guest, and its agent has not seen it yet
    unseen: bool = False
    qemu_destination: str = "none"
    destination_runs: bool = False
    #: data channels: no, opening, bound, flow, broken
    data: str = "no"
    #: all of the device state is on its way or there
    sent: bool = False
    postcopy: bool = False
    #: D's last messages, to be said again
    last: tuple[str, ...] = ()
    faults: int = 0

    @property
    def both_run(self) -> bool:
        return self.source_runs and self.destination_runs

    @property
    def over(self) -> bool:
        return self.source.state is src.State.END and self.destination.state in {
            dst.State.END,
            dst.State.LISTENING,
        }


def initial(features: Features) -> World:
    """Both sides before the connection."""
    facts = frozenset({"probe"}) if features.probe else frozenset[str]()
    return World(Side(src.State.IDLE, facts), Side(dst.State.LISTENING), faults=features.faults)
