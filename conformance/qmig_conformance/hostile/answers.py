"""What a destination says on its return path, held to what was sent: pure functions of both.

Each raises `Unmet` for the first thing that is not as its statement says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qmig import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy.commands import Ping, PostcopyResume, RecvBitmap
from qmig.legacy.returnpath import (
    ReturnPathReceiver,
    RpPong,
    RpRecvBitmap,
    RpReqPages,
    RpReqPagesId,
    RpResumeAck,
    RpShut,
)
from qmig.legacy.state import RamBlock
from qmig_conformance.case import Unmet
from qmig_conformance.hostile.script import Script


def messages(data: bytes) -> list[Any]:
    """All messages, which are whole, of known numbers and of the right lengths."""
    receiver = ReturnPathReceiver()
    receiver.receive_data(data)
    found: list[Record] = []
    ended = False
    try:
        while True:
            event = receiver.next_event()
            if isinstance(event, Record):
                found.append(event)
            elif ended:
                return found
            else:
                receiver.receive_data(b"")
                ended = True
    except RemoteProtocolError as error:
        raise Unmet(expected="messages that can be read", actual=str(error)) from None


def of(kind: type[Record], answers: Iterable[Any]) -> list[Any]:
    return [message for message in answers if type(message) is kind]


def pongs(script: Script, answers: Sequence[Any], start: int = 0) -> None:
    """One PONG for each PING of main, with its value."""
    asked = Counter(script.record(place).value for place in script.places(Ping, start))
    told = Counter(message.value for message in of(RpPong, answers))
    if asked != told:
        raise Unmet(expected=f"PONGs {sorted(asked.elements())}", actual=f"{sorted(told.elements())}")


def ends(answers: Sequence[Any], value: int | None) -> None:
    """One SHUT of this value, as the last message; None: no SHUT."""
    shuts = [message.value for message in of(RpShut, answers)]
    wanted = [] if value is None else [value]
    if shuts != wanted:
        raise Unmet(expected=f"SHUT {wanted}", actual=f"SHUT {shuts}")
    if wanted and not isinstance(answers[-1], RpShut):
        raise Unmet(expected="SHUT as the last message", actual=f"{answers[-1]!r} behind it")


def nothing_else(answers: Sequence[Any], *kinds: type[Record]) -> None:
    """Messages of these kinds only."""
    for message in answers:
        if not isinstance(message, kinds):
            raise Unmet(expected=" and ".join(kind.__name__ for kind in kinds), actual=f"{message!r}")


def requests(blocks: Mapping[str, RamBlock], answers: Sequence[Any], page_size: int) -> None:
    """Page requests name a block first, and ask for whole pages that are inside of it."""
    block: RamBlock | None = None
    for message in answers:
        if isinstance(message, RpReqPagesId):
            block = blocks.get(message.block)
            if block is None:
                raise Unmet(expected="a block of the list", actual=f"{message!r}")
        if isinstance(message, RpReqPagesId | RpReqPages):
            if block is None:
                raise Unmet(expected="REQ_PAGES_ID before any REQ_PAGES", actual=f"{message!r}")
            size = block.page_size or page_size
            inside = message.start + message.length <= block.used_length
            if message.length != size or message.start % size or not inside:
                raise Unmet(
                    expected=f"{size} bytes at a multiple of that, inside {block.used_length:#x}",
                    actual=f"{message!r}",
                )


def bitmaps(script: Script, blocks: Mapping[str, RamBlock], answers: Sequence[Any], page_size: int) -> None:
    """One RECV_BITMAP for each command, in its order, of the size that the block's pages make."""
    asked = [script.record(place).block for place in script.places(RecvBitmap)]
    told = of(RpRecvBitmap, answers)
    if [message.block for message in told] != asked:
        raise Unmet(
            expected=f"bitmaps of {', '.join(asked)}", actual=", ".join(message.block for message in told)
        )
    for message in told:
        pages = -(-blocks[message.block].used_length // page_size)
        size = -(-pages // 64) * 8
        if len(message.bitmap) != size:
            raise Unmet(
                expected=f"{size} bytes for {pages} pages of {message.block}",
                actual=f"{len(message.bitmap)} bytes",
            )


def resumed(script: Script, answers: Sequence[Any]) -> None:
    """RESUME is answered by RESUME_ACK 1, before any page is asked for."""
    wanted = len(list(script.places(PostcopyResume)))
    told = of(RpResumeAck, answers)
    if [message.value for message in told] != [1] * wanted:
        raise Unmet(expected=f"{wanted} RESUME_ACK of value 1", actual=f"{told!r}")
    first = next((m for m in answers if isinstance(m, RpReqPagesId | RpReqPages | RpResumeAck)), None)
    if wanted and not isinstance(first, RpResumeAck):
        raise Unmet(expected="RESUME_ACK before a page request", actual=f"{first!r}")
