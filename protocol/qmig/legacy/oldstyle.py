"""Bodies of FULL sections that a handler writes by hand, without VMState.

The vmdesc shows each of them as one field `data` of type `buffer`, with its length.
`PARSERS` names those with a known layout; `self_delimiting` says which of them tell
their own end, which helps where no vmdesc does. `OPAQUE` names those that are known
and belong to somebody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmig._feed import Feed, Steps
from qmig._wire import NeedBytes, Raw, Record
from qmig.errors import RemoteProtocolError
from qmig.legacy.s390 import storage_keys, tod_clock
from qmig.legacy.vfio import full_body

Parser = Callable[[Feed], Steps[None]]

#: idstr -> parser that knows its end
PARSERS: Final[dict[str, Parser]] = {"s390-skeys": storage_keys, "todclock": tod_clock}
#: last part of the idstr, for devices with a qdev path -> parser that must be given the body's end
SUFFIX_PARSERS: Final[dict[str, Parser]] = {"vfio": full_body}
#: idstr -> whose format it is
OPAQUE: Final[dict[str, str]] = {"slirp": "state of libslirp, in that library's own format and version"}


def decode_body(idstr: str, data: Raw, *, offset: int = 0) -> list[Record] | None:
    """The records of a whole body, None if no parser knows this handler.

    `offset` is the body's absolute offset in its channel. Raises `RemoteProtocolError`
    where the bytes are not of the layout, or go on behind its end."""
    parser = PARSERS.get(idstr) or SUFFIX_PARSERS.get(idstr.rpartition("/")[2])
    if parser is None:
        return None
    feed = Feed(offset)
    feed.give(data)
    feed.eof = True
    records = [record for record in parser(feed) if record is not None]
    if feed.available:
        raise RemoteProtocolError(
            f"{feed.available} bytes behind the end of {idstr!a}",
            requirement="LEG-OTH-010",
            offset=feed.offset,
            record="DeviceState",
        )
    return records


def self_delimiting(idstr: str, view: memoryview) -> int | None:
    """Length of the body at the start of `view`, None if its handler does not tell.

    Raises `NeedBytes` while the body is longer than `view`, `RemoteProtocolError` where
    the bytes are not of the layout; offsets count from the start of `view`."""
    parser = PARSERS.get(idstr)
    if parser is None:
        return None
    feed = Feed()
    if view:  # an empty chunk would be the end of input
        feed.give(view)
    for record in parser(feed):
        if record is None:
            raise NeedBytes(len(view) + 1)
    return feed.offset
