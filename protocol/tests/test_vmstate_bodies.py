"""Bodies: the search for readings, fields made of them, subsections, whole streams of real builds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmig import limits
from qmig.legacy import sections as s
from qmig.legacy.vmstate import bodies as bodies_module
from qmig.legacy.vmstate import known
from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.compiled import general, rows_of, tight
from qmig.legacy.vmstate.containers import Array, Struct
from qmig.legacy.vmstate.decode import decode_body, decode_device
from qmig.legacy.vmstate.lists import Queue, Tree
from qmig.legacy.vmstate.model import OPAQUE, SUBSECTION_TYPE, DeviceState, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, each, union
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.rows import Row, Undescribed
from qmig.legacy.vmstate.shapes import Blob, Either, Leaf, Optional, Shape, Sized
from qmig.legacy.vmstate.vmdesc import Body, DeviceDescription, parse_vmdesc
from qmig.testing import load_vectors
from qmig.testing.streams import read

BASE = 0x100


def region(data: bytes) -> Region:
    return Region(memoryview(data), BASE, budget=1 << 30)


def numbers(positions: Positions) -> list[int]:
    return list(each(positions))


def made(values: set[int]) -> Positions:
    found = EMPTY
    for value in values:
        found = union(found, (value, 1))
    return found


# -- each shape against itself, place by place ------------------------------------------------------

leaves = st.builds(
    Leaf,
    st.just("l"),
    st.just("buffer"),
    st.integers(0, 3),
    st.none() | st.integers(0, 2),
    st.sampled_from([None, b"\0\1", b"01"]),
)
blobs = st.sampled_from([Blob("b", "buffer"), Undescribed("u", 2), Undescribed("u", None)])
sized = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(lambda sizes: Sized("s", "buffer", sizes))


def compound(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    body = st.lists(inner, min_size=1, max_size=2).map(lambda shapes: BodyShape("v", 1, shapes))
    counts = st.none() | st.integers(0, 3)
    return st.one_of(
        inner.map(Optional),
        st.lists(inner, min_size=1, max_size=2).map(Either),
        st.builds(Array, inner, counts, nullable=st.booleans()),
        st.builds(Array, inner, counts, marked=st.just(True)),
        st.builds(Struct, st.just("t"), body),
        st.builds(Queue, st.just("q"), st.just("qlist"), st.none() | body),
        st.builds(Tree, st.just("g"), st.none() | body, body),
        st.lists(leaves, min_size=1, max_size=3).map(lambda entries: Row("r", entries)),
    )


shapes = st.recursive(leaves | blobs | sized, compound, max_leaves=4)
DATA = st.lists(st.sampled_from(b"\0\1015\2"), max_size=14).map(bytes)


@given(shapes, DATA, st.sets(st.integers(0, 14), max_size=5), st.sets(st.integers(0, 14), max_size=5))
@settings(max_examples=300, deadline=None)
def test_searching_many_places_is_searching_each(
    shape: Shape, data: bytes, starts: set[int], goal: set[int]
) -> None:
    """`ends` of a set is the union of those of its members; `starts` are those with an end in the goal."""
    end = len(data)
    starts = {place for place in starts if place <= end}
    goal = {place for place in goal if place <= end}
    found = region(data)
    one_by_one = {place: set(numbers(shape.ends(found, (place, 1), end))) for place in starts}
    assert all(place <= reach <= end for place, reaches in one_by_one.items() for reach in reaches)
    assert set(numbers(shape.ends(found, made(starts), end))) == set().union(*one_by_one.values())
    leading = {place for place, reaches in one_by_one.items() if reaches & goal}
    assert set(numbers(shape.starts(found, made(goal), made(starts), end))) == leading


@given(shapes, DATA, st.integers(0, 14))
@settings(max_examples=300, deadline=None)
def test_fields_take_the_bytes_that_they_are_made_of(shape: Shape, data: bytes, start: int) -> None:
    found = region(data)
    for end in numbers(shape.ends(found, (start, 1), len(data))) if start <= len(data) else []:
        try:
            field = shape.explain(found, start, end)
        except Misfit:
            continue
        if field is None:
            assert start == end
            continue
        assert (field.offset, field.size) == (BASE + start, end - start)
        for _, one in field.walk():
            assert field.offset <= one.offset <= one.offset + one.size <= field.offset + field.size
            place = one.offset
            for child in one.children or ():
                assert child.offset >= place
                place = child.offset + child.size


@given(st.lists(shapes, min_size=1, max_size=3), DATA)
@settings(max_examples=300, deadline=None)
def test_a_body_is_read_whole_whatever_it_is(fields: list[Shape], data: bytes) -> None:
    body = BodyShape("v", 1, fields)
    state = decode_body(body, memoryview(data), BASE, idstr="d", instance_id=0, version_id=1, basis="vmdesc")
    assert b"".join(bytes(field.raw) for field in state.fields) == data
    assert state.consumed == len(data)
    assert bool(state.opaque_bytes()) <= bool(state.notes)


# -- single shapes -----------------------------------------------------------------------------------


def test_sized() -> None:
    shape = Sized("s", "buffer", [4, 2])
    found = region(bytes(8))
    assert numbers(shape.ends(found, made({0, 3}), 6)) == [2, 4, 5]
    assert shape.explain(found, 1, 5).value == bytes(4)
    with pytest.raises(Misfit, match="'s' cannot have 3 bytes"):
        shape.explain(found, 0, 3)


# -- bodies ------------------------------------------------------------------------------------------


def opening(name: str, version: int = 1) -> bytes:
    return b"\x05" + bytes([len(name)]) + name.encode() + version.to_bytes(4, "big")


def decoded(body: BodyShape, data: bytes, version: int | None = None) -> DeviceState:
    state = decode_body(
        body, memoryview(data), BASE, idstr="dev", instance_id=2, version_id=version, basis="schema"
    )
    assert b"".join(bytes(field.raw) for field in state.fields) == data
    return state


def outline(state: DeviceState) -> dict[str, Any]:
    return {path: one.value for path, one in state.walk() if one.children is None}


def notes(state: DeviceState) -> list[tuple[NoteKind, int, int, str]]:
    return [(note.kind, note.offset - BASE, note.size, note.requirement) for note in state.notes]


BYTE = Leaf("x", "uint8", 1)
SUB = BodyShape("dev/s", 1, [Leaf("y", "uint8", 1)])
OTHER = BodyShape("dev/t", 1, [Leaf("z", "uint16", 2)])


@pytest.mark.parametrize("order", [[], ["s"], ["t"], ["s", "t"], ["t", "s"], ["s", "s"]])
def test_subsections_in_any_order_and_number(order: list[str]) -> None:
    parts = {"s": opening("dev/s", 3) + b"\x09", "t": opening("dev/t") + b"\1\2"}
    data = b"\7" + b"".join(parts[name] for name in order)
    state = decoded(BodyShape("dev", 1, [BYTE], [SUB, OTHER]), data)
    assert not state.notes
    assert [field.name for field in state.fields] == ["x", *(f"dev/{name}" for name in order)]
    assert all(field.type == SUBSECTION_TYPE for field in state.fields[1:])
    want = {"s": ("y", 9, 3), "t": ("z", 258, 1)}
    got = [((f.children or ())[0].name, (f.children or ())[0].value, f.version) for f in state.fields[1:]]
    assert got == [want[name] for name in order]


def test_subsections_in_searched_bodies() -> None:
    body = BodyShape("dev", 1, [BYTE, Optional(Leaf("a", "bool", 1, None, b"\0\1"))], [SUB])
    for there in (b"", b"\1"):
        state = decoded(body, b"\7" + there + opening("dev/s") + b"\x09")
        assert outline(state) == {"x": 7, **({"a": True} if there else {}), "{dev/s}.y": 9}
        assert not state.notes


def test_subsections_that_no_schema_has() -> None:
    unknown = opening("dev/u") + b"abc"
    closed = decoded(BodyShape("dev", 1, [BYTE], [SUB]), b"\7" + unknown)
    assert notes(closed) == [(NoteKind.EXCESS, 1, len(unknown), "LEG-VMS-072")]
    body = BodyShape("dev", 1, [BYTE], [SUB], open=True)
    state = decoded(body, b"\7" + unknown + opening("dev/s") + b"\x09")
    assert [field.name for field in state.fields] == ["x", "dev/u", "dev/s"]
    assert notes(state) == [(NoteKind.UNDESCRIBED, 1 + 11, 3, "LEG-VMS-073")]
    # one of another device is none of this body
    state = decoded(body, b"\7" + opening("other/u") + b"abc")
    assert notes(state)[0][0] is NoteKind.EXCESS


def test_subsections_with_bodies_of_uncertain_length() -> None:
    loose = BodyShape("dev/s", 1, [Blob("b", "buffer")])
    state = decoded(BodyShape("dev", 1, [BYTE], [loose]), b"\7" + opening("dev/s") + b"abc")
    assert state.fields[1].size == 14
    twice = b"\7" + opening("dev/s") + b"a" + opening("dev/s") + b"b"
    state = decoded(BodyShape("dev", 1, [BYTE], [loose]), twice)
    assert b"".join(bytes(field.raw) for field in state.fields) == twice
    short = decoded(BodyShape("dev", 1, [BYTE], [SUB]), b"\7" + opening("dev/s"))
    assert short.notes
    assert short.fields[0].value == 7


def test_a_listed_subsection_of_unknown_length() -> None:
    body = BodyShape("dev", 1, [BYTE], [BodyShape("dev/s", 1, [Blob("b", "buffer")])], exact=True)
    assert body.fixed is None
    state = decoded(body, b"\7" + opening("dev/s") + b"ab")
    assert notes(state)[0][1:] == (1, 13, "LEG-VMS-072")


def test_what_two_readings_share_is_decoded() -> None:
    body = BodyShape(
        "dev",
        1,
        [
            Leaf("a", "uint8", 1),
            Optional(Leaf("b", "uint8", 1)),
            Optional(Leaf("c", "uint8", 1)),
            Leaf("d", "uint8", 1),
        ],
    )
    state = decoded(body, b"\1\2\3")
    assert [(field.name, field.type) for field in state.fields] == [
        ("a", "uint8"),
        ("undecoded", OPAQUE),
        ("d", "uint8"),
    ]
    assert notes(state) == [(NoteKind.AMBIGUOUS, 1, 1, "LEG-VMS-072")]
    assert outline(decoded(body, b"\1\2\3\4")) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert outline(decoded(body, b"\1\4")) == {"a": 1, "d": 4}


def test_an_uncertain_end_of_the_fields() -> None:
    body = BodyShape("dev", 1, [Blob("b", "buffer")], [BodyShape("dev/s", 1, [Blob("c", "buffer")])])
    state = decoded(body, b"a" + opening("dev/s") + b"c")
    assert state.opaque_bytes() or not state.notes


def test_a_field_that_does_not_fit_between_two_certain_places() -> None:
    queue = Queue("q", "qtailq", BodyShape("e", 1, [Blob("b", "buffer")]))
    body = BodyShape("dev", 1, [BYTE, Either([Leaf("e", "bool", 1), Leaf("e", "uint8", 1)]), queue, BYTE])
    state = decoded(body, b"\7\1\0\x08")
    assert [field.type for field in state.fields] == ["uint8", OPAQUE, "qtailq", "uint8"]
    assert notes(state) == [(NoteKind.AMBIGUOUS, 1, 1, "LEG-VMS-072")]


def test_too_few_and_too_many_bytes() -> None:
    body = BodyShape("dev", 1, [BYTE, Leaf("y", "uint16", 2)], exact=True)
    state = decoded(body, b"\7\1")
    assert outline(state) == {"x": 7, "undecoded": b"\1"}
    state = decoded(body, b"\7\0\1abc")
    assert outline(state) == {"x": 7, "y": 1, "undecoded": b"abc"}
    assert notes(state)[0][1:3] == (3, 3)
    open_body = BodyShape("dev", 1, [BYTE, Leaf("y", "uint16", 2)], [SUB])
    assert notes(decoded(open_body, b"\7\1"))[0][0] is NoteKind.SHORT
    assert notes(decoded(open_body, b"\7\0\1abc"))[0][0] is NoteKind.EXCESS
    assert outline(decoded(BodyShape("dev", 1, [Leaf("b", "bool", 1, None, b"\0\1")]), b"\7")) == {
        "undecoded": b"\7"
    }


def test_a_version_that_the_description_does_not_have() -> None:
    state = decoded(BodyShape("dev", 4, [BYTE]), b"\7", version=3)
    assert (state.version_id, state.vmsd_name, state.instance_id) == (3, "dev", 2)
    assert notes(state) == [(NoteKind.MISFIT, 0, 1, "LEG-VMS-054")]
    assert decoded(BodyShape("dev", 4, [BYTE]), b"\7").version_id == 4
    old = decoded(BodyShape("", 0, [BYTE]), b"\7", version=3)
    assert (old.vmsd_name, old.notes) == (None, [])


def test_a_search_is_not_begun_in_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VMSTATE_SEARCH", 3)
    body = BodyShape("dev", 1, [BYTE, Blob("b", "buffer")])
    assert outline(decoded(body, b"\7abc")) == {"x": 7, "b": b"abc"}
    state = decoded(body, b"\7abcd")
    assert (outline(state), notes(state)[0][0]) == ({"x": 7, "undecoded": b"abcd"}, NoteKind.BUDGET)


def test_many_places_are_searched_as_one_set(monkeypatch: pytest.MonkeyPatch) -> None:
    body = BodyShape(
        "e", 1, [Leaf("n", "bool", 1, None, b"\0\1"), Optional(BYTE)], [BodyShape("e/s", 1, [BYTE])]
    )
    data = b"\0\1\2\0" + opening("e/s") + b"\7\1" + b"\0\1" * 30
    starts, goal = set(range(len(data) - 1)), {3, 14, 15, 40}
    results = []
    for few in (1000, 0):
        monkeypatch.setattr(bodies_module, "_FEW", few)
        found = region(data)
        results.append(
            (
                numbers(body.ends(found, made(starts), len(data))),
                numbers(body.starts(found, made(goal), made(starts), len(data))),
            )
        )
    assert results[0] == results[1]
    assert results[0][1]


# -- descriptions ------------------------------------------------------------------------------------


def description(fields: list[Any], subsections: list[Any] | None = None) -> DeviceDescription:
    device = {"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1, "fields": fields}
    if subsections:
        device["subsections"] = subsections
    return parse_vmdesc(json.dumps({"page_size": 4096, "devices": [device]}).encode()).devices[0]


TYPES = [
    "uint8",
    "uint16",
    "buffer",
    "unused_buffer",
    "bitmap",
    "struct",
    "tmp",
    "qtailq",
    "gtree",
    "nullptr",
]
TYPES += ["ptr-marker", "GByteArray", "usb-redir-bufpq", "own", "timer", "pci config"]


def descriptions() -> st.SearchStrategy[list[Any]]:
    def field(name: str, type_: str, size: int, count: int | None, body: list[Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = {"name": name, "type": type_, "size": size}
        if count is not None:
            found["array_len"] = count
        if body is not None:
            nested = {"vmsd_name": "e", "version": 1, "fields": body}
            found |= {"struct": nested} if type_ == "struct" else nested
        return found

    def fields(body: st.SearchStrategy[list[Any] | None]) -> st.SearchStrategy[list[Any]]:
        one = st.builds(
            field,
            st.sampled_from("abc"),
            st.sampled_from(TYPES),
            st.sampled_from([0, 1, 2, 4, 8, 1 << 30]),
            st.sampled_from([None, None, 0, 1, 2, 3, 1 << 40]),
            body,
        )
        return st.lists(one, max_size=3)

    return fields(st.none() | fields(st.none() | fields(st.none())))


@given(descriptions(), descriptions(), st.binary(max_size=40) | DATA)
@settings(max_examples=400, deadline=None)
def test_any_description_reads_any_bytes_in_bounded_time(
    fields: list[Any], sub: list[Any], data: bytes
) -> None:
    found = description(fields, [{"vmsd_name": "d/s", "version": 1, "fields": sub}])
    for shape in (tight(found.body), general([found.body], 0)):
        state = decode_body(
            shape, memoryview(data), BASE, idstr="d", instance_id=0, version_id=1, basis="vmdesc"
        )
        assert b"".join(bytes(field.raw) for field in state.fields) == data
        assert bool(state.opaque_bytes()) <= bool(state.notes)
        for _, field in state.walk():
            assert BASE <= field.offset <= field.offset + field.size <= BASE + len(data)


# -- recordings --------------------------------------------------------------------------------------


def recorded(name: str) -> tuple[bytes, list[DeviceState], list[Body]]:
    (vector,) = load_vectors(f"legacy/recordings#{name}")
    data = vector.data()
    events, error = read(data)
    assert error is None
    (text,) = [event for event in events if isinstance(event, s.VmDescription)]
    devices = parse_vmdesc(bytes(text.json)).devices
    headers = [event for event in events if isinstance(event, s.SectionFull)]
    states = [event for event in events if isinstance(event, s.DeviceState)]
    found = [
        decode_device(device, memoryview(state.data), state.offset, version_id=header.version_id)
        for device, header, state in zip(devices, headers, states, strict=True)
    ]
    return data, found, [device.body for device in devices]


def told(state: DeviceState) -> list[Any]:
    """All fields that take bytes."""
    return [(path, one.type, one.offset, one.size, one.value) for path, one in state.walk() if one.size]


@pytest.mark.parametrize(
    ("name", "devices", "fields", "ticks", "pinned"),
    [
        ("5.2-precopy-plain-microvm", 13, 427, 410775050, {"cpu": {"env.eip": 983225}}),
        ("10.0-precopy-plain-pc", 31, 1548, 410005396, {"cpu": {"env.eip": 31929}, "apic": {"id": 0}}),
        ("11.1-precopy-plain-q35", 37, 3921, 919666192, {"cpu": {"env.eip": 31929}}),
        ("7.2-precopy-arm-virt", 16, 8317, 399472596, {"cpu": {"env.regs": (0,) * 16}}),
        ("11.1-precopy-arm-virt", 16, 8322, 585973092, {"cpu": {"env.regs": (0,) * 16}}),
    ],
)
def test_recordings(
    name: str, devices: int, fields: int, ticks: int, pinned: dict[str, dict[str, Any]]
) -> None:
    data, states, described = recorded(name)
    assert (len(states), sum(1 for state in states for _ in state.walk())) == (devices, fields)
    assert not any(state.notes or state.opaque_bytes() for state in states)
    found = {state.idstr: dict(state.walk()) for state in states}
    assert found["globalstate"]["size"].value == len("running") + 1
    assert found["globalstate"]["runstate"].text == "running"
    assert found["timer"]["cpu_ticks_offset"].value == ticks
    for idstr, values in pinned.items():
        for path, value in values.items():
            assert found[idstr][path].value == value
    for state in states:
        for _, field in state.walk():
            assert data[field.offset : field.offset + field.size] == field.raw
    # the same fields by the general shape, which has to search
    whole = 0
    for state, body in zip(states, described, strict=True):
        raw = memoryview(data)[state.offset : state.offset + state.size]
        again = decode_body(
            general([body], 0), raw, state.offset, idstr="", instance_id=0, version_id=None, basis="schema"
        )
        if not again.notes:
            whole += 1
            assert told(again) == told(state)
    assert whole >= len(states) - 2


def test_rows() -> None:
    field = {"type": "uint8", "size": 1}
    body = description([{"name": name, **field} for name in "aabaa"]).body
    assert [[one.name for one in row] for row in rows_of(body)] == [["a", "a"], ["b"], ["a", "a"]]


def test_an_array_whose_length_a_field_in_front_is_known_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "encodings", lambda: {"d": {"arr": "struct*@n", "opt": "uint8?n"}})
    nested = {"vmsd_name": "e", "version": 1, "fields": [{"name": "x", "type": "uint8", "size": 1}]}

    def fields(count: int) -> list[Any]:
        array = {"name": "arr", "array_len": count, "type": "struct", "struct": nested, "size": 1}
        return [{"name": "n", "type": "uint32", "size": 4}, array, {"name": "q", "type": "qlist", "size": 1}]

    shape = general([description(fields(2)).body, description(fields(3)).body], 0)
    for count in (1, 2, 5):
        state = decoded(shape, count.to_bytes(4, "big") + b"\1" * count + b"\0")
        assert (state.fields[1].count, state.notes) == (count, [])
    assert decoded(shape, (9).to_bytes(4, "big") + b"\1\0").notes
