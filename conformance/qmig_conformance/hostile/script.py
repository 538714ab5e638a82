"""A channel in pieces, one per record, to change some of them.

    script = Script.main(good.channels["main"])
    place = script.find(SectionFooter)
    script.write(place, b"\x7f" + script[place].data[1:]).data()

Rule 1: a script is immutable; every change gives a new one, and the places of the pieces behind it are those
of the new one.
Rule 2: what is not changed stays byte for byte. Only the size of a package follows its content, unless the
PACKAGED command itself was written by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from qmig import LegacyReceiver, Record, StreamState
from qmig.legacy.commands import Packaged, PackageEnd
from qmig.legacy.multifd import MultifdReceiver
from qmig.legacy.preempt import PreemptReceiver
from qmig.legacy.ram import RamFlag, RamPage, RamPages, RamZeroPage
from qmig.legacy.receiver import Channel
from qmig.legacy.sections import SectionEnd, SectionFooter, SectionFull, SectionPart, SectionStart

OPENINGS: tuple[type[Record], ...] = (SectionStart, SectionPart, SectionEnd, SectionFull)


@dataclass(frozen=True, slots=True)
class Piece:
    """One record's bytes; `record` is None for bytes that were put there by hand."""

    record: Record | None
    data: bytes = field(repr=False)


class Absent(LookupError):
    """The stream has no such record."""


class Script:
    """The pieces of one channel. `state` is what was learnt while it was read."""

    __slots__ = ("pieces", "state")

    def __init__(self, pieces: tuple[Piece, ...], state: StreamState) -> None:
        self.pieces = pieces
        self.state = state

    @classmethod
    def main(
        cls, data: bytes, *, state: StreamState | None = None, headerless: bool = False, offset: int = 0
    ) -> Script:
        """A main channel. `offset`: bytes of a file before it, which become a piece of their own."""
        if state is None and not headerless:
            return _read_main(data, offset)
        receiver = LegacyReceiver(state, headerless=headerless, offset=offset)
        return cls.read(receiver, data, offset, receiver.state)

    @classmethod
    def multifd(cls, data: bytes, state: StreamState) -> Script:
        """A multifd channel; `state` is that of its main channel."""
        return cls.read(MultifdReceiver(state), data, 0, state)

    @classmethod
    def preempt(cls, data: bytes, state: StreamState) -> Script:
        """A preempt channel; `state` is that of its main channel."""
        return cls.read(PreemptReceiver(state), data, 0, state)

    @classmethod
    def read(cls, receiver: Channel, data: bytes, offset: int, state: StreamState) -> Script:
        """What a reader makes of a channel."""
        pieces = [Piece(None, data[:offset])] if offset else []
        receiver.receive_data(memoryview(data)[offset:])
        ended = False
        while True:
            event = receiver.next_event()
            if isinstance(event, Record):
                pieces.append(Piece(event, bytes(data[event.offset : event.offset + event.size])))
            elif ended:
                return cls(tuple(pieces), state)
            else:
                receiver.receive_data(b"")
                ended = True

    # -- looking ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, place: int) -> Piece:
        return self.pieces[place]

    def places(self, kind: type[Record], start: int = 0, **values: Any) -> Iterator[int]:
        """Where the records of this kind with these values stand, from `start` on."""
        for place in range(start, len(self.pieces)):
            record = self.pieces[place].record
            if type(record) is kind and all(getattr(record, key) == value for key, value in values.items()):
                yield place

    def find(self, kind: type[Record], number: int = 0, start: int = 0, **values: Any) -> int:
        """The place of the `number`-th of them, negative from the end. Raises `Absent`."""
        found = list(self.places(kind, start, **values))
        try:
            return found[number]
        except IndexError:
            raise Absent(f"no {kind.__name__} {values or ''} in this stream") from None

    def has(self, kind: type[Record], **values: Any) -> bool:
        return next(self.places(kind, **values), None) is not None

    def record(self, place: int) -> Any:
        """The record there, of whatever kind."""
        return self.pieces[place].record

    def section(self, place: int) -> tuple[int, int]:
        """The section that opens at `place`: its place, and the place behind its footer."""
        stop = place + 1
        while stop < len(self.pieces):
            record = self.pieces[stop].record
            if isinstance(record, SectionFooter):
                return place, stop + 1
            if isinstance(record, OPENINGS):
                return place, stop
            stop += 1
        return place, stop

    def offset(self, place: int) -> int:
        """Bytes before the piece."""
        return len(self.before(place))

    # -- bytes --------------------------------------------------------------------------------------------

    def data(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of all pieces, or of those from `start` up to `stop`."""
        return b"".join(piece.data for piece in self._sized()[start:stop])

    def before(self, place: int, extra: int = 0) -> bytes:
        """The bytes before a piece, and `extra` bytes of it; a package keeps its whole size."""
        whole = self._sized()
        return b"".join(p.data for p in whole[:place]) + (whole[place].data[:extra] if extra else b"")

    def _sized(self) -> list[Piece]:
        found: list[Piece] = []
        open_: list[int] = []
        for piece in self.pieces:
            if isinstance(piece.record, PackageEnd) and open_:
                start = open_.pop()
                size = sum(len(inner.data) for inner in found[start + 1 :])
                packaged = Packaged(size_of_package=size)
                found[start] = Piece(packaged, packaged.encode())
            elif isinstance(piece.record, Packaged):
                open_.append(len(found))
            found.append(piece)
        return found

    # -- changing -----------------------------------------------------------------------------------------

    def _with(self, start: int, stop: int, new: tuple[Piece, ...]) -> Script:
        return Script((*self.pieces[:start], *new, *self.pieces[stop:]), self.state)

    def put(self, place: int, *new: bytes | Record) -> Script:
        """Puts bytes or records before a piece."""
        return self._with(place, place, tuple(map(piece_of, new)))

    def write(self, place: int, *new: bytes | Record) -> Script:
        """Puts bytes or records in place of a piece."""
        return self._with(place, place + 1, tuple(map(piece_of, new)))

    def change(self, place: int, **values: Any) -> Script:
        """Gives the record there other values."""
        record = self.record(place)
        new = type(record)(**{**record.values(), **values})
        return self._with(place, place + 1, (Piece(new, new.encode()),))

    def drop(self, start: int, stop: int | None = None) -> Script:
        """Leaves pieces out."""
        return self._with(start, start + 1 if stop is None else stop, ())

    def swap(self, first: tuple[int, int], second: tuple[int, int]) -> Script:
        """Exchanges two ranges of pieces; the first lies before the second."""
        (a, b), (c, d) = first, second
        p = self.pieces
        return Script((*p[:a], *p[c:d], *p[b:c], *p[a:b], *p[d:]), self.state)

    def move(self, start: int, stop: int, to: int) -> Script:
        """Moves pieces to an earlier place."""
        p = self.pieces
        return Script((*p[:to], *p[start:stop], *p[to:start], *p[stop:]), self.state)

    def single(self, place: int, number: int = 0) -> Script:
        """Makes the `number`-th page record of the batch there a piece of its own; its place is then
        `place + 1`, or `place` for the first."""
        batch = self.record(place)
        data = self.pieces[place].data
        at = 0
        for _ in range(number):
            at += _page_size(data[at:], batch)
        size = _page_size(data[at:], batch)
        page = _page(data[at : at + size])
        around = [Piece(batch, data[:at]), page, Piece(batch, data[at + size :])]
        return self._with(place, place + 1, tuple(piece for piece in around if piece.data))


@functools.lru_cache(maxsize=4)
def _read_main(data: bytes, offset: int) -> Script:
    """Many streams are made of one good one."""
    receiver = LegacyReceiver(offset=offset)
    return Script.read(receiver, data, offset, receiver.state)


def piece_of(new: bytes | Record) -> Piece:
    """A piece of bytes, or of a record that can be encoded."""
    return Piece(None, new) if isinstance(new, bytes) else Piece(new, new.encode())


def _page_size(data: bytes, batch: RamPages) -> int:
    word = int.from_bytes(data[:8], "big")
    name = 0 if word & RamFlag.CONTINUE else 1 + data[8]
    return 8 + name + (1 if word & RamFlag.ZERO else batch.page_size)


def _page(data: bytes) -> Piece:
    word = int.from_bytes(data[:8], "big")
    kind = RamZeroPage if word & RamFlag.ZERO else RamPage
    record, _ = kind.decode(memoryview(data), () if word & RamFlag.CONTINUE else {"named"})
    return Piece(record, data)
