"""The vmdesc against the device state that it describes (spec chapter 20)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from qmig._wire import Record
from qmig.legacy.commands import PostcopyAdvise
from qmig.legacy.ram import RamPages
from qmig.legacy.sections import DeviceState, SectionFull, VmDescription
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.findings import Severity
from qmig.legacy.verify.rules import By, Rule, since
from qmig.legacy.verify.sections import TRACKED

#: Bytes of device state kept until the description has come.
KEPT: Final = 16 << 20
#: Types whose elements are all of one size, so that size × array_len is exact.
_FIXED: Final = frozenset(
    {
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *(f"{kind} equal" for kind in ("int32", "uint32", "uint16", "uint8", "int64")),
        *("bool", "int32 le", "buffer", "unused_buffer", "bitmap", "timer", "CPU_Double_U", "float64"),
    }
)
#: Subsections nest a few levels; a description that nests deeper is not looked into.
_DEPTH: Final = 32


class _Device:
    """A FULL section as it was on the wire."""

    __slots__ = ("body", "channel", "section", "size")

    def __init__(self, channel: str, section: SectionFull) -> None:
        self.channel = channel
        self.section = section
        self.size: int | None = None
        self.body: bytes | None = None


class _Unknown(Exception):
    """The description does not say how long this is."""


class DescriptionChecker(Checker):
    """Compares the JSON with the sections before it."""

    about = (VmDescription,)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-SEC-031", title="the description is as long as its length says", by=By.READER),
        Rule(requirement="LEG-SEC-040", title="the description is one JSON object"),
        Rule(requirement="LEG-SEC-041", title="it lists exactly the FULL sections, in order"),
        Rule(requirement="LEG-SEC-042", title="its page_size is the target page size"),
        Rule(requirement="LEG-SEC-043", title="field sizes and subsections add up to the body's size"),
        Rule(requirement="LEG-SEC-044", title="its version is the section's version_id"),
        Rule(requirement="LEG-SEC-045", title="subsections come in the order that it lists"),
        Rule(
            requirement="LEG-SEC-046",
            title="it has a key for the configuration",
            severity=Severity.WARNING,
            when=since((9, 0)),
        ),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.devices: list[_Device] = []
        self.kept = 0
        self.page_size: int | None = None

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            SectionFull: self._full,
            DeviceState: self._body,
            RamPages: self._pages,
            PostcopyAdvise: self._advise,
            VmDescription: self._description,
        }

    def _full(self, channel: str, event: SectionFull) -> None:
        if len(self.devices) < TRACKED:
            self.devices.append(_Device(channel, event))

    def _body(self, channel: str, event: DeviceState) -> None:
        device = self.devices[-1]
        if device.section.section_id != event.section_id:
            return
        device.size = len(event.data)
        self.kept += len(event.data)
        if self.kept <= KEPT:
            device.body = bytes(event.data)

    def _pages(self, channel: str, event: RamPages) -> None:
        self.page_size = event.page_size

    def _advise(self, channel: str, event: PostcopyAdvise) -> None:
        self.page_size = event.target_page_size

    def _description(self, channel: str, event: VmDescription) -> None:
        try:
            tree = json.loads(event.json)
        except (ValueError, RecursionError) as error:
            reason = "nests too deep" if isinstance(error, RecursionError) else str(error)[:80]
            self.report("LEG-SEC-040", channel, event, f"no JSON: {reason}")
            return
        if not isinstance(tree, dict):
            self.report("LEG-SEC-040", channel, event, f"the top is no object but {str(tree)[:40]!a}")
            return
        if "configuration" in tree:
            self.facts.since((8, 0))
        elif self.facts.validated is not None:
            self.facts.until((8, 2))
            self.report("LEG-SEC-046", channel, event, "no key 'configuration'")
        if self.page_size is not None and tree.get("page_size") != self.page_size:
            text = f"page_size is {tree.get('page_size')!a}, pages are {self.page_size} bytes"
            self.report("LEG-SEC-042", channel, event, text)
        listed = tree.get("devices")
        rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        if self._same(channel, event, rows):
            for device, row in zip(self.devices, rows, strict=True):
                self._device(device, row)

    def _same(self, channel: str, event: VmDescription, rows: list[dict[str, Any]]) -> bool:
        """Whether the description lists the sections that came."""
        if len(self.devices) >= TRACKED:
            return False
        names = [(row.get("name"), row.get("instance_id")) for row in rows]
        came = [(device.section.idstr, device.section.instance_id) for device in self.devices]
        if names == came:
            return True
        at = next((i for i, (a, b) in enumerate(zip(names, came, strict=False)) if a != b), -1)
        if at < 0:
            text = f"{len(rows)} devices are described, {len(came)} came"
        else:
            text = f"device {at} is described as {str(names[at])[:80]!a}, {came[at]} came"
        self.report("LEG-SEC-041", channel, event, text)
        return False

    def _device(self, device: _Device, row: dict[str, Any]) -> None:
        section, channel = device.section, device.channel
        if "version" in row and row["version"] != section.version_id:
            text = f"{section.idstr!a} is version {section.version_id}, described as {row['version']!a}"
            self.report("LEG-SEC-044", channel, section, text)
        if device.size is None:
            return
        try:
            size = _size(row, _DEPTH)
            if size != device.size:
                text = f"{section.idstr!a} is {device.size} bytes, described as {size}"
                self.report("LEG-SEC-043", channel, section, text)
                return
            wrong = _misplaced(row, device.body) if device.body is not None else None
        except _Unknown:
            return
        if wrong is not None:
            text = f"{section.idstr!a}: subsection {wrong[:80]!a} is not where the description puts it"
            self.report("LEG-SEC-045", channel, section, text)


def _objects(holder: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    found = holder.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _Unknown
    yield from found


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise _Unknown
    return value


def _fields(holder: dict[str, Any]) -> int:
    """Bytes of an object's own fields."""
    total = 0
    for item in _objects(holder, "fields"):
        size = _count(item.get("size"))
        if "array_len" in item:
            # An entry that stands for an array gives its first element's size.
            if item.get("type") not in _FIXED:
                raise _Unknown
            size *= _count(item["array_len"])
        total += size
    return total


def _opening(subsection: dict[str, Any]) -> bytes:
    """The bytes that open a subsection."""
    name = subsection.get("vmsd_name")
    version = _count(subsection.get("version"))
    if not isinstance(name, str) or version >= 1 << 32:
        raise _Unknown
    raw = name.encode("utf-8", "surrogatepass")
    return b"\x05" + len(raw).to_bytes(2, "big")[1:] + raw + version.to_bytes(4, "big")


def _size(holder: dict[str, Any], depth: int) -> int:
    """Bytes of an object with its subsections. Raises `_Unknown` where the description does not say."""
    if not depth:
        raise _Unknown
    parts = (len(_opening(sub)) + _size(sub, depth - 1) for sub in _objects(holder, "subsections"))
    return _fields(holder) + sum(parts)


def _misplaced(holder: dict[str, Any], body: bytes) -> str | None:
    """The name of the first subsection that does not stand at its place."""
    at = _fields(holder)
    for sub in _objects(holder, "subsections"):
        opening = _opening(sub)
        if body[at : at + len(opening)] != opening:
            return str(sub["vmsd_name"])
        inner = _misplaced(sub, body[at + len(opening) :])
        if inner is not None:
            return inner
        at += len(opening) + _size(sub, _DEPTH)
    return None
