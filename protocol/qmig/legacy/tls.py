"""TLS: what can be seen of an encrypted channel from outside.

A channel with TLS begins with the handshake; everything behind it is ciphertext. The
records are listed, nothing in them is looked at. Source: RFC 5246 6.2, RFC 8446 5.1.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

from qmig._feed import Feed, Steps
from qmig._wire import Int8ub, Int16ub, Prefixed, Record, wire
from qmig.errors import LocalProtocolError, localised
from qmig.legacy.receiver import Channel
from qmig.legacy.state import StreamState

#: RFC 5246: 2^14 and at most 2048 of what encryption adds; TLS 1.3 allows less
MAX_LENGTH: Final = (1 << 14) + 2048


class TlsContentType(enum.IntEnum):
    """What a record carries; since TLS 1.3 everything encrypted says APPLICATION_DATA."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    HEARTBEAT = 24


_TYPES: Final = frozenset(TlsContentType)


class TlsRecord(Record):
    """One TLS record; its fragment is opaque."""

    requirement: ClassVar[str] = "LEG-CHN-020"
    content_type: int = wire(Int8ub, doc="`TlsContentType`")
    version: int = wire(Int16ub, doc="0x0301 to 0x0303 in practice; 1.3 writes 0x0303")
    fragment: bytes = wire(Prefixed(Int16ub, MAX_LENGTH), doc="`length`, and so many bytes")

    @property
    def length(self) -> int:
        """Bytes of the fragment."""
        return len(self.fragment)

    def validate(self) -> None:
        """Raises `LocalProtocolError` for what is no TLS record."""
        _check(self.content_type, self.version)


def _check(content_type: int, version: int) -> None:
    if content_type not in _TYPES:
        raise LocalProtocolError(f"TLS content type {content_type}", requirement="LEG-CHN-020")
    if version >> 8 != 3:
        raise LocalProtocolError(f"TLS version {version:#06x}", requirement="LEG-CHN-020")


def _records(feed: Feed) -> Steps[None]:
    while not (yield from feed.at_end()):
        feed.expect("TlsRecord", TlsRecord.requirement)
        view = yield from feed.need(3)  # enough to see that it is none
        try:
            _check(view[0], int.from_bytes(view[1:], "big"))
        except LocalProtocolError as error:
            raise localised(error, offset=feed.offset, record="TlsRecord") from None
        yield (yield from feed.read(TlsRecord))


class TlsReceiver(Channel):
    """Lists the TLS records of one direction of an encrypted channel.

    `offset` is the absolute offset of the first byte given."""

    def __init__(self, state: StreamState | None = None, *, offset: int = 0) -> None:
        self.state = state or StreamState()
        feed = Feed(offset)
        super().__init__(feed, _records(feed))
