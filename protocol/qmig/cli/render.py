"""The readable report of `qmig decode`.

Rule 1: one line for each record in the order of the story; pages are summed per section,
block, pass and kind. Without -v, PARTs of one handler that follow each other are one line, and so
are more than a few records of one kind.
Rule 2: names come from the wire: nothing of them reaches the terminal but printable characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from qmig._wire import Record
from qmig.cli.exits import one_line
from qmig.cli.tally import Tally, words
from qmig.errors import RemoteProtocolError
from qmig.legacy.connection import Told
from qmig.legacy.lines import Line
from qmig.legacy.sections import SectionFull

if TYPE_CHECKING:
    from qmig.cli.extract import Extracted
    from qmig.cli.inputs import Input
    from qmig.legacy.sections import DeviceState
    from qmig.legacy.session import MigrationSession
    from qmig.legacy.verify.findings import Finding

#: records of one kind in a row that are shown; further ones are counted
ROW: Final = 4
#: bytes of a value shown without -v
SHORT: Final = 32
_TITLES: Final = {"SectionStart": "START", "SectionPart": "PART", "SectionEnd": "END", "SectionFull": "FULL"}
#: records that a section's line tells already
_SILENT: Final = frozenset({"RamEos", "SectionFooter"})


class Group:
    """What came since the last line: one section, or several PARTs of one handler."""

    def __init__(self, title: str, channel: str, offset: int) -> None:
        self.title = title
        self.channel = channel
        self.offset = offset
        self.end = offset
        self.sections = 1
        self.tallies: dict[str, Tally] = {}
        self.packets: dict[str, list[int]] = {}  # channel -> packets, SYNCs


class TextReport:
    """Writes lines as the story is told; keeps what sums up RAM at the end."""

    def __init__(self, out: TextIO, session: MigrationSession, *, verbose: bool) -> None:
        self._out = out
        self._session = session
        self._verbose = verbose
        self._width = 0
        self._group: Group | None = None
        self._row: tuple[str, str, int] = ("", "", 0)  # channel, record, how many in a row
        self._last = 0  # offset of the last record of the row
        self._names: dict[tuple[int, int], str] = {}  # (attempt, section_id) -> idstr
        self._full: SectionFull | None = None
        self._totals: dict[int, Tally] = {}
        self._errors: list[RemoteProtocolError] = []
        self._handlers: dict[str, Callable[[Told], None]] = {
            "FileHeader": self._header,
            "Configuration": self._configuration,
            "SectionStart": self._section,
            "SectionPart": self._section,
            "SectionEnd": self._section,
            "SectionFull": self._device_header,
            "DeviceState": self._device,
            "RamBlockEntry": self._block,
            "MultifdHello": self._hello,
            "VmDescription": self._vmdesc,
        }

    # -- the story -------------------------------------------------------------------

    def begin(self, inputs: list[Input]) -> None:
        if len(inputs) > 1:
            self._width = max(len(source.channel) for source in inputs) + 2
        for source in inputs:
            size = f", {source.size} bytes" if source.size is not None else ""
            note = f", {source.note}" if source.note else ""
            self._line(f"{source.channel}: {source.path}{size}{note}")
        self._line("")

    def told(self, told: Told) -> None:
        event = told.event
        name = type(event).__name__
        if self._counted(told, name):
            return
        if name in _SILENT:
            if self._group is not None:
                self._group.end = event.offset + event.size
            return
        if name == "SectionPart" and self._joins(told):
            return
        self._close()
        handler = self._handlers.get(name)
        if handler is None:
            self._record(told, name)
            return
        self._end_row()
        handler(told)

    def broke(self, error: RemoteProtocolError) -> None:
        self._close()
        self._end_row()
        self._errors.append(error)
        self._item(error.channel or "", error.offset, f"!! {error.message} [{error.requirement}]")

    def finish(self, findings: Sequence[Finding], extracted: Sequence[Extracted]) -> None:
        self._close()
        self._end_row()
        for number, tally in self._totals.items():
            self._ram(number, tally)
        for block in extracted:
            self._extracted(block)
        self._line("")
        for line in self._session.lines():
            self._line(f"{line.name}: {_ending(line)}")
        if self._errors or findings:
            self._line("")
        for error in self._errors:
            overcome = self._session.overcome(error)
            self._line(f"overcome: {error}" if overcome else f"finding: {error}")
        for finding in findings:
            self._line(f"finding: {finding}")
        self._out.flush()

    # -- sections --------------------------------------------------------------------

    def _counted(self, told: Told, name: str) -> bool:
        """Sums up pages and packets; whether the record is one of these."""
        group = self._group
        if group is None:
            group = Group("", "", told.event.offset)
        tally = group.tallies.setdefault(told.channel, Tally())
        if not tally.count(told):
            if not tally:
                del group.tallies[told.channel]
            return False
        self._end_row()
        if name == "MultifdPacket":
            if self._verbose:
                self._packet(told)
            packets = group.packets.setdefault(told.channel, [0, 0])
            packets[0] += 1
            packets[1] += cast(Any, told.event).is_sync
        group.end = max(group.end, told.event.offset + told.event.size)
        self._group = group
        self._totals.setdefault(told.attempt, Tally()).count(told)
        return True

    def _joins(self, told: Told) -> bool:
        """Whether this PART goes on the line of the one before it."""
        group = self._group
        title = self._title(told, "PART")
        if self._verbose or group is None or group.title != title or group.channel != told.channel:
            return False
        group.sections += 1
        return True

    def _title(self, told: Told, kind: str) -> str:
        number = cast(Any, told.event).section_id
        return f"{kind:<5} {self._names.get((told.attempt, number), '?')} (section {number})"

    def _section(self, told: Told) -> None:
        event = cast(Any, told.event)
        kind = _TITLES[type(event).__name__]
        if kind == "START":
            self._names[told.attempt, event.section_id] = event.idstr
        title = self._title(told, kind)
        if kind != "PART":
            versions = (
                f", instance {event.instance_id}, version {event.version_id}" if kind == "START" else ""
            )
            self._item(told.channel, event.offset, title + versions)
        self._group = Group(title, told.channel, event.offset)
        self._group.end = event.offset + event.size

    def _close(self) -> None:
        """Writes what the group has gathered."""
        group, self._group = self._group, None
        if group is None:
            return
        if group.title.startswith("PART"):
            many = f" ×{group.sections}, up to {group.end:#x}" if group.sections > 1 else ""
            self._item(group.channel, group.offset, group.title + many)
        for channel, tally in group.tallies.items():
            of = "" if channel == group.channel or not self._width else f"{channel}: "
            if channel in group.packets:
                packets, syncs = group.packets[channel]
                self._detail(f"{of}{packets} packets" + (f", {syncs} SYNC" if syncs else ""))
            for (block, at), counts in tally.rows.items():
                self._detail(f"{of}pass {at}  {block:<24} {words(counts)}")

    # -- single records --------------------------------------------------------------

    def _record(self, told: Told, name: str) -> None:
        """Any record by its fields; long rows of one kind are cut short."""
        channel, last, count = self._row
        count = count + 1 if (channel, last) == (told.channel, name) else 1
        if count == 1:
            self._end_row()
        self._row = (told.channel, name, count)
        self._last = told.event.offset
        if count <= ROW or self._verbose:
            self._item(told.channel, told.event.offset, f"{name} {self._fields(told.event)}".rstrip())

    def _end_row(self) -> None:
        channel, name, count = self._row
        if count > ROW and not self._verbose:
            self._item(channel, self._last, f"… {count - ROW} more {name} up to here")
        self._row = ("", "", 0)

    def _fields(self, event: Record) -> str:
        return ", ".join(f"{name}={self._value(value)}" for name, value in event.values().items())

    def _value(self, value: object) -> str:
        if isinstance(value, bytes | bytearray | memoryview):
            if len(value) > SHORT and not self._verbose:
                return f"<{len(value)} bytes>"
            return bytes(value).hex() or "<0 bytes>"
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value) if -1 <= value < 10 else f"{value:#x}"
        return str(value)

    def _header(self, told: Told) -> None:
        again = f" (attempt {told.attempt})" if told.attempt > 1 else ""
        version = cast(Any, told.event).version
        self._item(told.channel, told.event.offset, f"QEVM version {version}{again}")

    def _configuration(self, told: Told) -> None:
        machine = cast(Any, told.event).machine
        self._item(told.channel, told.event.offset, f"configuration: machine {machine}")

    def _block(self, told: Told) -> None:
        event = cast(Any, told.event)
        more = "".join(
            f", {name} {value:#x}"
            for name, value in event.values().items()
            if name not in {"idstr", "used_length"} and isinstance(value, int)
        )
        self._item(told.channel, event.offset, f"  block {event.idstr}: {event.used_length:#x} bytes{more}")

    def _hello(self, told: Told) -> None:
        event = cast(Any, told.event)
        self._item(told.channel, event.offset, f"MultifdHello id={event.id}, uuid={event.uuid.hex()}")

    def _packet(self, told: Told) -> None:
        event = cast(Any, told.event)
        text = f"packet {event.packet_num}{' SYNC' if event.is_sync else ''}"
        if event.pages:
            text += (
                f": {event.block}, {event.normal_pages} normal ({event.method_name}), {event.zero_pages} zero"
            )
        self._item(told.channel, event.offset, text)

    def _vmdesc(self, told: Told) -> None:
        size = len(cast(Any, told.event).json)
        self._item(told.channel, told.event.offset, f"VMDESCRIPTION, {size} bytes of JSON")

    # -- devices ---------------------------------------------------------------------

    def _device_header(self, told: Told) -> None:
        event = cast(SectionFull, told.event)
        self._full = event
        self._names[told.attempt, event.section_id] = event.idstr
        self._item(
            told.channel,
            event.offset,
            f"{self._title(told, 'FULL')}, instance {event.instance_id}, version {event.version_id}",
        )

    def _device(self, told: Told) -> None:
        from qmig.cli.devicetext import decoded, device_lines

        assert self._full is not None
        body = cast("DeviceState", told.event)
        state = self._session.attempts[told.attempt - 1].state
        device = decoded(state, self._full, body)
        basis = device.basis or "nothing"
        ended = f", its end by {body.boundary}" if body.boundary != basis else ""
        self._detail(f"{body.size} bytes, fields by {basis}{ended}")
        self._lines(" " * (self._width + 14) + line for line in device_lines(device, verbose=self._verbose))

    # -- output ----------------------------------------------------------------------

    def _ram(self, number: int, tally: Tally) -> None:
        self._line("")
        self._line("RAM" if len(self._totals) == 1 else f"RAM, attempt {number}")
        blocks = self._session.attempts[number - 1].state.blocks
        total: dict[str, Tally] = {}
        for (block, at), counts in tally.rows.items():
            for kind, pages in counts.items():
                total.setdefault(block, Tally()).add(block, at, kind, pages)
        for block, of_block in total.items():
            known = blocks.get(block)
            size = f"{known.used_length:#x} bytes" if known else ""
            whole = Tally()
            for (_, _), counts in of_block.rows.items():
                for kind, pages in counts.items():
                    whole.add(block, 0, kind, pages)
            self._line(f"  {block:<24} {size:>18}  {words(whole.rows[block, 0])}")
            if len(of_block.rows) > 1:
                for (_, at), counts in sorted(of_block.rows.items()):
                    self._line(f"    pass {at:<18} {'':>18}  {words(counts)}")

    def _extracted(self, block: Extracted) -> None:
        if block.file is None:
            self._line(f"  {block.block}: no page in the stream, no file")
            return
        lacks = f", {block.never_sent} pages never sent" if block.never_sent else ""
        stale = f", {block.stale} pages discarded and not sent again" if block.stale else ""
        self._line(f"  {block.block} is in {block.file}{lacks}{stale}")

    def _item(self, channel: str, offset: int, text: str) -> None:
        self._line(
            f"{channel:<{self._width}}{offset:#010x}  {text}" if self._width else f"{offset:#010x}  {text}"
        )

    def _detail(self, text: str) -> None:
        self._line(" " * (self._width + 14) + text)

    def _line(self, text: str) -> None:
        self._lines((text,))

    def _lines(self, texts: Iterable[str]) -> None:
        """Many lines in one call: a device has hundreds, and stdout may be unbuffered."""
        shown = [text if text.isascii() and text.isprintable() else one_line(text) for text in texts]
        self._out.write("".join([text + "\n" for text in shown]))


def _ending(line: Line) -> str:
    if line.error is not None:
        return f"decoded up to {line.error.offset:#x}"
    return f"{line.position:#x} bytes, {line.events} records" if line.closed else "not read to its end"
