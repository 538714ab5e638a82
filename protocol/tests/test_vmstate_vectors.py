"""Real sections with the description that came with them, and whole streams by each kind of schema."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any, NamedTuple

import pytest

from qmig.legacy import sections as s
from qmig.legacy.state import StreamState
from qmig.legacy.vmstate.decode import decode_device
from qmig.legacy.vmstate.dumpvmstate import parse_dump_vmstate
from qmig.legacy.vmstate.model import DeviceState, NoteKind
from qmig.legacy.vmstate.schema import (
    BuiltinSchema,
    DeviceSchema,
    StreamSchema,
    schema_from_dump,
    schema_from_earlier,
)
from qmig.legacy.vmstate.vmdesc import parse_vmdesc
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors
from qmig.testing.streams import read


def of(reader: str) -> list[Any]:
    vectors = load_vectors("legacy/vmstate#", reader=reader)
    return [pytest.param(vector, id=vector.id) for vector in vectors]


def leaves(state: DeviceState) -> list[tuple[str, int, int]]:
    """Path, offset and size of everything that has no parts. An array of one element is named
    as the element alone, since a description does not tell them apart."""
    return [
        (path.replace("[0]", ""), field.offset, field.size)
        for path, field in state.walk()
        if field.children is None and field.size
    ]


def shown(value: Any, raw: memoryview, expected: Any) -> Any:
    if isinstance(expected, dict):
        return {"sha256": hashlib.sha256(raw).hexdigest()}
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("vector", of("device-state"))
def test_sections(vector: Vector) -> None:
    """Every field by the section's own description: path, type, offset, size, value."""
    want = vector.expect["decoding"]
    (description,) = parse_vmdesc(vector.data("description")).devices
    state = decode_device(description, memoryview(vector.data()), 0, version_id=want["version_id"])
    assert state.notes == []
    assert state.vmsd_name == want["vmsd_name"]
    found = [(path, field) for path, field in state.walk() if field.children is None]
    assert len(found) == len(want["fields"])
    for (path, field), expected in zip(found, want["fields"], strict=True):
        value = shown(field.value, field.raw, expected[4])
        assert [path, field.type, field.offset, field.size, value] == expected
    assert sum(field.size for field in state.fields) == len(vector.data())


@pytest.mark.parametrize("vector", of("device-state"))
def test_truncated_sections(vector: Vector) -> None:
    """A body that ends early, at every length: all of it is in fields, and it says that it does not fit."""
    data = vector.data()
    (description,) = parse_vmdesc(vector.data("description")).devices
    step = 1 if len(data) < 700 else 7 if len(data) < 2000 else 197
    for size in range(0, len(data), step):
        state = decode_device(description, memoryview(data)[:size], 0)
        assert state.notes or not size
        assert sum(field.size for field in state.fields) == size


@pytest.mark.parametrize("vector", of("dump-vmstate"))
def test_dump_files(vector: Vector) -> None:
    dump = parse_dump_vmstate(vector.data())
    assert vector.expect["decoding"] == {
        "machine": dump.machine,
        "classes": len(dump.classes),
        "counts": dump.counts,
    }


# -- whole streams -------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A FULL section with its body, from a stream."""

    section: s.SectionFull
    data: memoryview
    offset: int


RECORDINGS = {v.id.partition("#")[2]: v for v in load_vectors("legacy/recordings#", reader="stream")}


@cache
def sections(name: str) -> tuple[list[Found], bytes | None]:
    """The FULL sections of a recording, and its description."""
    events, _ = read(RECORDINGS[name].data())
    found = []
    described = None
    for event in events:
        if isinstance(event, s.SectionFull):
            section = event
        elif isinstance(event, s.DeviceState):
            found.append(Found(section, memoryview(bytes(event.data)), event.offset))
        elif isinstance(event, s.VmDescription):
            described = bytes(event.json)
    return found, described


@cache
def dumped(version: str) -> DeviceSchema:
    (vector,) = load_vectors(f"legacy/vmstate#dump-{version}")
    return schema_from_dump(vector.data())


#: libslirp's own format
BLOBS = {"slirp"}
#: declared twice under one name, with other names inside
DOUBLE = {"serial"}


#: words in the names of recordings without a description (or whose stream begins inside the file)
WITHOUT = ("postcopy", "vmdesc-off", "mapped-ram-offset")


def is_arm(name: str) -> bool:
    return "arm" in name


@pytest.mark.parametrize("name", RECORDINGS)
def test_by_the_streams_own_description(name: str) -> None:
    found, text = sections(name)
    if text is None:
        assert any(word in name for word in WITHOUT), name
        return
    schema = StreamSchema(parse_vmdesc(text), own=True)
    for section, data, offset in found:
        assert len(data) in list(schema.ends(section, data))
        state = schema.decode(section, data, offset)
        assert state.notes == []
        assert state.consumed == len(data)
        assert state.basis == "vmdesc"


@pytest.mark.parametrize("name", [n for n in RECORDINGS if n.startswith(("7.2", "11.1")) and not is_arm(n)])
def test_by_a_dump_vmstate_file(name: str) -> None:
    """Without its description a stream decodes to the same fields, and leaves no byte."""
    found, text = sections(name)
    schema = dumped(name.partition("-")[0])
    own = StreamSchema(parse_vmdesc(text), own=True) if text is not None else None
    for section, data, offset in found:
        if section.idstr in BLOBS:
            continue
        state = schema.decode(section, data, offset)
        assert state.opaque_bytes() == 0, (section, state.notes)
        kinds = {note.kind for note in state.notes}
        assert kinds <= {NoteKind.INFERRED, NoteKind.AMBIGUOUS}
        if own is not None:
            want = own.decode(section, data, offset)
            here, there = leaves(state), leaves(want)
            if section.idstr in DOUBLE:
                here, there = [leaf[1:] for leaf in here], [leaf[1:] for leaf in there]  # type: ignore[misc]
            if section.idstr == "globalstate":  # read as from 8.2 on
                here, there = here[:1], there[:1]
            assert here == there


@pytest.mark.parametrize("name", [n for n in RECORDINGS if n.startswith(("7.2", "11.1")) and not is_arm(n)])
def test_ends_by_a_dump_vmstate_file(name: str) -> None:
    """The end of every section is proposed, and what stands behind it is enough to know it."""
    found, _ = sections(name)
    schema = dumped(name.partition("-")[0])
    data = RECORDINGS[name].data()
    for section, body, offset in found:
        if section.idstr in BLOBS or offset + len(body) > len(data):
            continue
        footer = b"\x7e" + section.section_id.to_bytes(4, "big")
        for length in schema.ends(section, memoryview(data)[offset:]):
            if data[offset + length : offset + length + 5] == footer:
                assert length == len(body)
                break
        else:
            pytest.fail(f"no end of {section}")


def test_by_an_earlier_stream() -> None:
    """Each recording of 11.1's q35 by the description of another one: what both have decodes alike."""
    earlier = sections("11.1-precopy-plain-q35")[1]
    assert earlier is not None
    schema = schema_from_earlier(earlier)
    known = {(device.name, device.instance_id) for device in parse_vmdesc(earlier).devices}
    compared = 0
    for name in RECORDINGS:
        if not name.startswith("11.1") or "microvm" in name or is_arm(name):
            continue
        found, text = sections(name)
        own = StreamSchema(parse_vmdesc(text), own=True) if text is not None else None
        for section, data, offset in found:
            if (section.idstr, section.instance_id) not in known:
                continue
            state = schema.decode(section, data, offset)
            assert state.basis == "schema"
            assert state.opaque_bytes() == 0, (name, section, state.notes)
            if own is not None:
                assert leaves(state) == leaves(own.decode(section, data, offset))
                compared += 1
    assert compared > 100


@pytest.mark.parametrize("footers", [True, False])
@pytest.mark.parametrize("name", ["11.1-precopy-plain-q35", "7.2-xbzrle", "11.1-precopy-plain-microvm"])
def test_device_state_alone(name: str, footers: bool) -> None:
    """What `xen-save-devices-state` writes: nothing but the file header, FULL sections and EOF. With
    the Xen accelerator there are no footers either, so that only the schema tells sections apart."""
    found, _ = sections(name)
    data = b"QEVM" + (3).to_bytes(4, "big")
    for section, body, _ in found:
        data += section.encode() + body
        data += b"\x7e" + section.section_id.to_bytes(4, "big") if footers else b""
    state = StreamState(schema=dumped(name.partition("-")[0]))
    events, error = read(data + b"\0", state=state)
    assert error is None
    bodies = [bytes(event.data) for event in events if isinstance(event, s.DeviceState)]
    assert bodies == [bytes(body) for _, body, _ in found]


def test_built_in_layouts() -> None:
    """What every machine has decodes without any schema: names and values."""
    found, _ = sections("11.1-postcopy")
    schema = BuiltinSchema()
    states = {section.idstr: schema.decode(section, data, offset) for section, data, offset in found}
    timer = {field.name: field.value for field in states["timer"].fields}
    assert timer["unused"] == bytes(8)
    assert isinstance(timer["cpu_clock_offset"], int)
    assert [field.name for field in states["cpu_common"].fields] == ["halted", "interrupt_request"]
    runstate = {field.name: field for field in states["globalstate"].fields}["runstate"]
    assert runstate.text in {"running", "paused", "postmigrate", "finish-migrate"}
    assert states["cpu"].basis == "built-in"
    assert states["cpu"].opaque_bytes() == 0
    assert states["0000:00:1f.0/ICH9LPC"].notes[0].kind is NoteKind.UNDESCRIBED


@pytest.mark.parametrize("known", [True, False])
def test_thousands_of_subsections(known: bool) -> None:
    """What looks like 8,000 subsections is read, or given up, in steps that grow with its size only."""
    sub = {"vmsd_name": "d/1", "version": 1, "fields": [{"name": "x", "type": "buffer", "size": 3}]}
    body = {"vmsd_name": "d", "version": 1, "fields": [{"name": "a", "type": "uint8", "size": 1}]}
    more = {"subsections": [sub]} if known else {}
    text = json.dumps({"page_size": 4096, "devices": [{"name": "d", "instance_id": 0, **body, **more}]})
    data = b"\0" + b"\5\3d/1\0\0\0\1" * 8_000
    section = s.SectionFull(section_id=1, idstr="d", instance_id=0, version_id=1)
    state = schema_from_earlier(text.encode()).decode(section, memoryview(data), 0)
    assert state.consumed == len(data)
    assert state.notes
