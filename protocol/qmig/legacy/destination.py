"""What a destination answers: the story of a migration in, messages of its return paths out.

    incoming = Incoming(memory)
    while isinstance(told := session.next_event(), Told):
        incoming.take(told)                       # rebuilds RAM; raises for what must be refused
        for answer in incoming.answers():
            send(answer.connection, answer.message.encode())

Rule 1: PONG comes at once, SHUT once and last: 0 when everything was loaded (precopy: at EOF; postcopy: at
EOF, and not before all pages have come), 1 when the load was refused (LEG-RPM-010 to -012).
Rule 2: it ends completed, failed with a reason, or paused: a connection that breaks behind POSTCOPY_RUN can
be recovered over a new one, one that breaks before cannot (LEG-DST-084, LEG-DST-085).
Rule 3: what may follow what is a table. What it does not have is refused with the statement it violates.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn, cast

from qmig._wire import Record
from qmig.errors import LimitExceeded, RemoteProtocolError, UnsupportedFeature
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import (
    EnableColo,
    OpenReturnPath,
    Ping,
    PostcopyAdvise,
    PostcopyAdviseEmpty,
    PostcopyListen,
    PostcopyRamDiscard,
    PostcopyResume,
    PostcopyRun,
    RecvBitmap,
    UnknownCommand,
)
from qmig.legacy.connection import Told
from qmig.legacy.header import Configuration
from qmig.legacy.ram import (
    TARGET_PAGE_SIZES,
    RamBlockEntry,
    RamDeltas,
    RamEos,
    RamMemSize,
    RamMultifdFlush,
    RamPages,
    raw_name,
)
from qmig.legacy.rebuild import Rebuild
from qmig.legacy.returnpath import (
    RpPong,
    RpRecvBitmap,
    RpReqPages,
    RpReqPagesId,
    RpResumeAck,
    RpShut,
    RpSwitchoverAck,
)
from qmig.legacy.sections import EndOfFile
from qmig.legacy.vfio import VfioInitDataSent
from qmig.legacy.wanted import Request, WantedPages

#: host pages asked for at a time
IN_FLIGHT: Final = 16
#: the last version whose machine types have the old form of switchover-ack (LEG-RPM-061)
_LAST_LEGACY_ACK: Final = (11, 0)
_MACHINE_VERSION: Final = re.compile(r"-(\d+)\.(\d+)$")


class Phase(enum.Enum):
    """Where the destination stands, in the words of ``query-migrate``."""

    SETUP = "setup"
    ACTIVE = "active"
    DEVICE = "postcopy-device"
    POSTCOPY = "postcopy-active"
    PAUSED = "postcopy-paused"
    RECOVER = "postcopy-recover"
    COMPLETED = "completed"
    FAILED = "failed"


class Cause(enum.Enum):
    """What moves it."""

    BEGIN = "the first event"
    LISTEN = "POSTCOPY_LISTEN"
    RUN = "POSTCOPY_RUN"
    LOADED = "everything was loaded"
    BREAK = "a connection broke"
    RECOVER = "a new connection"
    RESUME = "POSTCOPY_RESUME"
    REFUSE = "the load was refused"
    STARVE = "the source ended before all pages were there"


TRANSITIONS: Final[dict[tuple[Phase, Cause], Phase]] = {
    (Phase.SETUP, Cause.BEGIN): Phase.ACTIVE,
    (Phase.SETUP, Cause.BREAK): Phase.FAILED,
    (Phase.SETUP, Cause.REFUSE): Phase.FAILED,
    (Phase.ACTIVE, Cause.LISTEN): Phase.DEVICE,
    (Phase.ACTIVE, Cause.LOADED): Phase.COMPLETED,
    (Phase.ACTIVE, Cause.BREAK): Phase.FAILED,
    (Phase.ACTIVE, Cause.REFUSE): Phase.FAILED,
    (Phase.DEVICE, Cause.RUN): Phase.POSTCOPY,
    (Phase.DEVICE, Cause.BREAK): Phase.FAILED,
    (Phase.DEVICE, Cause.REFUSE): Phase.FAILED,
    (Phase.POSTCOPY, Cause.LOADED): Phase.COMPLETED,
    (Phase.POSTCOPY, Cause.BREAK): Phase.PAUSED,
    # The guest runs here and nowhere else: what is wrong from now on costs the connection only.
    (Phase.POSTCOPY, Cause.REFUSE): Phase.PAUSED,
    (Phase.POSTCOPY, Cause.STARVE): Phase.FAILED,
    (Phase.PAUSED, Cause.RECOVER): Phase.RECOVER,
    (Phase.PAUSED, Cause.BREAK): Phase.PAUSED,
    # A recovery that goes wrong leaves everything as it was: there may be another one.
    (Phase.PAUSED, Cause.REFUSE): Phase.PAUSED,
    (Phase.RECOVER, Cause.RESUME): Phase.POSTCOPY,
    (Phase.RECOVER, Cause.BREAK): Phase.PAUSED,
    (Phase.RECOVER, Cause.REFUSE): Phase.PAUSED,
    (Phase.COMPLETED, Cause.BREAK): Phase.COMPLETED,
    (Phase.COMPLETED, Cause.REFUSE): Phase.COMPLETED,
    (Phase.FAILED, Cause.BREAK): Phase.FAILED,
    (Phase.FAILED, Cause.REFUSE): Phase.FAILED,
}

#: cause -> the statement on its place in the order
_ORDER: Final[dict[Cause, str]] = {
    Cause.LISTEN: "LEG-DST-064",
    Cause.RUN: "LEG-DST-064",
    Cause.LOADED: "LEG-PCP-022",
}


class Answer(NamedTuple):
    """A message for the return path of one connection (1, 2 after a first recovery, …)."""

    connection: int
    message: Record


class Incoming:
    """The destination of one migration. `memory` is rebuilt from what it takes.

    `switchover_ack` is this side's capability; which form it has follows from the machine type, unless
    `legacy_ack` says so. We have no device that takes its time, so it is agreed to at once. `postcopy_ram` is
    this side's capability as well; None: as the source has it. `in_flight` bounds the page requests under
    way, and may be changed; 0: none is made."""

    def __init__(
        self,
        memory: Rebuild,
        *,
        switchover_ack: bool = False,
        legacy_ack: bool | None = None,
        postcopy_ram: bool | None = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self.memory = memory
        self.phase = Phase.SETUP
        #: why it is paused or has failed
        self.reason = ""
        #: what a postcopy still waits for, from POSTCOPY_LISTEN on
        self.wanted: WantedPages | None = None
        #: page requests made, those made again counted
        self.requests = 0
        self._switchover_ack = switchover_ack
        self._legacy_ack = legacy_ack
        self._postcopy_ram = postcopy_ram
        self.in_flight = in_flight
        self._connection = 1
        self._returns = False
        self._shut = False
        self._host_pages: dict[str, int | None] = {}  # block -> page size of its entry in the list
        self._advised: PostcopyAdvise | PostcopyAdviseEmpty | None = None
        self._ended = False  # EOF was read
        self._urgent: set[str] = set()  # preempt channels that may still bring pages
        self._named: str | None = None  # the block that the last request named on this connection
        self._due: list[Record] = []

    @property
    def over(self) -> bool:
        """Whether it has completed or failed."""
        return self.phase in {Phase.COMPLETED, Phase.FAILED}

    @property
    def told_failure(self) -> bool:
        """Whether the source was told that the load has failed."""
        return self.phase is Phase.FAILED and self._shut

    def take(self, told: Told) -> None:
        """Takes one event of the story. Raises `RemoteProtocolError` for what a destination refuses;
        `refuse` says so to the source."""
        event = told.event
        kind = type(event)
        if self.phase is Phase.SETUP:
            self._move(Cause.BEGIN, event)
        elif self.phase is Phase.PAUSED:
            if parse_name(told.channel).connection == self._connection:
                return  # what was left of the connection that is lost
            self._recovered(told)
        elif self.phase is Phase.POSTCOPY and kind in _NOT_BEHIND_RUN:
            self._wrong(event, f"{kind.__name__} behind POSTCOPY_RUN", "LEG-DST-149")
        if kind is PostcopyRamDiscard:
            self._discard(event)
        if not self.over:  # what comes behind the end changes nothing
            self.memory.apply(told)
        if kind is RamPages or kind is RamDeltas:
            self._pages(event)
            return
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, told)

    def answers(self) -> list[Answer]:
        """What has to be sent now, in order; page requests are topped up."""
        if self.phase is Phase.POSTCOPY and self.wanted is not None and self._returns:
            for request in self.wanted.ask(self.in_flight):
                self._request(request)
        due, self._due = self._due, []
        return [Answer(self._connection, message) for message in due]

    def channel_opened(self, name: str) -> None:
        """A connection was made. Only preempt channels matter: pages may come on them behind main's EOF."""
        if parse_name(name).kind == "preempt":
            self._urgent.add(name)

    def channel_ended(self, name: str) -> None:
        """A channel came to its regular end."""
        self._urgent.discard(name)
        self._finish()

    def broken(self, reason: str) -> None:
        """The connection was lost, or cut on our side: all its channels are gone."""
        if self.phase is Phase.POSTCOPY and not isinstance(self._advised, PostcopyAdvise):
            self.reason = f"{reason}; postcopy of dirty bitmaps alone cannot be recovered"
            self._move(Cause.STARVE, None)
            self._say_shut(1)
            return
        moved = TRANSITIONS[self.phase, Cause.BREAK]
        if moved is not self.phase:
            self.reason = reason
        self.phase = moved
        self._urgent.clear()
        self._due.clear()
        self._ended = False

    def refuse(self, reason: str) -> None:
        """The load has failed. The source is told, if it can be told and does not know yet."""
        if self.phase is Phase.POSTCOPY:
            self.broken(reason)
            return
        if not self.over:
            self.reason = reason
        before, self.phase = self.phase, TRANSITIONS[self.phase, Cause.REFUSE]
        if self.phase is Phase.FAILED and before is not Phase.FAILED:
            self._say_shut(1)

    # -- what the story says ------------------------------------------------------------------------------

    def _recovered(self, told: Told) -> None:
        """The first event of a new connection."""
        self._connection = parse_name(told.channel).connection
        self._named = None
        self._move(Cause.RECOVER, told.event)

    def _pages(self, event: Record) -> None:
        if self.phase is Phase.RECOVER:
            self._wrong(event, "pages before POSTCOPY_RESUME", "LEG-PCP-042")
        if self.wanted is not None:
            if self.wanted.take(event) and self.phase is Phase.POSTCOPY:
                self._wrong(event, "a page that is there already", "LEG-DST-150")
            self._finish()

    def _configuration(self, told: Told) -> None:
        if self._legacy_ack is None:
            found = _MACHINE_VERSION.search(cast(Configuration, told.event).machine)
            self._legacy_ack = found is None or (int(found[1]), int(found[2])) <= _LAST_LEGACY_ACK

    def _open_return_path(self, told: Told) -> None:
        if not self._returns and self._switchover_ack and self._legacy_ack is not False:
            self._due.append(RpSwitchoverAck())
        self._returns = True

    def _agreed(self, told: Told) -> None:
        if self._returns and self._switchover_ack and self._legacy_ack is False:
            self._due.append(RpSwitchoverAck())

    def _ping(self, told: Told) -> None:
        if not self._returns:
            self._wrong(told.event, "PING without a return path", "LEG-DST-062")
        if not self._shut:
            self._due.append(RpPong(value=cast(Ping, told.event).value))

    def _listed(self, told: Told) -> None:
        entry = cast(RamBlockEntry, told.event)
        self._host_pages.setdefault(entry.idstr, entry.page_size)

    def _advise(self, told: Told) -> None:
        if self._advised is not None:
            self._wrong(told.event, "a second POSTCOPY_ADVISE", "LEG-DST-123")
        full = isinstance(told.event, PostcopyAdvise)
        if self._postcopy_ram is False and full:
            self._wrong(told.event, "POSTCOPY_ADVISE of RAM, and postcopy-ram is off here", "LEG-DST-063")
        if self._postcopy_ram and not full:
            self._wrong(told.event, "an empty POSTCOPY_ADVISE, and postcopy-ram is on here", "LEG-DST-122")
        self._advised = cast("PostcopyAdvise | PostcopyAdviseEmpty", told.event)

    def _discard(self, event: Record) -> None:
        if self.phase is not Phase.ACTIVE or not isinstance(self._advised, PostcopyAdvise):
            self._wrong(event, f"POSTCOPY_RAM_DISCARD in phase {self.phase.value}", "LEG-DST-064")
        discard = cast(PostcopyRamDiscard, event)
        if not discard.ranges:
            self._wrong(event, "POSTCOPY_RAM_DISCARD without a range", "LEG-DST-125")
        if discard.block not in self._host_pages:
            self._wrong(event, f"POSTCOPY_RAM_DISCARD of unknown RAM block {discard.block!a}", "LEG-DST-126")
        page = self._advised.target_page_size
        if any((start | length) % page for start, length in discard.ranges):
            self._wrong(event, "POSTCOPY_RAM_DISCARD of a range that is not of whole pages", "LEG-DST-126")

    def _unknown(self, told: Told) -> None:
        command = cast(UnknownCommand, told.event).command
        self._wrong(told.event, f"unknown command {command}", "LEG-DST-060")

    def _listen(self, told: Told) -> None:
        if self._advised is None:
            self._wrong(told.event, "POSTCOPY_LISTEN without POSTCOPY_ADVISE", "LEG-DST-064")
        self._move(Cause.LISTEN, told.event)
        if isinstance(self._advised, PostcopyAdvise):
            self._want(told.event, self._advised)

    def _want(self, event: Record, advised: PostcopyAdvise) -> None:
        """Works out what has still to come."""
        sizes, page_size = advised.page_sizes, advised.target_page_size
        # Blocks of the host's ordinary page size say nothing; it is the smallest of all.
        host_pages = {name: size or sizes & -sizes for name, size in self._host_pages.items()}
        if page_size not in TARGET_PAGE_SIZES or any(
            size % page_size or not size for size in host_pages.values()
        ):
            self._wrong(event, f"page sizes {sizes:#x} with target pages of {page_size} bytes", "LEG-DST-063")
        self.wanted = WantedPages(self.memory.image.blocks, host_pages, page_size)
        if self.wanted.exceeded:
            raise LimitExceeded(
                "more RAM than whose pages are told apart in postcopy",
                requirement="LEG-PCP-031", offset=event.offset, record=type(event).__name__,
            )  # fmt: skip

    def _run(self, told: Told) -> None:
        self._move(Cause.RUN, told.event)
        self._finish()

    def _recv_bitmap(self, told: Told) -> None:
        name = cast(RecvBitmap, told.event).block
        if self._host_pages and name not in self._host_pages:
            self._wrong(told.event, f"RECV_BITMAP of unknown RAM block {name!a}", "LEG-DST-129")
        if self.phase is not Phase.RECOVER or self.wanted is None:
            return  # LEG-DST-066
        bitmap = self.wanted.bitmap(name)
        self._due.append(RpRecvBitmap(header_len=1 + len(raw_name(name)), block=name, bitmap=bitmap))

    def _resume(self, told: Told) -> None:
        if self.phase is not Phase.RECOVER or self.wanted is None:
            return  # LEG-DST-065
        self._move(Cause.RESUME, told.event)
        self.reason = ""
        self._due.append(RpResumeAck(value=1))
        for request in self.wanted.again():
            self._request(request)

    def _colo(self, told: Told) -> None:
        raise UnsupportedFeature(
            "COLO", requirement="LEG-DST-068", offset=told.event.offset, record="EnableColo"
        )

    def _eos(self, told: Told) -> None:
        if told.channel in self._urgent:
            self.channel_ended(told.channel)

    def _end_of_file(self, told: Told) -> None:
        self._ended = True
        if self.phase is Phase.POSTCOPY and self.wanted is not None:
            self._finish()
        else:
            # The description may still be on its way: the source waits for this answer behind it.
            self._load(told.event)

    # -- what follows from it -----------------------------------------------------------------------------

    def _finish(self) -> None:
        """Ends a postcopy when nothing is missing, or nothing more can come."""
        if not self._ended or self.phase is not Phase.POSTCOPY or self.wanted is None:
            return
        if not self.wanted.left:
            self._load(None)
        elif not self._urgent:
            self.reason = f"the source came to its end, and pages are missing: {self.wanted.summary()}"
            self._move(Cause.STARVE, None)
            self._say_shut(1)

    def _load(self, event: Record | None) -> None:
        self._move(Cause.LOADED, event)
        self._say_shut(0)

    def _say_shut(self, value: int) -> None:
        if self._returns and not self._shut:
            self._shut = True
            self._due.append(RpShut(value=value))

    def _request(self, request: Request) -> None:
        self.requests += 1
        name, start, length = request
        if name == self._named:
            self._due.append(RpReqPages(start=start, length=length))
            return
        self._named = name
        self._due.append(
            RpReqPagesId(header_len=13 + len(raw_name(name)), start=start, length=length, block=name)
        )

    def _move(self, cause: Cause, event: Record | None) -> None:
        moved = TRANSITIONS.get((self.phase, cause))
        if moved is None:
            assert event is not None
            self._wrong(event, f"{cause.value} in phase {self.phase.value}", _ORDER[cause])
        self.phase = moved

    def _wrong(self, event: Record, message: str, requirement: str) -> NoReturn:
        raise RemoteProtocolError(
            message, requirement=requirement, offset=event.offset, record=type(event).__name__
        )


_HANDLERS: Final[dict[type[Record], Callable[[Incoming, Told], None]]] = {
    Configuration: Incoming._configuration,  # noqa: SLF001
    OpenReturnPath: Incoming._open_return_path,  # noqa: SLF001
    VfioInitDataSent: Incoming._agreed,  # noqa: SLF001
    Ping: Incoming._ping,  # noqa: SLF001
    PostcopyAdvise: Incoming._advise,  # noqa: SLF001
    PostcopyAdviseEmpty: Incoming._advise,  # noqa: SLF001
    PostcopyListen: Incoming._listen,  # noqa: SLF001
    PostcopyRun: Incoming._run,  # noqa: SLF001
    RecvBitmap: Incoming._recv_bitmap,  # noqa: SLF001
    PostcopyResume: Incoming._resume,  # noqa: SLF001
    EnableColo: Incoming._colo,  # noqa: SLF001
    RamBlockEntry: Incoming._listed,  # noqa: SLF001
    RamEos: Incoming._eos,  # noqa: SLF001
    EndOfFile: Incoming._end_of_file,  # noqa: SLF001
    UnknownCommand: Incoming._unknown,  # noqa: SLF001
}
#: what has no place in a stream whose guest runs at the destination already
_NOT_BEHIND_RUN: Final = frozenset({RamDeltas, RamMultifdFlush, RamMemSize, RamBlockEntry})
