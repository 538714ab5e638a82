"""Beginning and end of a story of records, as lines; what is in between is counted.

Rule 1: consecutive records of one kind are a run: its first and its last few are shown, the rest is one line.
Of all lines so made the first and the last are kept, and those with an error.
Rule 2: a record becomes text only when its line is kept: most never do.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast

from qmig.errors import RemoteProtocolError
from qmig.legacy.ram import RamDeltas, RamPages

#: lines kept at the beginning and at the end
HEAD: Final = 10
TAIL: Final = 15
#: errors that are kept in the middle
ERRORS: Final = 4
#: lines about the channels' ends
ENDS: Final = 8
#: records shown at the end of a run
LAST: Final = 3
#: characters of one value, and of one line
VALUE: Final = 40
WIDTH: Final = 150
#: bytes shown in hex before and behind an error
BEFORE: Final = 24
BEHIND: Final = 40
ROW: Final = 16

#: record -> the run it belongs to, where that is not its own name
_RUNS: Final = {
    **dict.fromkeys(("SectionPart", "RamPages", "RamDeltas", "MultifdPacket", "RamMultifdFlush"), "pages"),
    **dict.fromkeys(("MappedRamHeader", "MappedRamBitmap", "MappedRamPages", "MappedRamGap"), "mapped"),
    **dict.fromkeys(("SectionFull", "DeviceState"), "devices"),
}
#: record -> the one behind it that goes on its line
_BODIES: Final = {"SectionFull": "DeviceState"}
#: records that their neighbours' lines imply; shown where nothing follows them
_QUIET: Final = frozenset({"RamEos", "SectionFooter"})


class _Line(NamedTuple):
    channel: str
    offset: int | None
    text: Callable[[], str]
    pinned: bool = False


class _Item:
    """A record, and the one behind it that tells what is in it."""

    __slots__ = ("body", "channel", "event")

    def __init__(self, channel: str, event: Any) -> None:
        self.channel = channel
        self.event = event
        self.body: Any = None

    def line(self) -> _Line:
        return _Line(self.channel, self.event.offset, self.text)

    def text(self) -> str:
        return _words(self.event) + (f", {_words(self.body)}" if self.body is not None else "")


class _Run:
    """Records of one kind that follow each other on one channel, or on the multifd channels."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.first: _Item | None = None
        self.last: deque[_Item] = deque()
        self.counts: Counter[str] = Counter()
        self.pages: dict[str, Counter[str]] = {}
        self.channel = ""
        self.end = 0

    def add(self, channel: str, event: Any) -> None:
        newest = self.last[-1] if self.last else self.first
        if newest is None:
            self.first = _Item(channel, event)
        elif newest.body is None and type(event).__name__ == _BODIES.get(type(newest.event).__name__):
            newest.body = event
        else:
            self.last.append(_Item(channel, event))
            if len(self.last) > LAST:
                self.drop(self.last.popleft())

    def drop(self, item: _Item) -> None:
        """Counts a record that is not shown."""
        event = item.event
        self.counts[type(event).__name__] += 1
        self.channel, self.end = item.channel, event.offset
        for block, kind, pages in _pages(event):
            self.pages.setdefault(block, Counter())[kind] += pages

    def lines(self) -> Iterator[_Line]:
        assert self.first is not None
        yield self.first.line()
        if self.counts:
            yield _Line(self.channel, None, self.summary)
        for item in self.last:
            yield item.line()

    def summary(self) -> str:
        what = ", ".join(f"{count} {name}" for name, count in self.counts.most_common(6))
        text = f"… {what}, up to {self.end:#x}"
        for block, kinds in list(self.pages.items())[:3]:
            pages = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
            if pages:
                text += f"; {printable(block)}: {pages}"
        return text


class Excerpt:
    """Takes the records of one direction in their order. `channels` is how many it has: one is not named."""

    def __init__(self, channels: int) -> None:
        self._named = channels > 1
        self._run: _Run | None = None
        self._quiet: _Item | None = None
        self._head: list[_Line] = []
        self._kept: list[_Line] = []  # pinned ones that left the tail, and the gaps before them
        self._tail: deque[_Line] = deque()
        self._gap = 0
        self._errors = 0
        self._starts: list[str] = []
        self._ends: list[str] = []
        self._width = 0

    def preface(self, text: str) -> None:
        """A line before all records."""
        self._starts.append(_cut(printable(text)))

    def told(self, channel: str, event: Any) -> None:
        """Takes a record. It is kept, and views in it have to stay valid."""
        name = type(event).__name__
        if name in _QUIET:
            self._quiet = _Item(channel, event)
            return
        self._quiet = None
        kind = _RUNS.get(name, name)
        key = ("" if name == "MultifdPacket" or kind == "pages" else channel, kind)
        if self._run is None or self._run.key != key:
            self._flush()
            self._run = _Run(key)
        self._run.add(channel, event)

    def broke(self, channel: str, error: RemoteProtocolError, data: memoryview) -> None:
        """Reading of a channel ended with an error; `data` are the channel's bytes."""
        self._flush()
        self._errors += 1
        pinned = self._errors <= ERRORS
        kind = type(error).__name__
        said = f"!! {error.record}: {error.message} [{error.requirement}]"
        if kind != "RemoteProtocolError":
            said += f" ({kind})"
        self._put(_Line(channel, error.offset, lambda: printable(said), pinned))
        if pinned:
            self._dump(data, error.offset, error.offset - BEFORE, error.offset + BEHIND, pinned=True)

    def ended(self, channel: str, position: int, size: int, *, whole: bool) -> None:
        """Says how far a channel was read."""
        what = f"{printable(channel)}: {size} bytes"
        self._ends.append(f"{what}, all read" if whole else f"{what}, read to {position:#x}")

    def raw(self, channel: str, data: memoryview, size: int) -> None:
        """Takes a stream that no reader is for; the first `size` bytes are shown."""
        self._flush()
        what = f"{len(data)} bytes, of which no reader is known" if data else "no bytes"
        self._put(_Line(channel, None, lambda: what))
        self._dump(data, -1, 0, size, pinned=False)

    def _dump(self, data: memoryview, mark: int, start: int, end: int, *, pinned: bool) -> None:
        for line in hexdump(data, mark, start, end):
            self._put(_Line("", None, lambda line=line: line, pinned))  # type: ignore[misc]

    def note(self, text: str) -> None:
        """A line at the end."""
        self._ends.append(printable(text))

    def text(self, limit: int) -> str:
        """All lines, in at most `limit` characters."""
        self._flush()
        lines = [*self._head, *self._kept]
        if self._gap:
            lines.append(_gap(self._gap))
        shown = [self._shown(line) for line in (*lines, *self._tail)]
        over = len(self._ends) - ENDS
        ends = [*self._ends[:ENDS], f"… {over} more"] if over > 0 else self._ends
        return _fit([*self._starts, *shown, *(_cut(line) for line in ends)], limit)

    def _flush(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            for line in run.lines():
                self._put(line)
        quiet, self._quiet = self._quiet, None
        if quiet is not None:
            self._put(quiet.line())

    def _put(self, line: _Line) -> None:
        if self._named:
            self._width = max(self._width, min(len(line.channel), 12))
        if len(self._head) < HEAD:
            self._head.append(line)
            return
        self._tail.append(line)
        if len(self._tail) <= TAIL:
            return
        old = self._tail.popleft()
        if not old.pinned:
            self._gap += 1
            return
        if self._gap:
            self._kept.append(_gap(self._gap))
            self._gap = 0
        self._kept.append(old)

    def _shown(self, line: _Line) -> str:
        name = f"{printable(line.channel)[:12]:<{self._width}}  " if self._named else ""
        at = f"{line.offset:#010x}  " if line.offset is not None else ""
        return _cut(f"{name}{at}{line.text()}")


def _gap(lines: int) -> _Line:
    return _Line("", None, lambda: f"   ⋮  {lines} lines left out")


def _fit(lines: list[str], limit: int) -> str:
    """Leaves lines out behind the first ones until the rest fits."""
    size = sum(len(line) + 1 for line in lines)
    if size > limit:
        mark = "   ⋮  cut"
        size += len(mark) + 1
        while size > limit:
            size -= len(lines.pop(HEAD)) + 1
        lines.insert(HEAD, mark)
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


# -- records -----------------------------------------------------------------------------------------


def _words(event: Any) -> str:
    name = type(event).__name__
    if isinstance(event, RamPages | RamDeltas):
        inner = "; ".join(f"{pages} {kind} pages of {block}" for block, kind, pages in _pages(event) if pages)
        return printable(f"{name} {inner}, {event.size} bytes")
    special = _WORDS.get(name)
    if special is not None:
        return printable(special(event))
    fields = [f"{key}={_value(value)}" for key, value in event.values().items() if value is not None]
    return " ".join([name, *fields])


def _packet(event: Any) -> str:
    flags = f"flags={event.flags:#x}{' SYNC' if event.is_sync else ''}"
    counts = f"{event.normal_pages} normal ({event.method_name}), {event.zero_pages} zero"
    of = f" of {event.block}" if event.pages else ""
    return f"MultifdPacket {event.packet_num} {flags}, {counts}{of}, {event.size} bytes"


def _section(event: Any) -> str:
    return (
        f"{type(event).__name__} {event.section_id} {event.idstr}, instance {event.instance_id}, "
        f"version {event.version_id}"
    )


_WORDS: Final[dict[str, Callable[[Any], str]]] = {
    "SectionStart": _section,
    "SectionFull": _section,
    "FileHeader": lambda event: f"FileHeader QEVM version={event.version}",
    "MultifdPacket": _packet,
    "DeviceState": lambda event: f"{len(event.data)} bytes, end by {event.boundary}",
    "VmDescription": lambda event: f"VmDescription {len(event.json)} bytes of JSON",
}


def _pages(event: Any) -> Iterator[tuple[str, str, int]]:
    """(block, kind, count) of the pages in a record."""
    if isinstance(event, RamPages):
        yield event.block, "normal", sum(ascent.normal for ascent in event.ascents)
        yield event.block, "zero", sum(ascent.zero for ascent in event.ascents)
    elif isinstance(event, RamDeltas):
        ascents = event.ascents()
        yield event.block, "xbzrle", sum(ascent.normal for ascent in ascents)
        yield event.block, "compressed", sum(ascent.zero for ascent in ascents)
    elif type(event).__name__ == "MultifdPacket":
        yield event.block, "normal", event.normal_pages
        yield event.block, "zero", event.zero_pages


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(int(value)) if -1 <= value < 10 else f"{value:#x}"
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value[: ROW + 1])
        return raw.hex() or "(empty)" if len(raw) <= ROW else f"{raw[:8].hex()}… ({len(value)} bytes)"
    text = printable(str(value)[: VALUE + 1] if isinstance(value, str) else str(cast(Any, value)))
    return text if len(text) <= VALUE else f"{text[: VALUE - 1]}…"


def printable(text: str) -> str:
    """Without anything that is not a printable character: names come from the wire."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def hexdump(data: memoryview, mark: int, start: int, end: int) -> Iterator[str]:
    """Rows of 16 bytes from `start` to `end`, in brackets the byte at `mark`."""
    start, end = max(start, 0) // ROW * ROW, min(end, len(data))
    for at in range(start, end, ROW):
        row = bytes(data[at : min(at + ROW, len(data))])
        cells = "".join(
            f"[{byte:02x}]" if at + index == mark else f" {byte:02x} " for index, byte in enumerate(row)
        )
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        cells = cells.replace("  ", " ").replace(" [", "[").replace("] ", "]")
        yield f"    {at:08x} {cells:<50}|{text}|"
    if mark >= len(data) and end == len(data):
        yield f"    {len(data):08x}[end of the bytes]"
