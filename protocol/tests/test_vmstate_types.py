"""What the types of fields mean, the tree of fields, sets of positions, and a device's bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig.legacy.vmstate import positions as p
from qmig.legacy.vmstate.containers import Array
from qmig.legacy.vmstate.model import OPAQUE, SUBSECTION_TYPE, DeviceState, Field, Note, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions
from qmig.legacy.vmstate.region import Header, Misfit, Region
from qmig.legacy.vmstate.rows import Row, Undescribed
from qmig.legacy.vmstate.shapes import NULL, VALID, Leaf, Optional
from qmig.legacy.vmstate.types import SCALARS, decode_value, text_of

# -- values ------------------------------------------------------------------------------------

DOUBLE = struct.pack(">d", -1.5)


@pytest.mark.parametrize(
    ("type_", "data", "count", "value"),
    [
        ("bool", "00", None, False),
        ("bool", "01", None, True),
        ("bool", "80", None, True),  # any byte but 0, as for QEMU's reader
        ("bool", "0100", 2, (True, False)),
        ("int8", "ff", None, -1),
        ("int16", "8000", None, -0x8000),
        ("int32", "fffffffe", None, -2),
        ("int64", "8000000000000000", None, -(1 << 63)),
        ("uint8", "ff", None, 255),
        ("uint16", "0102", None, 0x0102),
        ("uint32", "01020304", None, 0x01020304),
        ("uint64", "ffffffffffffffff", None, (1 << 64) - 1),
        ("int32 equal", "fffffffe", None, -2),
        ("uint8 equal", "ff", None, 255),
        ("uint16 equal", "ff00", None, 0xFF00),
        ("uint32 equal", "ff000000", None, 0xFF000000),
        ("int64 equal", "ffffffffffffffff", None, (1 << 64) - 1),  # QEMU's name for the uint64 one
        ("int32 le", "00000003", None, 3),  # less or equal, not little-endian
        ("timer", "ffffffffffffffff", None, (1 << 64) - 1),
        ("float64", DOUBLE.hex(), None, -1.5),
        ("CPU_Double_U", DOUBLE.hex(), None, -1.5),
        ("nullptr", "30", None, 0x30),
        ("ptr-marker", "31", None, 0x31),
        ("cpsr", "000001d3", None, 0x1D3),
        ("uint16", "00010002", 2, (1, 2)),
        ("uint32", "", 0, ()),
        ("uint32", "0102", None, b"\1\2"),  # not the size of the type
        ("uint32", "01020304", 2, b"\1\2\3\4"),
        ("bitmap", "00000000000000010000000000000002", None, (1, 2)),
        ("bitmap", "0001", None, b"\0\1"),
        ("bitmap", "", None, ()),
        ("pci irq state", "00000000000000010000000200000003", None, (0, 1, 2, 3)),
        ("pci irq state", "0000000000000001", 2, bytes(7) + b"\1"),
        ("GByteArray", "000000026162", None, b"ab"),
        ("GByteArray", "0002", None, b"\0\2"),
        ("buffer", "6162", None, b"ab"),
        ("unused_buffer", "0000", None, b"\0\0"),
        ("a device's own", "00ff", None, b"\0\xff"),
    ],
)
def test_values(type_: str, data: str, count: int | None, value: object) -> None:
    found = decode_value(type_, memoryview(bytes.fromhex(data)), count)
    assert found == value
    assert type(found) is type(value)


@given(st.sampled_from(sorted(SCALARS)), st.binary(max_size=64))
def test_an_array_has_the_values_of_its_elements(type_: str, data: bytes) -> None:
    _, size = SCALARS[type_]
    count = len(data) // size
    whole = memoryview(data)[: count * size]
    each = [decode_value(type_, whole[i * size : (i + 1) * size], None) for i in range(count)]
    assert repr(decode_value(type_, whole, count)) == repr(tuple(each))  # as text, since NaN is not NaN


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"running\0\0", "running"),
        (b"a b", "a b"),
        (b"", None),
        (b"\0\0", None),
        (b"a\0b", None),
        (b"\xe4", None),
    ],
)
def test_text_of_buffers(data: bytes, text: str | None) -> None:
    assert text_of(data) == text
    assert Field("f", "buffer", 0, memoryview(data)).text == text
    assert Field("f", "uint8", 0, memoryview(data)).text is None


# -- the tree ------------------------------------------------------------------------------------


def leaf(name: str, offset: int, data: bytes, type_: str = "buffer") -> Field:
    return Field(name, type_, offset, memoryview(data))


def test_tree() -> None:
    data = memoryview(bytes(range(10)))
    first, second = leaf("x", 100, b"\0\1", "uint16"), leaf("x", 102, b"\2\3", OPAQUE)
    first.index, second.index = 0, 1
    array = Field("a", "struct", 100, data[:4], 2, [first, second])
    sub = Field("dev/sub", SUBSECTION_TYPE, 104, data[4:], None, [leaf("y", 108, b"\x08", "uint8")])
    outer = Field("o", "struct", 100, data, None, [array, sub])
    assert [path for path, _ in outer.walk()] == [
        "o",
        "o.a",
        "o.a[0]",
        "o.a[1]",
        "o{dev/sub}",
        "o{dev/sub}.y",
    ]
    assert (outer.value, first.value, second.value, bytes(array.raw)) == (None, 1, b"\2\3", b"\0\1\2\3")
    assert outer.text is None
    assert repr(array) == "Field('a', 'struct', 0x64+4)"
    note = Note(NoteKind.SHORT, "why", 102, 2, "LEG-VMS-072")
    assert repr(note) == "Note(short, 'why', 0x66+2 [LEG-VMS-072])"
    state = DeviceState(
        idstr="dev",
        instance_id=1,
        vmsd_name="dev",
        version_id=3,
        offset=100,
        size=12,
        basis="vmdesc",
        fields=[outer, leaf("z", 110, b"ab", OPAQUE)],
        notes=[note],
    )
    assert (state.consumed, state.opaque_bytes()) == (12, 4)
    assert [path for path, _ in state.walk()][-1] == "z"
    assert repr(state) == "DeviceState('dev', 1, 0x64+12)"


# -- sets of positions ---------------------------------------------------------------------------

places = st.sets(st.integers(0, 80), max_size=12)


def made(values: set[int]) -> Positions:
    found = EMPTY
    for value in sorted(values, reverse=True):
        found = p.union((value, 1), found)
    return found


def back(positions: Positions) -> set[int]:
    low, mask = positions
    assert (low, mask) == EMPTY or mask & 1  # the one spelling of each set
    return set(p.each(positions))


@given(places, places, st.integers(0, 90))
def test_sets_are_sets(one: set[int], other: set[int], number: int) -> None:
    a, b = made(one), made(other)
    assert back(a) == one
    assert list(p.each(a)) == sorted(one)
    assert back(p.union(a, b)) == one | other
    assert back(p.meet(a, b)) == one & other
    assert back(p.without(a, b)) == one - other
    assert back(p.clip(a, number)) == {value for value in one if value <= number}
    assert back(p.move(a, number)) == {value + number for value in one}
    assert p.has(a, number) is (number in one)
    if one:
        assert p.highest(a) == max(one)


@given(st.integers(0, 50), st.integers(-2, 60), st.integers(0, 1 << 40))
def test_spans_and_masks(low: int, high: int, mask: int) -> None:
    assert back(p.span(low, high)) == set(range(low, high + 1))
    assert back(p.normal(low, mask)) == {low + bit for bit in range(41) if mask >> bit & 1}


# -- the bytes of a device -----------------------------------------------------------------------


def region(data: bytes, *, budget: int = 100_000) -> Region:
    return Region(memoryview(data), 0x1000, budget=budget)


def test_fields_are_made_inside_the_section_only() -> None:
    found = region(b"abcdef")
    field = found.field("f", "buffer", 2, 6)
    assert (field.offset, bytes(field.raw), field.count) == (0x1002, b"cdef", None)
    with pytest.raises(Misfit, match="'f' goes 1 bytes over the end") as caught:
        found.field("f", "buffer", 2, 7)
    assert (caught.value.place, caught.value.kind) == (2, NoteKind.SHORT)
    found.room = 1
    found.field("last", "buffer", 0, 1)
    with pytest.raises(Misfit, match=f"more than {limits.VMSTATE_FIELDS} fields") as caught:
        found.field("f", "buffer", 0, 1)
    assert caught.value.kind is NoteKind.BUDGET
    note = found.note(NoteKind.MISFIT, "m", 1, 3, "LEG-VMS-072")
    opaque = found.opaque("undecoded", 1, 3, note)
    assert (opaque.type, opaque.note, opaque.value, found.notes) == (OPAQUE, note, b"bc", [note])
    assert (note.offset, note.size) == (0x1001, 2)


def test_steps_are_counted_by_the_size_of_sets() -> None:
    found = region(b"", budget=3)
    found.spend(EMPTY, (0, 1))
    assert found.budget == 1
    with pytest.raises(Misfit, match="given up at its bound") as caught:
        found.spend((0, 1 << 4096))
    assert caught.value.kind is NoteKind.BUDGET


def test_too_many_places_to_go_through() -> None:
    assert region(b"").some(made({3, 5})) == [3, 5]
    assert len(region(b"").some(p.span(0, 511))) == 512
    with pytest.raises(Misfit, match="too many places") as caught:
        region(b"").some(p.span(0, 512))
    assert caught.value.kind is NoteKind.BUDGET


@given(
    st.lists(st.sampled_from(b"\0\1\5a"), max_size=200), places | st.just(set(range(200))), st.integers(0, 9)
)
def test_runs_of_allowed_bytes(data: list[int], starts: set[int], length: int) -> None:
    raw = bytes(data)
    starts = {place for place in starts if place + max(length, 1) <= len(raw)}
    found = region(raw)
    allowed = b"\0\1"
    assert back(found.where(allowed)) == {i for i, value in enumerate(raw) if value in allowed}
    want = {i for i in starts if not raw[i : i + length].translate(None, allowed)}
    if length or len(starts) <= 64:
        assert back(found.runs(made(starts), length, allowed)) == want


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13, 100, 101, 600])
def test_runs_from_many_places(length: int) -> None:
    raw = b"\2".join(bytes(size) for size in (100, 13, 7, 0, 2, 1, 250, 12))
    found = region(raw)
    starts = set(range(len(raw) - length + 1))
    assert len(starts) > 64 or length > 300
    want = {i for i in starts if not any(raw[i : i + length])}
    assert back(found.runs(made(starts), length, b"\0")) == want
    many = made(starts | set(range(600)))
    assert back(found.runs(many, length, b"\0")) == want


def opening(name: bytes, version: int = 1) -> bytes:
    return b"\x05" + bytes([len(name)]) + name + version.to_bytes(4, "big")


def test_openings_of_subsections() -> None:
    data = b"ab" + opening(b"dev/x", 7) + b"\x05\x05" + opening(b"dev/yy") + b"\x05\x03a\x01b1234"
    found = region(data)
    x, y = 2, 2 + 11 + 2
    headers = [Header(x, "dev/x", 7, x + 11), Header(y, "dev/yy", 1, y + 12)]
    assert found.headers(0, len(data)) == headers
    assert found.headers(x, x + 11) == headers[:1]
    assert found.headers(x + 1, len(data)) == headers[1:]
    assert found.headers(0, x + 10) == []  # its version is behind the end
    assert region(opening(b"dev/x")[:-1]).headers(0, 10) == []
    assert region(b"\x05\x09abc" + b"\0" * 20).headers(0, 25) == []  # the name is not all printable
    assert region(opening(b"a" * 255)).headers(0, 261)[0].name == "a" * 255


# -- rows ---------------------------------------------------------------------------------------


def test_a_row_of_alike_numbers_is_one_array() -> None:
    row = Row("r", [Leaf("r", "uint16", 2), Leaf("r", "uint16", 2)])
    field = row.explain(region(b"\0\1\0\2"), 0, 4)
    assert (field.type, field.count, field.value, row.fixed) == ("uint16", 2, (1, 2), 4)


def test_a_row_of_different_entries() -> None:
    entries = [Leaf("r", "uint16", 2), Leaf("r", "uint8", 1), Leaf("r", "buffer", 3)]
    field = Row("r", entries).explain(region(b"\0\1\2abc"), 0, 6)
    assert (field.type, field.count) == ("struct", 3)
    assert [(c.index, c.value, c.offset) for c in field.children or ()] == [
        (0, 1, 0x1000),
        (1, 2, 0x1002),
        (2, b"abc", 0x1003),
    ]


def test_a_marker_belongs_to_the_element_behind_it() -> None:
    marker = Leaf("r", "ptr-marker", 1, None, NULL + VALID)
    entries = [marker, Leaf("r", "uint16", 2), marker, marker, Leaf("r", "uint16", 2)]
    field = Row("r", entries).explain(region(b"1\0\1" + b"0" + b"1\0\2"), 0, 7)
    children = field.children or ()
    assert [(c.index, c.offset, c.size) for c in children] == [(0, 0x1000, 3), (1, 0x1003, 1), (2, 0x1004, 3)]
    assert children[1].value == 0x30
    assert [c.value for child in (children[0], children[2]) for c in child.children or ()] == [1, 2]
    with pytest.raises(Misfit, match="no element behind a marker") as caught:
        Row("r", [Leaf("r", "uint8", 1), marker]).explain(region(b"\x071"), 0, 2)
    assert caught.value.place == 1


def test_a_run_in_a_row_counts_its_elements() -> None:
    nulls = Leaf("r", "nullptr", 1, None, NULL)
    run = Array(Row("r", [Leaf("r", "uint8", 1), Leaf("r", "bool", 1)]), 2)
    field = Row("r", [nulls, run]).explain(region(b"0\1\1\2\0"), 0, 5)
    assert [(c.index, c.size) for c in field.children or ()] == [(0, 1), (1, 2), (2, 2)]


def test_an_entry_that_is_not_there_is_no_element() -> None:
    row = Row("r", [Leaf("r", "uint8", 1), Optional(Leaf("r", "buffer", 2))])
    field = row.explain(region(b"\1"), 0, 1)
    assert (field.count, row.fixed) == (1, 1)


def test_a_row_has_one_length() -> None:
    row = Row("r", [Leaf("r", "uint16", 2), Leaf("r", "uint8", 1)])
    found = region(bytes(10))
    assert back(row.ends(found, made({0, 5, 8}), 10)) == {3, 8}
    assert back(row.starts(found, made({3, 9}), made({0, 5}), 10)) == {0}


def test_arrays_of_which_only_null_elements_are_described() -> None:
    shape = Undescribed("u", 3)
    found = region(b"000abc")
    assert back(shape.ends(found, made({1, 2}), 6)) == {4, 5, 6}
    assert shape.ends(found, EMPTY, 6) == EMPTY
    assert back(shape.starts(found, made({5}), made({0, 2, 3}), 6)) == {0, 2}
    assert shape.starts(found, EMPTY, made({0}), 6) == EMPTY
    assert (shape.explain(found, 0, 3).type, shape.explain(found, 0, 3).value) == ("nullptr", (0x30,) * 3)
    opaque = shape.explain(found, 0, 6)
    assert (opaque.type, opaque.note) == (OPAQUE, found.notes[0])
    assert (found.notes[0].kind, found.notes[0].requirement) == (NoteKind.UNDESCRIBED, "LEG-VMS-071")
    assert Undescribed("u", None).explain(region(b"00"), 0, 2).type == OPAQUE
