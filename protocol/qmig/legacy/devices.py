"""Where the state of a device ends: SECTION_FULL has no length.

Rule 1: a schema (given, or the stream's own vmdesc) decides.
Rule 2: the vmdesc comes last, so without a given schema everything from the first
device on is held, up to `limits.DEVICE_STATE`, until it has come.
Rule 3: without any schema the end is inferred from the footer and a plausible record
behind it, and every such body says so (`boundary="footer"`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import NeedBytes
from qmig.legacy.sections import DeviceState, SectionFull, SectionType
from qmig.legacy.state import StreamState

_DESCRIPTION: Final = re.compile(rb"\x00\x06(?=(....)\{)", re.DOTALL)


class DeviceReader:
    """Finds the bodies of SECTION_FULL in one feed."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.state = state
        self.held = False

    def body(self, section: SectionFull, *, early: bool) -> Steps[DeviceState]:
        """The state behind this header, found by the best means there is."""
        feed = self.feed
        feed.expect(f"device state of {section.idstr!a}", DeviceState.requirement)
        if self.state.schema is None and not early and not self.held:
            yield from self._hold()
        start = feed.offset
        length, boundary = yield from self._end(section)
        data = yield from feed.take(length)
        state = DeviceState(section_id=section.section_id, boundary=boundary, data=data)
        return state.place(start, length)

    def _hold(self) -> Steps[None]:
        """Waits for the vmdesc, or the end; everything is then in the feed's window."""
        feed = self.feed
        held = bytearray()
        searched = 0
        while True:
            held += feed.drain()
            if len(held) > limits.DEVICE_STATE:
                raise feed.limit(f"over {limits.DEVICE_STATE} bytes of device state with no description")
            described = self._described(held, searched)
            if described or feed.eof:
                break
            searched = max(0, len(held) - 6)
            yield None
        feed.unread(memoryview(bytes(held)))
        self.held = True

    def _described(self, held: bytearray, searched: int) -> bool:
        """Whether a vmdesc is complete in `held`; then it becomes the schema."""
        from qmig.legacy.vmstate.schema import schema_from_vmdesc

        for found in _DESCRIPTION.finditer(held, searched):
            size = int.from_bytes(found[1], "big")
            at = found.end() + 4
            if size <= limits.VMDESC and at + size <= len(held):
                schema = schema_from_vmdesc(bytes(held[at : at + size]))
                if schema is not None:
                    self.state.schema = schema
                    return True
        return False

    def _end(self, section: SectionFull) -> Steps[tuple[int, str]]:
        schema = self.state.schema
        if schema is not None:
            while True:
                try:
                    for length in schema.ends(section, self.feed.window()):
                        if self._plausible(self.feed.window(), length, section.section_id):
                            return length, schema.origin
                    break
                except NeedBytes as need:
                    yield from self.feed.need(need.size)
        while True:
            window = self.feed.window()
            for length in self._footers(window, section.section_id):
                return length, "footer"
            yield from self.feed.need(len(window) + 1)

    def _footers(self, window: memoryview, section_id: int) -> Iterator[int]:
        footer = re.compile(b"\x7e" + re.escape(section_id.to_bytes(4, "big")))
        for found in footer.finditer(window):
            if self._plausible(window, found.start(), section_id):
                yield found.start()

    def _plausible(self, window: memoryview, length: int, section_id: int) -> bool:
        if self.state.footers is False:
            return True
        footer = b"\x7e" + section_id.to_bytes(4, "big")
        if bytes(window[length : length + 5]) != footer:
            return False
        after = bytes(window[length + 5 : length + 6])
        return not after or after[0] in _FOLLOWERS


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
