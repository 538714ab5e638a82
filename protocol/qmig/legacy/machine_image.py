"""What is migrated, taken out of a recording: everything that makes the guest, nothing of how it travelled.

    collector = ImageCollector()
    while isinstance(told := session.next_event(), Told):
        collector.apply(told)
    image = collector.finish()

Rule 1: RAM is kept as its final content in memory that the caller supplies; device state and the records of
other live sections are kept as they came. Nothing here says multifd, postcopy or mapped-ram: that is how a
stream is made of an image (`qmig.legacy.compose`).
Rule 2: a second file header begins another attempt at the migration; the last attempt counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from qmig import limits
from qmig._wire import Record
from qmig.errors import LocalProtocolError, TruncatedStream
from qmig.legacy import header as hdr
from qmig.legacy import sections as sec
from qmig.legacy.channels import parse_name
from qmig.legacy.connection import Told
from qmig.legacy.multifd import MultifdDeviceState, MultifdHello
from qmig.legacy.ram import RamBlockEntry
from qmig.legacy.ramimage import BlockImage, OpenBlock
from qmig.legacy.rebuild import Rebuild
from qmig.legacy.session import MigrationSession

#: kinds of channels that carry the machine; what comes back, and what is encrypted, does not
_CARRIERS: Final = frozenset({"main", "multifd", "preempt"})


class ImageBlock:
    """One RAM block: its entry in the block list, and its final content. Lengths are in bytes."""

    def __init__(self, entry: RamBlockEntry, block: BlockImage) -> None:
        self.idstr = entry.idstr
        self.used_length = entry.used_length
        #: of the backing, where the recording says that it is not the host's; else None
        self.page_size = entry.page_size
        #: guest-physical address; with `x-ignore-shared` only
        self.gpa = entry.gpa
        #: whether any page came; a block that the source ignores (shared memory) has none
        self.sent = bool(block.sent)
        self._block = block

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes of content from `offset` on."""
        return self._block.get(offset, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The state of one device: its section header and the bytes behind it."""

    section: sec.SectionFull
    data: bytes

    def events(self, footers: bool) -> Iterator[Record]:
        """The section as it is written."""
        yield self.section
        yield sec.DeviceState(section_id=self.section.section_id, boundary="image", data=self.data)
        if footers:
            yield sec.SectionFooter(section_id=self.section.section_id)


class LiveSection:
    """A live handler other than `ram`: its records, by the kind of section they came in."""

    def __init__(self, start: sec.SectionStart) -> None:
        self.start = start
        self.setup: list[Record] = []
        self.parts: list[list[Record]] = []
        self.end: list[Record] | None = None

    @property
    def postcopiable(self) -> bool:
        """Whether its end may come after the guest runs at the destination."""
        return self.start.idstr == "dirty-bitmap"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineImage:
    """One guest, as a source would have it at switchover."""

    #: None: the machine type sends no configuration section
    configuration: hdr.Configuration | None
    #: log2 of the target page size, where the configuration says it
    page_bits: int | None
    #: validated capabilities of the recording
    capabilities: tuple[str, ...]
    #: the machine's `-uuid`, as far as the recording shows it; zeros otherwise
    uuid: bytes
    #: whether the recording told the uuid in its configuration
    uuid_validated: bool
    page_size: int
    footers: bool
    ram: sec.SectionStart
    blocks: tuple[ImageBlock, ...]
    live: tuple[LiveSection, ...]
    #: device state that comes before RAM
    early: tuple[Device, ...]
    devices: tuple[Device, ...]
    vmdesc: bytes | None

    @property
    def machine(self) -> str | None:
        """Name of the machine type."""
        return self.configuration.machine if self.configuration else None


class ImageCollector:
    """Takes the story of a recording and makes an image of it.

    `open_block` supplies zeroed memory for RAM; without it, RAM is kept in this process."""

    def __init__(self, open_block: OpenBlock = lambda idstr, length: bytearray(length)) -> None:
        self._open = open_block
        self._attempt = 0
        self._begin()
        self._handlers: dict[type[Record], Callable[..., None]] = {
            hdr.Configuration: self._configuration,
            hdr.ConfigurationPageBits: self._page_bits,
            hdr.ConfigurationCapabilities: self._capabilities_of,
            hdr.ConfigurationUuid: self._uuid_of,
            MultifdHello: self._hello,
            MultifdDeviceState: self._device_packet,
            RamBlockEntry: self._entry,
            sec.SectionStart: self._start,
            sec.SectionPart: self._part,
            sec.SectionEnd: self._end,
            sec.SectionFull: self._full,
            sec.DeviceState: self._state,
            sec.UnreadState: self._unread,
            sec.SectionFooter: self._footer,
            sec.EndOfFile: self._eof,
            sec.VmDescription: self._description,
        }

    def _begin(self) -> None:
        self.memory = Rebuild(self._open)
        self._configured: hdr.Configuration | None = None
        self._bits: int | None = None
        self._capabilities: tuple[str, ...] = ()
        self._uuid = bytes(16)
        self._uuid_validated = False
        self._footers = False
        self._ram: sec.SectionStart | None = None
        self._entries: dict[str, RamBlockEntry] = {}
        self._live: dict[int, LiveSection] = {}
        self._early: list[Device] = []
        self._devices: list[Device] = []
        self._into: list[Record] | None = None  # where records of the open live section go
        self._section: sec.SectionFull | None = None
        self._vmdesc: bytes | None = None
        self._complete = False
        self._kept = 0

    def apply(self, told: Told) -> None:
        """Takes one event of a session's story.

        Raises `RemoteProtocolError` for content that makes no pages, `LocalProtocolError` for what an
        image cannot hold."""
        kind = parse_name(told.channel).kind
        if kind not in _CARRIERS:
            return
        event = told.event
        if told.attempt != self._attempt:
            self._attempt = told.attempt
            self._begin()
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        elif self._into is not None and kind == "main":
            self._keep(event.size)
            self._into.append(_owned(event))
            return
        self.memory.apply(told)

    def finish(self) -> MachineImage:
        """The image. Raises `LocalProtocolError` where the recording does not hold a whole guest."""
        if not self._complete:
            raise LocalProtocolError(
                "the recording ends before the guest is complete", requirement="LEG-SEC-030"
            )
        if self._ram is None:
            raise LocalProtocolError("the recording has no RAM", requirement="LEG-RAM-010")
        blocks = self.memory.image.blocks
        sizes = {block.page_size for block in blocks.values()} - {None}
        page_size = max((size for size in sizes if size), default=4096)
        return MachineImage(
            configuration=self._configured,
            page_bits=self._bits,
            capabilities=self._capabilities,
            uuid=self._uuid,
            uuid_validated=self._uuid_validated,
            page_size=1 << self._bits if self._bits else page_size,
            footers=self._footers,
            ram=self._ram,
            blocks=tuple(ImageBlock(entry, blocks[name]) for name, entry in self._entries.items()),
            live=tuple(self._live.values()),
            early=tuple(self._early),
            devices=tuple(self._devices),
            vmdesc=self._vmdesc,
        )

    def _keep(self, size: int) -> None:
        self._kept += size
        if self._kept > limits.DEVICE_STATE:
            raise LocalProtocolError(
                f"more than {limits.DEVICE_STATE} bytes of device state and live sections",
                requirement=sec.DeviceState.requirement,
            )

    def _configuration(self, event: hdr.Configuration) -> None:
        self._configured = event

    def _page_bits(self, event: hdr.ConfigurationPageBits) -> None:
        self._bits = event.target_page_bits

    def _capabilities_of(self, event: hdr.ConfigurationCapabilities) -> None:
        self._capabilities = event.capabilities

    def _uuid_of(self, event: hdr.ConfigurationUuid) -> None:
        self._uuid, self._uuid_validated = event.uuid, True

    def _hello(self, event: MultifdHello) -> None:
        self._uuid = event.uuid

    def _device_packet(self, event: MultifdDeviceState) -> None:
        raise LocalProtocolError(
            f"state of {event.idstr!a} came over multifd, which an image does not hold",
            requirement=event.requirement,
        )

    def _entry(self, event: RamBlockEntry) -> None:
        self._entries.setdefault(event.idstr, event)

    def _start(self, event: sec.SectionStart) -> None:
        if event.idstr == "ram":
            self._ram = event
            self._into = None
            return
        section = self._live[event.section_id] = LiveSection(event)
        self._into = section.setup

    def _part(self, event: sec.SectionPart) -> None:
        section = self._live.get(event.section_id)
        self._into = None
        if section is not None:
            self._into = []
            section.parts.append(self._into)

    def _end(self, event: sec.SectionEnd) -> None:
        section = self._live.get(event.section_id)
        self._into = None
        if section is not None:
            self._into = section.end = []

    def _full(self, event: sec.SectionFull) -> None:
        self._into = None
        self._section = event

    def _state(self, event: sec.DeviceState) -> None:
        section, self._section = self._section, None
        assert section is not None  # a reader gives a body behind its header only
        self._keep(len(event.data))
        early = self._ram is None and not self._live
        (self._early if early else self._devices).append(Device(section=section, data=bytes(event.data)))

    def _unread(self, event: sec.UnreadState) -> None:
        raise LocalProtocolError("device state of unknown extent", requirement=event.requirement)

    def _footer(self, event: sec.SectionFooter) -> None:
        self._footers = True
        self._into = None

    def _eof(self, event: sec.EndOfFile) -> None:
        self._into = None
        self._complete = True

    def _description(self, event: sec.VmDescription) -> None:
        self._vmdesc = event.json


def _owned(event: Record) -> Record:
    """The event without views of anybody's buffer."""
    values = {name: bytes(v) if isinstance(v, memoryview) else v for name, v in event.values().items()}
    return type(event)(**values)


def image_of(channels: Mapping[str, bytes | memoryview]) -> MachineImage:
    """The image in a whole recording: channel name -> its bytes. Connections that broke on the way are passed
    over. RAM is kept in memory. Raises `RemoteProtocolError` for channels that are damaged."""
    session, collector = MigrationSession(), ImageCollector()
    for name, data in channels.items():
        session.receive_data(name, data)
        session.receive_data(name, b"")
    while True:
        try:
            told = session.next_event()
        except TruncatedStream:
            continue
        if not isinstance(told, Told):
            return collector.finish()
        collector.apply(told)
