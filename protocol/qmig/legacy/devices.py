"""Where the state of a device ends: SECTION_FULL has no length.

Rule 1: a schema (given, or the stream's own vmdesc) proposes, the bytes behind confirm.
Rule 2: the vmdesc comes last, so without a given schema everything from the first
device on is held, up to `limits.DEVICE_STATE`, until it has come.
Rule 3: without any schema, two handlers that are no VMState tell their end themselves
(`boundary="built-in"`).
Rule 4: else the end is inferred from the footer and a record behind it, and every such body
says so (`boundary="footer"`). State may hold what looks like its own footer: five bytes, of
which four are mostly zero. So the record behind is looked at as far as its head goes
(`_follows`); what only begins with a good byte is taken when there is nothing better.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import NeedBytes
from qmig.errors import RemoteProtocolError, UnsupportedFeature
from qmig.legacy.commands import COMMANDS
from qmig.legacy.sections import DeviceState, SectionFull, SectionType, UnreadState
from qmig.legacy.state import Schema, StreamState
from qmig.legacy.vmstate.schema import schema_from_vmdesc

#: EOF, VMDESCRIPTION, length, then JSON of an object
_DESCRIPTION: Final = re.compile(rb"\x00\x06(?=(....)\{[ \"}])", re.DOTALL)
#: byte patterns that look like a description and are none, before the search gives up
_DESCRIPTION_TRIES: Final = 64
#: bodies whose own layout is tried: a machine has one of each, and a failure may have read far
_LAYOUT_TRIES: Final = 64

#: a name as QEMU gives them
_IDSTR: Final = re.compile(rb"[\x20-\x7e]+")
#: bytes of payload: POSTCOPY_RAM_DISCARD has the most, 12 ranges of one block
_LONGEST_COMMAND: Final = 2 + 1 + 255 + 12 * 16

_FOLLOWERS: Final = frozenset(
    {
        SectionType.EOF,
        SectionType.SECTION_START,
        SectionType.SECTION_PART,
        SectionType.SECTION_END,
        SectionType.SECTION_FULL,
        SectionType.COMMAND,
    }
)

#: Looks for something in held bytes, of which the first `searched` are old; None: not there yet.
_Search = Callable[[memoryview, int], bool]


class DeviceReader:
    """Finds the bodies of SECTION_FULL in one feed."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.state = state
        self._looked = False  # for the stream's own description
        self._tries = 0
        self._resume = 0  # where an unfinished description may begin
        self._length = 0
        self._boundary = ""
        self._undecided = 0  # where a footer was seen that more bytes have to confirm
        self._loose: int | None = None  # the first that only a good byte follows
        self._layouts = 0  # bodies tried by their own layout

    def body(self, section: SectionFull, *, early: bool) -> Steps[DeviceState]:
        """The state behind this header, found by the best means there is. `early` says
        that RAM follows, so that the description is far away."""
        feed = self.feed
        feed.expect(f"device state of {section.idstr!a}", DeviceState.requirement)
        if self.state.schema is None and not early and not self._looked:
            yield from self._hold(self._described)
            self._looked = True
        found = yield from self._by_schema(section)
        if not found and self.state.schema is None and not early:
            found = self._by_layout(section)
        if not found:
            if self.state.footers is False:
                yield from self._give_up(section)
            yield from self._hold(lambda held, searched: self._footer(held, searched, section))
            if not self._boundary:
                raise feed.truncated(feed.available + 1)
        start, boundary = feed.offset, self._boundary
        data = yield from feed.take(self._length)
        self._boundary = ""
        record = DeviceState(section_id=section.section_id, boundary=boundary, data=data)
        return record.place(start, len(data))

    def _give_up(self, section: SectionFull) -> Steps[None]:
        """Delivers all the rest unread, then says why."""
        feed, start = self.feed, self.feed.offset
        while not (yield from feed.at_end()):
            at, data = feed.offset, feed.drain()
            yield UnreadState(data=data).place(at, len(data))
        raise UnsupportedFeature(
            f"device state of {section.idstr!a} has neither description nor footer: its end, and all behind "
            "it, cannot be known without a schema (a stream of this machine with description, or its "
            "-dump-vmstate)",
            requirement=DeviceState.requirement,
            offset=start,
            record="DeviceState",
        )

    def _hold(self, search: _Search) -> Steps[None]:
        """Gathers bytes until `search` succeeds or the input ends; none is consumed."""
        feed = self.feed
        if search(feed.window(), 0):
            return
        held = bytearray()
        searched = len(feed.window())
        while True:
            held += feed.drain()
            if len(held) > limits.DEVICE_STATE:
                raise feed.limit(f"no end within {limits.DEVICE_STATE} bytes of device state")
            view = memoryview(held)
            found = search(view, searched)
            searched = len(held)
            view.release()
            if found or feed.eof:
                break
            yield None
        feed.unread(memoryview(bytes(held)))

    def _described(self, held: memoryview, searched: int) -> bool:
        """Whether a vmdesc is complete in `held`; then it becomes the schema."""
        self._resume = min(self._resume, max(0, searched - 8))
        resume = len(held)
        for found in _DESCRIPTION.finditer(held, self._resume):
            size = int.from_bytes(found[1], "big")
            end = found.end() + 4 + size
            if size > limits.VMDESC or self._tries >= _DESCRIPTION_TRIES:
                continue
            if end > len(held):  # its rest may still come
                resume = min(resume, found.start())
            elif end > searched:  # not tried before
                self._tries += 1
                schema = schema_from_vmdesc(bytes(held[end - size : end]))
                if schema is not None:
                    self.state.schema = schema
                    return True
        self._resume = resume
        return False

    def _by_schema(self, section: SectionFull) -> Steps[bool]:
        """Sets the length that the schema proposes and the bytes behind confirm."""
        schema = self.state.schema
        while schema is not None:
            try:
                found = self._proposed(schema, section)
            except NeedBytes as need:
                if self.feed.eof and self.feed.available < need.size:
                    return False
                if need.size > limits.DEVICE_STATE:
                    raise self.feed.limit(f"device state is over {limits.DEVICE_STATE} bytes") from None
                while self.feed.available < need.size and not self.feed.eof:
                    yield None
                yield from self.feed.need(min(need.size, self.feed.available))  # in one piece
                continue
            return found
        return False

    def _by_layout(self, section: SectionFull) -> bool:
        """Sets the length that a body's own layout gives and the bytes behind confirm.

        Only for input that was held to its end: a layout may have to be read far."""
        from qmig.legacy.oldstyle import self_delimiting

        self._layouts += 1
        if self._layouts > _LAYOUT_TRIES:
            return False
        window = self.feed.window()
        try:
            length = self_delimiting(section.idstr, window)
            if length is None or not self._confirmed(window, length, section.section_id, whole=True):
                return False
        except (NeedBytes, RemoteProtocolError):
            return False  # not of the layout
        self._length, self._boundary = length, "built-in"
        return True

    def _proposed(self, schema: Schema, section: SectionFull) -> bool:
        window = self.feed.window()
        whole = self.feed.eof and len(window) == self.feed.available
        for length in schema.ends(section, window):
            if self._confirmed(window, length, section.section_id, whole=whole):
                self._length, self._boundary = length, schema.origin
                return True
        return False

    def _footer(self, held: memoryview, searched: int, section: SectionFull) -> bool:
        """Whether the section's footer is in `held`: the first that a good record follows."""
        pattern = re.escape(b"\x7e" + section.section_id.to_bytes(4, "big"))
        for found in re.compile(pattern).finditer(held, self._undecided or max(0, searched - 4)):
            place, whole = found.start(), self.feed.eof
            try:
                if not self._confirmed(held, place, section.section_id, whole=whole):
                    continue
                good = self._follows(held[place + 5 :], whole=whole)
            except NeedBytes:
                self._undecided = place  # looked at again with the next bytes
                return False
            if good:
                return self._found(place)
            if self._loose is None:
                self._loose = place
        self._undecided = 0
        return self.feed.eof and self._loose is not None and self._found(self._loose)

    def _found(self, place: int) -> bool:
        self._length, self._boundary = place, "footer"
        self._undecided, self._loose = 0, None
        return True

    def _follows(self, behind: memoryview, *, whole: bool) -> bool:
        """Whether what is behind a footer is a record as QEMU writes it (LEG-SEC-057). Raises `NeedBytes`
        where that cannot be told yet and more has to come: behind EOF there may be nothing for a long
        time."""
        head = bytes(behind[:10])
        if not head:
            return True
        kind, more = head[0], head[1:]
        if kind == SectionType.EOF:
            return not more or more[0] == SectionType.VMDESCRIPTION
        if not whole and len(head) < 6:
            raise NeedBytes(6)
        if kind in {SectionType.SECTION_PART, SectionType.SECTION_END}:
            return len(more) < 4 or int.from_bytes(more[:4], "big") in self.state.sections
        if kind == SectionType.COMMAND:
            number, length = int.from_bytes(more[:2], "big"), int.from_bytes(more[2:4], "big")
            return number in COMMANDS and length <= _LONGEST_COMMAND
        if len(more) < 5:
            return True
        name = bytes(behind[6 : 6 + more[4]])
        if len(name) < more[4] and not whole:
            raise NeedBytes(6 + more[4])
        return bool(_IDSTR.fullmatch(name))

    def _confirmed(self, window: memoryview, length: int, section_id: int, *, whole: bool) -> bool:
        """Whether a section may end at `length`: its footer, if it has one, and the next type
        byte. Raises `NeedBytes` if those are not in the window but may still come."""
        footer = b"\x7e" + section_id.to_bytes(4, "big")
        if length > len(window) and whole:
            return False
        behind = bytes(window[length : length + 6])
        closes = self.state.footers is not False and footer.startswith(behind[:5])
        wanted = 6 if closes else 1
        if len(behind) < wanted and not whole:
            raise NeedBytes(length + wanted)
        if closes and len(behind) >= 5:
            behind = behind[5:]
        elif self.state.footers:
            return False
        return not behind or behind[0] in _FOLLOWERS
