"""RAM out of a whole session: `RamImage` plus what multifd channels carry.

    memory = Rebuild(open_block)
    while isinstance(told := session.next_event(), Told):
        memory.apply(told)

A payload of a method that cannot be undone here raises `UnsupportedFeature`, once per
channel; its pages are then missing, the rest goes on.
"""

from __future__ import annotations

from qmig.errors import LocalProtocolError, RemoteProtocolError, localised
from qmig.legacy.connection import Told
from qmig.legacy.inflate import Inflater
from qmig.legacy.multifd import MultifdPacket
from qmig.legacy.ramimage import OpenBlock, RamImage


class Rebuild:
    """Applies a session's story to memory."""

    def __init__(self, open_block: OpenBlock) -> None:
        self.image = RamImage(open_block)
        self._inflaters: dict[str, Inflater | None] = {}  # None: gave up

    def apply(self, told: Told) -> None:
        """Applies one event. Raises `RemoteProtocolError` for content that makes no pages, or pages of a
        block that main has not listed."""
        event = told.event
        if not isinstance(event, MultifdPacket):
            self.image.apply(event, told.channel)
            return
        try:
            self._packet(told, event)
        except LocalProtocolError as error:  # main has ended before its block list
            raise localised(error, offset=event.offset, record="MultifdPacket") from None

    def _packet(self, told: Told, event: MultifdPacket) -> None:
        if event.zero_pages:
            self.image.apply_zero(event.block, event.zero_offsets(), event.page_size, turn=told.round)
        inflater = self._inflaters.setdefault(told.channel, Inflater())
        if event.normal_pages and inflater is not None:
            try:
                data = inflater.pages(event)
            except RemoteProtocolError as error:
                self._inflaters[told.channel] = None
                error.channel = told.channel
                raise
            self.image.apply_pages(event.block, event.normal_offsets(), data, turn=told.round)
