"""Two ends of protocol v2 joined in memory, each with a user that does what it is asked to.

    pair = Pair(source(), destination())
    pair.source.start()
    pair.run()                     # as far as it goes by itself: READY
    pair.source.qemu_at_switch(); pair.run()

What each side was asked and told is in `log`, what it said on control in `said`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from qmig._cbor import Value
from qmig.handshake.binding import DestinationBinding
from qmig.handshake.codes import Profile
from qmig.handshake.config import DestinationConfig, SourceConfig
from qmig.handshake.destination import Destination
from qmig.handshake.destination_table import Action as DestinationAction
from qmig.handshake.events import NEED_DATA, Carried, Do, Ended, HangUp, Told
from qmig.handshake.grease import SIZE as GREASE_SIZE
from qmig.handshake.grease import Grease
from qmig.handshake.messages import Finding, Implementation, Offer
from qmig.handshake.resume import DestinationResume, SourceResume
from qmig.handshake.source import Source
from qmig.handshake.source_table import Action as SourceAction

SESSION: Final = bytes(range(16))
SOURCE_NONCE: Final = b"\xa5" * 32
DESTINATION_NONCE: Final = b"\x5a" * 32
SECRET: Final = b"\x11" * 32
#: a description: deterministic CBOR of one empty class
DESCRIPTION: Final = bytes.fromhex("a1657374617465a0")

OFFERS: Final[Mapping[str, Offer]] = {
    "multifd-channels": Offer(value=16),
    "multifd-compression": Offer(value=["zstd", "none"]),
    "postcopy-ram": Offer(value=True),
    "handover.v1": Offer(value=True, essential=True),
    "resume.v1": Offer(value=True),
}
ABILITIES: Final[Mapping[str, Any]] = {
    "multifd-channels": 2,
    "multifd-compression": ("none", "zlib", "zstd"),
    "postcopy-ram": True,
    "postcopy-preempt": True,
    "handover.v1": True,
    "resume.v1": True,
    "recheck.v1": True,
    "channel.mux": True,
    "description.peer": True,
}


def grease(first: int = 0) -> Grease:
    """The same random bytes each time."""
    return Grease(bytes(range(first, first + GREASE_SIZE)))


def source(offers: Mapping[str, Offer] = OFFERS, **config: Any) -> Source:
    """A source that always says the same."""
    made = SourceConfig(offers=offers, implementation=Implementation(name="qmig", version="test"), **config)
    return Source(made, session=SESSION, nonce=SOURCE_NONCE, grease=grease())


def destination(abilities: Mapping[str, Any] = ABILITIES, **config: Any) -> Destination:
    """A destination that always says the same."""
    made = DestinationConfig(abilities=abilities, **config)
    return Destination(made, nonce=DESTINATION_NONCE, secret=SECRET, grease=grease(100))


def probing(**config: Any) -> Source:
    """A source that only wants to know."""
    return source(profile=Profile.PROBE, **config)


class Pair:
    """Both ends and the control connection between them. `chunk` bytes are delivered at a time (0: all
    there is); `findings` are what D's judge finds."""

    def __init__(
        self, source: Source, destination: Destination, *, chunk: int = 0, findings: Sequence[Finding] = ()
    ) -> None:
        self.source = source
        self.destination = destination
        self.chunk = chunk
        self.findings = tuple(findings)
        #: actions that nobody does: the test does
        self.held: set[str] = set()
        self.log: list[tuple[str, Told]] = []
        self.said: dict[str, bytearray] = {"source": bytearray(), "destination": bytearray()}
        #: what was said on data connections, by (side, kind, index)
        self.bound: dict[tuple[str, str, int], bytes] = {}
        #: who did what, in order: ("source", bytes said on control), ("source", a method told), …
        self.turns: list[tuple[str, int | str]] = []
        self.cut = False
        self._closed: set[str] = set()
        self._resuming: SourceResume | None = None

    # -- running ------------------------------------------------------------------------------------------

    def start(self) -> Pair:
        """Begins, and runs."""
        return self.tell("source", "start")

    def tell(self, side: str, event: str, *args: Any, **values: Any) -> Pair:
        """One end's user tells it something; then both run."""
        self.turns.append((side, event))
        getattr(self.source if side == "source" else self.destination, event)(*args, **values)
        return self.run()

    def run(self) -> Pair:
        """Until nothing moves any more."""
        while self._turn("source") | self._turn("destination"):
            pass
        return self

    def _turn(self, side: str) -> bool:
        end: Source | Destination = self.source if side == "source" else self.destination
        moved = False
        while True:
            event = end.next_event()
            moved |= self._deliver(side, end.data_to_send())
            if event is NEED_DATA:
                return moved
            moved = True
            self.log.append((side, event))
            if isinstance(event, Ended | HangUp) and side not in self._closed:
                self._closed.add(side)
                self._deliver(side, end.data_to_send())
                self._other(side).receive_data(b"")
            if isinstance(event, Do) and event.action.value not in self.held:
                (self._source_does if side == "source" else self._destination_does)(event)

    def _other(self, side: str) -> Source | Destination:
        return self.destination if side == "source" else self.source

    def _deliver(self, side: str, data: bytes) -> bool:
        if data and not self.cut:
            self.said[side] += data
            self.turns.append((side, len(data)))
            step = self.chunk or len(data)
            for at in range(0, len(data), step):
                if side == "destination" and self._resuming is not None:
                    self._resuming.receive_data(data[at : at + step])
                    continue
                self._other(side).receive_data(data[at : at + step])
                if self.chunk:
                    self._read(self._other(side))
        return bool(data)

    def _read(self, end: Source | Destination) -> None:
        """Lets an end look at what has come, so that it sees every beginning."""
        end._read()  # noqa: SLF001 - events stay queued for the end's own turn

    def cut_control(self) -> None:
        """The control connection is lost for both."""
        self.cut = True
        self.source.receive_data(b"")
        self.destination.receive_data(b"")
        self.run()

    def does(self, side: str) -> list[str]:
        """What one side was asked to do, in order."""
        return [event.action.value for who, event in self.log if who == side and isinstance(event, Do)]

    def carried(self, side: str) -> list[Carried]:
        return [event for who, event in self.log if who == side and isinstance(event, Carried)]

    def outcome(self, side: str) -> str | None:
        """How one side ended last."""
        ends = [event.outcome for who, event in self.log if who == side and isinstance(event, Ended)]
        return ends[-1] if ends else None

    # -- the users ----------------------------------------------------------------------------------------

    def _source_does(self, event: Do) -> None:
        match event.action:
            case SourceAction.ASK_DESCRIPTION:
                self.source.describe(DESCRIPTION)
            case SourceAction.OPEN_CHANNELS:
                if "channel.mux" not in event.detail.agreed:
                    for kind, index, when in event.detail.plan:
                        if not when:
                            self.bind(kind, index)
            case SourceAction.BIND_LATE:
                self.bind(*event.detail)

    def _destination_does(self, event: Do) -> None:
        match event.action:
            case DestinationAction.JUDGE:
                self.destination.give_verdict(self.findings)
            case DestinationAction.APPLY:
                self.destination.applied()
            case DestinationAction.LISTEN | DestinationAction.RECOVER:
                self.destination.listens()
            case DestinationAction.CONT:
                self.destination.continued()
            case DestinationAction.JUDGE_STATE:
                self.destination.grant(self.findings)

    def bind(self, kind: str, index: int) -> None:
        """Makes one data connection."""
        ours, theirs = self.source.binding(kind, index), DestinationBinding()
        hello = ours.hello()
        self.bound["source", kind, index] = hello
        theirs.receive_data(hello)
        answer = self.destination.bind(theirs)
        self.bound["destination", kind, index] = answer
        ours.receive_data(answer)
        self.source.channel_bound(ours)

    # -- resuming -----------------------------------------------------------------------------------------

    def resume(self, *, data: bool = False, first: int = 0) -> DestinationResume:
        """Another control connection for the session, up to RESUME-ANSWER."""
        ours = self.source.resume(nonce=bytes([first + 1]) * 32, grease=grease(first + 20), data=data)
        theirs = DestinationResume(
            self.destination.resumable, nonce=bytes([first + 2]) * 32, grease=grease(first + 60)
        )
        for _ in range(3):
            if data_of_source := ours.data_to_send():
                theirs.receive_data(data_of_source)
            if data_of_destination := theirs.data_to_send():
                ours.receive_data(data_of_destination)
        if theirs.done:
            self.cut = False
            self._closed.clear()
            self.said = {"source": bytearray(), "destination": bytearray()}
            self._resuming = ours
            self.destination.resumed(theirs)
            self._turn("destination")
            self._resuming = None
            if ours.done:
                self.source.resumed(ours)
            self.run()
        return theirs


def offers(*names: str, **values: Value) -> dict[str, Offer]:
    """Flags by their names, other names with their values."""
    flags = {name: Offer(value=True) for name in names}
    return {**flags, **{name.replace("_", "-"): Offer(value=value) for name, value in values.items()}}


def essential(offer: Offer) -> Offer:
    return replace(offer, essential=True)
