"""The source of a migration without its sockets: what may be sent next, and what the answers mean.

    source = MigrationSource(image, settings)
    while not source.ended:
        output = source.next_output(ready)        # Connect, Send, End; None: nothing for these channels now
        source.receive_data(answer)               # from the return path, while `source.hungry`

Rule 1: outputs come in one order. One is handed out only if its channel is in `ready`, so that a channel
that does not take its bytes holds back what follows, and nothing is kept here but the next output.
Rule 2: in postcopy, what the destination asked for goes before anything else.
Rule 3: nothing ends by a clock; `waiting_for` says what is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from qmig._wire import Record
from qmig.errors import LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy import returnpath as rp
from qmig.legacy.commands import Packaged
from qmig.legacy.compose import PING_OPENING, Composer
from qmig.legacy.compose_ram import Event, PageWriter
from qmig.legacy.machine_image import MachineImage
from qmig.legacy.ram import RamEos
from qmig.legacy.receiver import NEED_DATA, Sentinel
from qmig.legacy.requests import Pages, Pending
from qmig.legacy.sender import LegacySender
from qmig.legacy.source_settings import Postcopy, SourceSettings
from qmig.legacy.source_table import OUT_OF_PLACE, TRANSITIONS, SourcePhase, Step

#: phases that are left by the caller or not at all
RESTING: Final = frozenset({SourcePhase.PAUSED, SourcePhase.COMPLETED, SourcePhase.FAILED})


@dataclass(frozen=True, slots=True)
class Connect:
    """A connection has to be made. Channels of one migration are connected in the order of these."""

    channel: str


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for a channel."""

    channel: str
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more is sent on this channel."""

    channel: str


Output: TypeAlias = Connect | Send | End


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing comes next before `over` is true."""

    what: str
    over: Callable[[], bool]


class MigrationSource:
    """One migration of an image, recoveries included. Channels have the names of recordings: `main`,
    `multifd-N`, `preempt`; those of a second connection `main-2`, `preempt-2`."""

    def __init__(self, image: MachineImage, settings: SourceSettings) -> None:
        self.settings = settings
        self.phase = SourcePhase.SETUP
        #: why it failed or paused; empty otherwise
        self.error = ""
        #: bytes handed out, by channel
        self.sent: dict[str, int] = {}
        #: values of PONGs, in the order of their coming
        self.pongs: list[int] = []
        self.switchover_acks = 0
        #: value of SHUT
        self.shut: int | None = None
        self._image = image
        self._compose = Composer(image, settings, lambda: self.sent.get(self._name("main"), 0))
        self.pending = Pending(self._compose.plan)
        self._urgent = PageWriter(image.page_size)
        self._connection = 1
        self._delivered = False
        self._given = False  # the destination may run the guest
        self._bitmaps: set[str] = set()  # that came in this recovery
        self._resuming = False  # RESUME was sent in it
        self._answers: dict[type[Record], Callable[..., None]] = {
            rp.RpShut: self._on_shut,
            rp.RpPong: self._on_pong,
            rp.RpReqPagesId: self.pending.ask,
            rp.RpReqPages: self.pending.ask,
            rp.RpRecvBitmap: self._on_bitmap,
            rp.RpResumeAck: self._on_resume_ack,
            rp.RpSwitchoverAck: self._on_switchover_ack,
        }
        self._connect()
        self._steps: Iterator[Output | Wait] = self._script()
        self._held: Output | Wait | None = None

    def _connect(self) -> None:
        self._path = rp.ReturnPathReceiver()
        self._sender = LegacySender(headerless=self._connection > 1)
        #: whether the return path may be read on
        self.hungry = self.settings.return_path

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself: completed, failed, or paused."""
        return self.phase in RESTING

    @property
    def requests_served(self) -> int:
        """Host pages that were sent because the destination asked for them."""
        return self.pending.served

    def waiting_for(self) -> str:
        """What has to come before anything more can be sent; empty if that is up to the channels."""
        if self.ended:
            return ""
        if isinstance(self._held, Wait):
            return "" if self._held.over() else self._held.what
        waits = self.phase is SourcePhase.POSTCOPY and self._waits_for_requests()
        return "page requests on the return path" if waits and not self.pending.asked else ""

    def _waits_for_requests(self) -> bool:
        return self.pending.served < self.settings.background_after and bool(self.pending)

    # -- outputs ------------------------------------------------------------------------------------------

    def next_output(self, ready: Container[str]) -> Output | None:
        """The next output that a channel in `ready` can take; None: there is none now.

        Raises `RemoteProtocolError` for answers that could not be looked at before."""
        self._settle()
        while not self.ended:
            if self._held is None:
                self._held = next(self._steps, None)
            held = self._held
            if held is None:  # between pages of postcopy
                if self.phase is not SourcePhase.POSTCOPY or not self._next_pages(ready):
                    return None
            elif isinstance(held, Wait):
                if not held.over():
                    return None
                self._held = None
            elif isinstance(held, Connect) or held.channel in ready:
                self._held = None
                return held
            else:
                return self._beside(held, ready)
        return None

    # -- the order of things ------------------------------------------------------------------------------

    def _script(self) -> Iterator[Output | Wait]:
        settings, compose = self.settings, self._compose
        yield Connect("main")
        for number in range(compose.multifd.channels):
            yield Connect(compose.multifd.name(number))
            yield from self._send([compose.multifd.hello(number)])
        if settings.postcopy_preempt and settings.preempt_pre_7_2:
            yield Connect("preempt")
        yield from self._send(compose.opening())
        yield from self._send(compose.setup())
        self._move(Step.SETUP_SENT)
        yield from self._send(compose.precopy())
        if settings.switchover_ack and settings.switchover_ack_legacy:
            yield Wait("SWITCHOVER_ACK on the return path", lambda: self.switchover_acks > 0)
        if settings.postcopy is Postcopy.STARTED:
            yield from self._switch_to_postcopy()
            return
        self._move(Step.RAM_SENT)
        yield from self._send(compose.switchover())
        yield from self._finish(compose.description())

    def _switch_to_postcopy(self) -> Iterator[Output | Wait]:
        settings, compose = self.settings, self._compose
        if settings.postcopy_preempt and not settings.preempt_pre_7_2:
            yield Wait("PONG 1 on the return path", lambda: PING_OPENING in self.pongs)
            yield Connect("preempt")
        self._move(Step.RAM_SENT)
        yield from self._send(compose.before_package())
        self.pending.plan()
        yield Send(*self._counted("main", self._package()))
        self._given = True
        yield from self._send(compose.after_package())
        self._move(Step.PACKAGE_SENT)

    def _package(self) -> bytes:
        """PACKAGED and what is in it."""
        content = [event for inner in self._compose.package() for event in self._changed("main", inner)]
        if self.settings.change is None:
            return self._sender.send_package(content)
        inside = b"".join(event.encode() for event in content)
        command = self._changed("main", Packaged(size_of_package=len(inside)))
        return b"".join(event.encode() for event in command) + inside

    def _next_pages(self, ready: Container[str]) -> bool:
        """Sets the steps that send the next pages, or that end it all; False: no channel takes any."""
        apart = self.settings.postcopy_preempt
        if self._name("preempt" if apart else "main") in ready:
            asked = self._asked_for()
            if asked is not None:
                self._steps = self._pages(asked, urgent=apart)
                return True
        if self._name("main") not in ready:
            return False
        if self._waits_for_requests():
            return False
        left = self.pending.background(self.settings.postcopy_chunk)
        self._steps = self._end_of_postcopy() if left is None else self._pages(left, urgent=False)
        return True

    def _asked_for(self) -> Pages | None:
        """The next pages that the destination waits for."""
        found = None
        while found is None and self.pending.asked:
            found = self.pending.urgent(self.settings.postcopy_chunk)
            self._settle()  # there is room for further requests
        return found

    def _beside(self, held: Send | End, ready: Container[str]) -> Output | None:
        """While main is busy with what was `held`, urgent pages have a way of their own."""
        preempt = self._name("preempt")
        if self.phase is not SourcePhase.POSTCOPY or held.channel == preempt or preempt not in ready:
            return None
        asked = self._asked_for()
        return next(self._pages(asked, urgent=True)) if asked is not None else None

    def _pages(self, pages: Pages, *, urgent: bool) -> Iterator[Send]:
        """One output with these pages, behind the packets of a sync point where there is one."""
        if urgent:
            records = self._compose.urgent_pages(*pages, self._urgent)
            outputs = list(self._send(("preempt", record) for record in records))
        else:
            outputs = list(self._send(self._compose.postcopy_pages(*pages)))
        name = self._name("preempt" if urgent else "main")
        yield from (output for output in outputs if output.channel != name)
        yield Send(name, b"".join(output.data for output in outputs if output.channel == name))

    def _end_of_postcopy(self) -> Iterator[Output | Wait]:
        yield from self._send(self._compose.postcopy_end())
        if self.settings.postcopy_preempt and self.settings.preempt_pre_7_2:
            yield from self._send([("preempt", RamEos())])
        yield from self._finish(())

    def _finish(self, behind: Iterable[Event]) -> Iterator[Output | Wait]:
        """EOF, what comes behind it, and the answer to it all."""
        self._move(Step.EOF_SENT)
        yield from self._send(self._compose.eof())
        yield from self._send(behind)
        if self.settings.return_path:
            yield Wait("SHUT on the return path", lambda: False)
        yield from (End(self._compose.multifd.name(n)) for n in range(self._compose.multifd.channels))
        yield End(self._name("main"))
        yield Wait("the channels to take all that was sent", lambda: self._delivered)
        self._move(Step.ALL_SENT)

    def _recovery(self) -> Iterator[Output | Wait]:
        compose = self._compose
        early = self.settings.postcopy_preempt and self.settings.preempt_pre_7_2
        yield Connect(self._name("main"))
        if early:
            yield Connect(self._name("preempt"))
        yield from self._send(compose.bitmaps_wanted())
        for block in compose.plan.blocks:
            name = block.idstr
            what = f"RECV_BITMAP of {name!a} on the return path"
            yield Wait(what, partial(self._bitmaps.__contains__, name))
        if self.settings.postcopy_preempt and not early:
            yield Connect(self._name("preempt"))
        self._resuming = True
        yield from self._send(compose.resume())
        yield Wait("RESUME_ACK on the return path", lambda: self.phase is not SourcePhase.RECOVERING)

    def resume(self) -> None:
        """Takes up a paused postcopy over new connections. Raises `LocalProtocolError` if not paused."""
        self._move(Step.RESUMED)
        self.error = ""
        self._connection += 1
        self._bitmaps.clear()
        self._resuming = False
        self._connect()
        self._urgent = PageWriter(self._image.page_size)
        self.pending.connected()
        self._held = None
        self._steps = self._recovery()

    def delivered(self) -> None:
        """The channels have taken all that was handed out, their ends included."""
        self._delivered = True

    def lost(self, why: str) -> None:
        """A connection broke. In postcopy the migration pauses; before, it has failed."""
        if not self.ended:
            self.error = why
            self._move(Step.CUT if self._destination_has_guest else Step.LOST)

    @property
    def _destination_has_guest(self) -> bool:
        return self.phase in _GIVEN or (self.phase is SourcePhase.FINISHING and self._given)

    # -- answers ------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes of the return path, `b""` for its end. They must stay unchanged until `hungry`.

        Raises `RemoteProtocolError` for what QEMU's source does not take; the migration has then failed, or
        is paused."""
        self.hungry = False
        self._path.receive_data(data)
        self._settle()
        if not data:
            self.lost("the destination closed the return path")

    def _settle(self) -> None:
        """Looks at answers while there is room for what they ask."""
        while not self.ended and not self.pending.full:
            try:
                event = self._path.next_event()
                if isinstance(event, Sentinel):
                    self.hungry = event is NEED_DATA and self.settings.return_path
                    return
                self._answered(event)
            except TruncatedStream as error:
                self.lost(f"the return path ends inside a message: {error.message}")
            except RemoteProtocolError as error:
                error.channel = self._name("rp")
                self.lost(str(error))
                raise
        self.hungry = False

    def _answered(self, event: Record) -> None:
        row = TRANSITIONS[self.phase]
        key: Step | type[Record] = type(event)
        if isinstance(event, rp.RpShut):
            key = Step.SHUT_BAD if event.value else Step.SHUT_GOOD
        if key not in row:
            rule = OUT_OF_PLACE.get(key, "LEG-RPM-003")
            raise _error(event, f"{type(event).__name__} during {self.phase.value}", rule)
        self._answers[type(event)](event)
        self.phase = row[key]

    def _on_shut(self, event: rp.RpShut) -> None:
        self.shut = event.value
        if event.value:
            self.error = f"the destination reports an error (SHUT {event.value})"

    def _on_pong(self, event: rp.RpPong) -> None:
        if len(self.pongs) < _MOST_PONGS:
            self.pongs.append(event.value)

    def _on_bitmap(self, event: rp.RpRecvBitmap) -> None:
        if event.block in self._bitmaps:
            raise _error(event, f"a second bitmap of {event.block!a}", "LEG-RPM-040")
        self.pending.received(event)
        self._bitmaps.add(event.block)

    def _on_resume_ack(self, event: rp.RpResumeAck) -> None:
        if event.value != 1:
            raise _error(event, f"RESUME_ACK {event.value}, expected 1", "LEG-RPM-050")
        if not self._resuming:
            raise _error(event, "RESUME_ACK before RESUME", "LEG-RPM-051")

    def _on_switchover_ack(self, event: rp.RpSwitchoverAck) -> None:
        if not self.settings.switchover_ack_legacy:
            raise _error(event, "an acknowledgement that nobody asked for", "LEG-RPM-063")
        self.switchover_acks += 1

    # -- bytes --------------------------------------------------------------------------------------------

    def _move(self, step: Step) -> None:
        row = TRANSITIONS[self.phase]
        if step not in row:
            raise LocalProtocolError(
                f"{step.value}: not possible in phase {self.phase.value}", requirement="LEG-PCP-001"
            )
        self.phase = row[step]

    def _name(self, channel: str) -> str:
        """The channel's name on the present connection."""
        return channel if self._connection == 1 else f"{channel}-{self._connection}"

    def _send(self, events: Iterable[Event]) -> Iterator[Send]:
        change = self.settings.change
        for channel, event in events:
            for changed in self._changed(channel, event):
                plain = change is None and channel == "main"
                data = self._sender.send(changed) if plain else changed.encode()
                if data:
                    yield Send(*self._counted(channel, data))

    def _changed(self, channel: str, event: Record) -> Iterable[Record]:
        change = self.settings.change
        return (event,) if change is None else change(channel, event)

    def _counted(self, channel: str, data: bytes) -> tuple[str, bytes]:
        name = self._name(channel)
        self.sent[name] = self.sent.get(name, 0) + len(data)
        return name, data


_GIVEN: Final = frozenset({SourcePhase.POSTCOPY, SourcePhase.RECOVERING})
#: PONGs that are remembered; a source sends five PINGs
_MOST_PONGS: Final = 1024


def _error(event: Record, why: str, requirement: str) -> RemoteProtocolError:
    return RemoteProtocolError(why, requirement=requirement, offset=event.offset, record=type(event).__name__)
