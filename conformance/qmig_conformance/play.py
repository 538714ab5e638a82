"""What a destination is given, and what was seen of it: the vocabulary of all cases in which the target is a
destination. No target is named here; `qmig_conformance.destination` plays a `Play` on a QEMU build,
`qmig_conformance.reference` on our own peer.

    steps = (Connect("main"), Send("main", data), End("main"))
    seen = destination.play(Play(settings=scenario("return-path"), steps=steps))
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qmig.testing.scenario import Scenario


class Outcome(enum.StrEnum):
    """What became of a destination. The first four have the names that QEMU's own migration tests use.

    None is a matter of time: each is a state that was observed, and that the destination does not leave
    unless something is sent to it."""

    #: migration completed, and the guest runs where it was to run
    SUCCEED = "succeed"
    #: migration failed; the process is there and its monitor answers
    FAIL = "fail"
    #: the process ended by itself with an exit status that is not 0
    FAIL_DEST_QUIT_ERR = "fail-dest-quit-err"
    #: a QMP command was refused
    QMP_ERROR = "qmp-error"
    #: postcopy is interrupted and waits for a recovery
    POSTCOPY_PAUSED = "postcopy-paused"
    #: everything sent was taken, it rests, its monitor answers: it wants more
    WAITS = "waits"
    #: it rests (or does not take what was sent), and its monitor does not answer
    BLOCKED = "blocked"
    #: ended by a signal
    CRASH = "crash"


#: ways to say no that leave the reason with somebody
REFUSED = frozenset({Outcome.FAIL, Outcome.FAIL_DEST_QUIT_ERR, Outcome.QMP_ERROR})
#: what no input may bring about
NEVER = frozenset({Outcome.CRASH, Outcome.BLOCKED})


@dataclass(frozen=True, slots=True)
class Connect:
    """A new connection to the destination's address, kept under a name of the play's own."""

    name: str


@dataclass(frozen=True, slots=True)
class Accept:
    """The connection that a source makes to the address that its ``migrate`` was given, kept under a name."""

    name: str


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes on a connection, all of them taken by the destination's kernel or refused by its end."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class End:
    """No more bytes in our direction; what comes back is still read."""

    name: str


@dataclass(frozen=True, slots=True)
class Close:
    """Both directions."""

    name: str


@dataclass(frozen=True, slots=True)
class Expect:
    """Goes on when these bytes have come back on a connection; or when the destination rests or has ended, in
    which case they will not."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Settle:
    """Goes on when the destination rests: it has taken all there is, or it has ended."""


@dataclass(frozen=True, slots=True)
class Qmp:
    """A command to the destination's monitor. `{address}` in an argument is an address it can listen at."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


Step = Connect | Accept | Send | End | Close | Expect | Settle | Qmp


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One migration into a destination, or out of a source: then the steps are its destination's. Connections
    that are open after the last step stay open until the outcome is seen."""

    #: machine, capabilities and parameters of the destination; its guest stays as `-incoming defer` has it
    settings: Scenario
    steps: tuple[Step, ...]
    #: of `migrate-incoming`; None leaves it out
    exit_on_error: bool | None = None

    @property
    def of_source(self) -> bool:
        """Whether the target is the source."""
        return any(isinstance(step, Accept) for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of a play."""

    outcome: Outcome
    #: everything the destination said in words: standard error, `error-desc`, QMP errors
    words: str = ""
    #: bytes that came back, by connection
    answered: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    #: migration states in their order, from the events
    states: tuple[str, ...] = ()
    #: of the process; None while it runs
    returncode: int | None = None
    #: `query-status`; empty where the monitor did not answer
    run_state: str = ""
    #: how the outcome was told, in words: what was looked at and what it showed
    evidence: str = ""
    #: artefacts of this play, from which alone it can be repeated
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Good:
    """A good migration into a destination of some settings: what a source sends on each channel.

    Made by the target itself where it can (a build is its own source), so that machine, devices and versions
    are those of the target."""

    settings: Scenario
    channels: Mapping[str, bytes] = field(repr=False)
    #: what a recorded destination answered, by channel
    answers: Mapping[str, bytes] = field(default_factory=dict, repr=False)


class Destination(Protocol):
    """A target that is a destination. Each play has a process, or a peer, of its own."""

    #: ``7.2.22``; empty where the target is no QEMU
    version: str

    def good(self, settings: Scenario) -> Good:
        """Raises `Unsupported` where the target says that it cannot."""

    def play(self, play: Play) -> Seen:
        """Raises `Unsupported` where the target says that it has not got what the settings need."""

    def keep(self, folder: Path) -> None:
        """Writes the artefacts of the last play (`qmig_conformance.artefacts`)."""
