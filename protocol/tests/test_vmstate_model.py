"""A model of QEMU's writer: bodies of any shape with the description that QEMU would send.

What it writes is decoded back to the same values, by the body's own description; and by the
description of another body of the same VMSD to the same values or to bytes that are said to be
undecided, never to other values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmig.legacy.vmstate.decode import decode_device
from qmig.legacy.vmstate.model import OPAQUE, DeviceState, Field
from qmig.legacy.vmstate.schema import schema_from_earlier
from qmig.legacy.vmstate.vmdesc import parse_vmdesc

SIZES = {"bool": 1, "uint8": 1, "int16": 2, "uint32": 4, "int64": 8, "timer": 8}


@dataclass(frozen=True)
class Vmsd:
    """What is compiled in: fields by kind, and subsections that may be there."""

    name: str
    fields: tuple[tuple[str, str, Any], ...]  # name, kind, what kind needs
    subsections: tuple[Vmsd, ...] = ()


@dataclass
class Written:
    """What one save gives: bytes, description, and the values by path, for comparison."""

    data: bytes = b""
    described: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class Keys(dict[str, Any]):
    """A JSON object that repeats keys."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(x=0)
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


@st.composite
def vmsds(draw: Any, depth: int = 0, name: str = "d") -> Vmsd:
    kinds = ["scalar", "array", "buffer"]
    if depth < 2:
        kinds += ["struct", "structs", "list", "pointers"]
    fields = []
    for index in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(kinds))
        extra: Any
        if kind == "scalar":
            extra = draw(st.sampled_from(sorted(SIZES)))
        elif kind == "array":
            extra = draw(st.sampled_from(sorted(SIZES))), draw(st.integers(2, 4))
        elif kind == "buffer":
            extra = draw(st.integers(0, 6))
        else:
            extra = draw(vmsds(depth + 1, f"{name}{index}"))
        fields.append((f"f{index}", kind, extra))
    subs = []
    if depth < 2 and draw(st.booleans()):
        subs = [
            Vmsd(f"{name}/s{index}", (("x", "scalar", draw(st.sampled_from(sorted(SIZES)))),))
            for index in range(draw(st.integers(1, 2)))
        ]
    return Vmsd(name, tuple(fields), tuple(subs))


def scalar(draw: Any, type_: str) -> tuple[bytes, Any]:
    if type_ == "bool":
        flag = draw(st.booleans())
        return bytes([flag]), flag
    signed = type_.startswith("int")
    bits = 8 * SIZES[type_]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    number = draw(st.integers(low, high))
    return number.to_bytes(SIZES[type_], "big", signed=signed), number


def fits_in_one(vmsd: Vmsd) -> bool:
    """QEMU describes an array by its first element unless elements may have subsections or
    arrays with markers."""
    if vmsd.subsections or any(kind == "pointers" for _, kind, _ in vmsd.fields):
        return False
    return all(fits_in_one(extra) for _, kind, extra in vmsd.fields if kind in ("struct", "structs"))


def write(draw: Any, vmsd: Vmsd, path: str = "") -> Written:
    out = Written(described={"vmsd_name": vmsd.name, "version": 1, "fields": []})
    for name, kind, extra in vmsd.fields:
        here = f"{path}.{name}" if path else name
        WRITERS[kind](draw, out, name, extra, here)
    for sub in vmsd.subsections:
        if draw(st.booleans()):
            inner = write(draw, sub, f"{path}{{{sub.name}}}")
            head = b"\5" + bytes([len(sub.name)]) + sub.name.encode() + (1).to_bytes(4, "big")
            out.data += head + inner.data
            out.described.setdefault("subsections", []).append(inner.described)
            out.values |= inner.values
    return out


def add(out: Written, name: str, type_: str, size: int, **more: Any) -> None:
    out.described["fields"].append({"name": name, "type": type_, **more, "size": size})


def write_scalar(draw: Any, out: Written, name: str, type_: str, here: str) -> None:
    data, value = scalar(draw, type_)
    out.data += data
    out.values[here] = value
    add(out, name, type_, len(data))


def write_array(draw: Any, out: Written, name: str, kind: tuple[str, int], here: str) -> None:
    type_, count = kind
    pairs = [scalar(draw, type_) for _ in range(count)]
    out.data += b"".join(data for data, _ in pairs)
    out.values[here] = tuple(value for _, value in pairs)
    add(out, name, type_, SIZES[type_], array_len=len(pairs))


def write_buffer(draw: Any, out: Written, name: str, size: int, here: str) -> None:
    data = draw(st.binary(min_size=size, max_size=size))
    out.data += data
    out.values[here] = data
    add(out, name, "buffer", size)


def write_struct(draw: Any, out: Written, name: str, vmsd: Vmsd, here: str) -> None:
    inner = write(draw, vmsd, here)
    out.data += inner.data
    out.values |= inner.values
    add(out, name, "struct", len(inner.data), struct=inner.described)


def write_structs(draw: Any, out: Written, name: str, vmsd: Vmsd, here: str) -> None:
    """An array of fixed length. (One whose length differs from element to element of an outer
    array that is described by its first only can have the size of another reading.)"""
    count = 2 + len(vmsd.fields) % 2
    inners = [write(draw, vmsd, f"{here}[{index}]") for index in range(count)]
    for index, inner in enumerate(inners):
        out.data += inner.data
        out.values |= inner.values
        if not fits_in_one(vmsd):
            add(out, name, "struct", len(inner.data), struct=inner.described)
        elif index == 0:
            add(out, name, "struct", len(inner.data), array_len=count, struct=inner.described)


def write_list(draw: Any, out: Written, name: str, vmsd: Vmsd, here: str) -> None:
    start = len(out.data)
    keys: list[tuple[str, Any]] = [("name", name), ("type", "qtailq")]
    for index in range(draw(st.integers(0, 3))):
        inner = write(draw, vmsd, f"{here}[{index}]")
        out.data += b"\1" + inner.data
        out.values |= inner.values
        keys += inner.described.items()
    out.data += b"\0"
    keys.append(("size", len(out.data) - start))
    out.described["fields"].append(Keys(keys))


def write_pointers(draw: Any, out: Written, name: str, vmsd: Vmsd, here: str) -> None:
    """As 11.0 and later: a marker in front of every element."""
    for index in range(1 + len(vmsd.fields) % 3):
        valid = draw(st.booleans())
        out.data += b"1" if valid else b"0"
        add(out, name, "ptr-marker", 1)
        if valid:
            inner = write(draw, vmsd, f"{here}[{index}]")
            out.data += inner.data
            out.values |= inner.values
            add(out, name, "struct", len(inner.data), struct=inner.described)


WRITERS: dict[str, Callable[[Any, Written, str, Any, str], None]] = {
    "scalar": write_scalar,
    "array": write_array,
    "buffer": write_buffer,
    "struct": write_struct,
    "structs": write_structs,
    "list": write_list,
    "pointers": write_pointers,
}


def description(written: Written) -> bytes:
    device = {"name": "d", "instance_id": 0, **written.described}
    return json.dumps({"page_size": 4096, "devices": [device]}).encode()


def decoded_values(state: DeviceState) -> dict[str, Any]:
    """Values by path, as `Written.values` has them."""
    found = {}
    for path, one in state.walk():
        if one.children is None and one.type not in (OPAQUE, "ptr-marker", "nullptr"):
            found[path] = one.value
    return found


def shown(described: Any) -> set[str]:
    """The VMSDs that a description shows."""
    pairs = described.items() if isinstance(described, dict) else []
    found = {value for key, value in pairs if key == "vmsd_name"}
    inner = [value for _, value in pairs] if isinstance(described, dict) else described
    return found.union(*(shown(part) for part in inner if isinstance(part, list | dict)))


def whole(fields: Any, start: int, size: int) -> None:
    """Fields lie one behind the other and fill their parent."""
    for one in fields:
        assert one.offset == start
        start += one.size
        if one.children is not None:
            inside(one)
    assert size == start


def inside(parent: Field) -> None:
    """Children lie in order inside their parent; only markers and headers are between them."""
    place = parent.offset
    for child in parent.children or ():
        assert place <= child.offset
        place = child.offset + child.size
        if child.children is not None:
            inside(child)
    assert place <= parent.offset + parent.size


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(data=st.data())
def test_what_the_writer_wrote(data: Any) -> None:
    written = write(data.draw, data.draw(vmsds()))
    (device,) = parse_vmdesc(description(written)).devices
    state = decode_device(device, memoryview(written.data), 0, version_id=1)
    whole(state.fields, 0, len(written.data))
    got = decoded_values(state)
    if state.notes:  # elements of one array that are not alike, which the description hides
        assert state.opaque_bytes()
        assert all(got[path] == written.values[path] for path in got)
    else:
        wanted = {path: value for path, value in written.values.items() if value != b""}
        assert {path: value for path, value in got.items() if value != b""} == wanted


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(data=st.data())
def test_by_the_description_of_another_body(data: Any) -> None:
    """The same VMSD was saved twice. The first description is a schema for the second body."""
    vmsd = data.draw(vmsds())
    first, second = write(data.draw, vmsd), write(data.draw, vmsd)
    schema = schema_from_earlier(description(first))
    section = type("Section", (), {"section_id": 1, "idstr": "d", "instance_id": 0, "version_id": 1})
    state = schema.decode(section(), memoryview(second.data), 0)
    whole(state.fields, 0, len(second.data))
    got = decoded_values(state)
    if not state.loosened and shown(second.described) <= shown(first.described):
        assert all(got[path] == second.values[path] for path in got)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(data=st.data(), damage=st.binary(max_size=12), place=st.integers(0, 200), cut=st.integers(0, 40))
def test_damaged_bytes(data: Any, damage: bytes, place: int, cut: int) -> None:
    """Whatever the bytes are: no exception, every byte in a field, nothing outside."""
    written = write(data.draw, data.draw(vmsds()))
    broken = bytearray(written.data)
    broken[place : place + cut] = damage
    (device,) = parse_vmdesc(description(written)).devices
    state = decode_device(device, memoryview(bytes(broken)), 0x100)
    whole(state.fields, 0x100, 0x100 + len(broken))
    for note in state.notes:
        assert 0x100 <= note.offset <= note.offset + note.size <= 0x100 + len(broken)
