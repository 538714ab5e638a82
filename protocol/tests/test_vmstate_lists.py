"""Lists (qtailq, qlist, gtree), arrays, arrays of pointers: by lengths described, and by search."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.compiled import general
from qmig.legacy.vmstate.containers import Array, Struct
from qmig.legacy.vmstate.decode import budget_for, decode_body, decode_device
from qmig.legacy.vmstate.lists import Queue, Tree
from qmig.legacy.vmstate.model import OPAQUE, DeviceState, Field, NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, each
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.shapes import Blob, Leaf, Optional, Shape
from qmig.legacy.vmstate.vmdesc import DeviceDescription, parse_vmdesc

BASE = 0x100


class Repeated(dict[str, Any]):
    """A JSON object that has the keys of all `parts`, repeated."""

    def __init__(self, *parts: dict[str, Any]) -> None:
        super().__init__(x=1)
        self.parts = parts

    def items(self) -> Any:
        return [pair for part in self.parts for pair in part.items()]


def body(*fields: dict[str, Any], name: str = "e", subsections: list[Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"vmsd_name": name, "version": 1, "fields": list(fields)}
    return found | ({"subsections": subsections} if subsections else {})


def field(name: str, type_: str, size: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "size": size, **more}


def described(*fields: dict[str, Any], **more: Any) -> DeviceDescription:
    device = {"name": "dev", "instance_id": 0, **body(*fields, name="dev", **more)}
    return parse_vmdesc(json.dumps({"page_size": 4096, "devices": [device]}).encode()).devices[0]


def own(description: DeviceDescription, data: bytes) -> DeviceState:
    """Decoded by its own description."""
    return checked(decode_device(description, memoryview(data), BASE), data)


def other(description: DeviceDescription, data: bytes) -> DeviceState:
    """Decoded by a description of the same VMSD from elsewhere."""
    shape = general([description.body], 0)
    state = decode_body(
        shape, memoryview(data), BASE, idstr="dev", instance_id=0, version_id=None, basis="schema"
    )
    return checked(state, data)


def checked(state: DeviceState, data: bytes) -> DeviceState:
    """The same, every byte of which is in one field, in order."""
    place = BASE
    for one in state.fields:
        assert one.offset == place
        place += one.size
    assert place == BASE + len(data)
    assert b"".join(bytes(one.raw) for one in state.fields) == data
    return state


def values(state: DeviceState) -> dict[str, Any]:
    """Path -> value of all fields that have one."""
    return {path: one.value for path, one in state.walk() if one.children is None}


def notes(state: DeviceState) -> list[tuple[NoteKind, int, int]]:
    return [(note.kind, note.offset - BASE, note.size) for note in state.notes]


# -- qtailq and qlist ---------------------------------------------------------------------------

WORD = field("x", "uint16", 2)


def queue(type_: str, *bodies: dict[str, Any], size: int) -> dict[str, Any]:
    return Repeated({"name": "q", "type": type_}, *bodies, {"size": size})


@pytest.mark.parametrize("type_", ["qtailq", "qlist"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_lists_by_their_description(type_: str, count: int) -> None:
    data = b"".join(b"\1" + bytes([0, i]) for i in range(count)) + b"\0"
    description = described(queue(type_, *[body(WORD)] * count, size=len(data)), field("z", "uint8", 1))
    state = own(description, data + b"\x2a")
    assert not state.notes
    assert values(state) == {**{f"q[{i}].x": i for i in range(count)}, "z": 42}
    listed = state.fields[0]
    assert (listed.type, listed.count, listed.size) == (type_, count, len(data))
    first = (listed.children or ())[0]
    assert (first.type, first.size, first.vmsd_name, first.version) == ("struct", 3, "e", 1)
    # as many elements in another stream as there are
    for more in (0, 1, 7):
        data = b"".join(b"\1" + bytes([1, i]) for i in range(more)) + b"\0"
        state = other(description, data + b"\x07")
        assert (values(state), state.notes) == (
            {**{f"q[{i}].x": 256 + i for i in range(more)}, "z": 7},
            [],
        ) or not more
        assert state.fields[0].count == more


def test_elements_of_different_lengths() -> None:
    sub = b"\5\3e/s\0\0\0\1\x09"
    with_sub = body(WORD, subsections=[body(field("y", "uint8", 1), name="e/s")])
    data = b"\1\0\1" + sub + b"\1\0\2\0"
    description = described(queue("qtailq", with_sub, body(WORD), size=len(data)))
    for state in (own(description, data), other(description, data)):
        assert (values(state), state.notes) == ({"q[0].x": 1, "q[0]{e/s}.y": 9, "q[1].x": 2}, [])


def test_an_empty_list() -> None:
    description = described(field("q", "qlist", 1), field("z", "uint8", 1))
    state = own(description, b"\0\x05")
    assert (state.fields[0].count, state.fields[0].children, state.fields[1].value) == (0, [], 5)
    assert not other(description, b"\0\x05").notes
    # elements that nothing describes
    state = other(description, b"\1abc\0\x05")
    assert (state.fields[0].type, notes(state)) == (OPAQUE, [(NoteKind.UNDESCRIBED, 0, 5)])
    assert state.fields[1].value == 5
    state = own(described(field("q", "qlist", 3)), b"\1a\0")
    assert notes(state) == [(NoteKind.UNDESCRIBED, 0, 3)]
    for data in (b"\0\0", b"\2\0"):
        assert notes(own(described(field("q", "qlist", 2)), data)) == [(NoteKind.MISFIT, 0, 2)]


def test_lists_that_the_described_lengths_do_not_fit_are_searched() -> None:
    """5.2 measures elements right but a body with a conditional part may be listed once only."""
    sub = b"\5\3e/s\0\0\0\1\x09"
    with_sub = body(WORD, subsections=[body(field("y", "uint8", 1), name="e/s")])
    data = b"\1\0\1\1\0\2" + sub + b"\0"
    description = described(queue("qtailq", with_sub, body(WORD), size=len(data)))
    state = own(description, data)
    assert (values(state), state.notes) == ({"q[0].x": 1, "q[1].x": 2, "q[1]{e/s}.y": 9}, [])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\1\0\1\2", NoteKind.MISFIT),  # no end
        (b"\1\0\1\1\0\1", NoteKind.MISFIT),
        (b"\0\0\1\0", NoteKind.MISFIT),  # ends too early
        (b"\2\0\1\0", NoteKind.MISFIT),  # begins with no marker
    ],
)
def test_lists_that_are_none_stay_opaque(data: bytes, kind: NoteKind) -> None:
    description = described(queue("qtailq", body(WORD), size=len(data)), field("z", "uint8", 1))
    state = own(description, data + b"\x07")
    assert notes(state) == [(kind, 0, len(data))]
    assert (state.fields[0].type, state.fields[1].value) == (OPAQUE, 7)
    assert state.notes[0].requirement == "LEG-VMS-072"


def region(data: bytes, *, budget: int | None = None) -> Region:
    return Region(memoryview(data), BASE, budget=budget_for(len(data)) if budget is None else budget)


def numbers(positions: Positions) -> list[int]:
    return list(each(positions))


def shape_of(*shapes: Shape, name: str = "e") -> BodyShape:
    return BodyShape(name, 1, shapes)


def test_a_queue_with_two_readings_is_ambiguous() -> None:
    listed = Queue("q", "qtailq", shape_of(Blob("b", "buffer")))
    data = b"\1\1\0"
    assert numbers(listed.ends(region(data), (0, 1), 3)) == [3]
    field_ = listed.explain(region(data), 0, 3)
    assert (field_.type, field_.note and field_.note.kind) == (OPAQUE, NoteKind.AMBIGUOUS)


def test_ends_and_starts_of_queues() -> None:
    data = b"\1a\1b\0" + b"\0" + b"\1c\0\1"
    listed = Queue("q", "qtailq", shape_of(Leaf("b", "uint8", 1)))
    found = region(data)
    everywhere = (0, (1 << 11) - 1)
    assert numbers(listed.ends(found, (0, 1), 10)) == [5]
    assert numbers(listed.ends(found, (0, 1), 4)) == []
    assert numbers(listed.ends(found, everywhere, 10)) == [5, 6, 9]
    assert numbers(listed.starts(found, (5, 1), everywhere, 10)) == [0, 2, 4]
    assert numbers(listed.starts(found, (9, 1), everywhere, 10)) == [6, 8]
    assert numbers(listed.starts(found, (10, 1), everywhere, 10)) == []
    assert numbers(listed.starts(found, (5, 1), (10, 1), 10)) == []
    for positions in (EMPTY, (0, 1)):
        assert listed.starts(found, EMPTY, positions, 10) == EMPTY
        assert listed.ends(found, EMPTY, 10) == EMPTY
    free = Queue("q", "qtailq", None)
    assert numbers(free.ends(found, (0, 1), 10)) == list(range(2, 11))
    assert numbers(free.ends(found, (5, 1), 10)) == [6]
    assert numbers(free.starts(found, (6, 1), (0, (1 << 10) - 1), 10)) == [0, 2, 5]
    fixed = Queue("q", "qtailq", None, size=3)
    assert numbers(fixed.ends(found, (0, 0b11), 3)) == [3]
    assert numbers(fixed.starts(found, (3, 1), (0, 0b11), 10)) == [0]


# -- gtree -----------------------------------------------------------------------------------------


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def test_trees_with_direct_keys() -> None:
    one = body(WORD)
    data = u32(2) + b"".join(b"\1" + key.to_bytes(8, "big") + bytes([0, key]) for key in (5, 6)) + b"\0"
    description = described(Repeated(field("t", "gtree", len(data)), one, one), field("z", "uint8", 1))
    state = own(description, data + b"\x07")
    want = {"t[0].key": 5, "t[0].value.x": 5, "t[1].key": 6, "t[1].value.x": 6, "z": 7}
    assert (values(state), state.notes, state.fields[0].count) == (want, [], 2)
    assert values(other(description, data + b"\x07")) == want
    empty = other(description, u32(0) + b"\0\x07")
    assert (empty.fields[0].children, empty.fields[1].value, empty.notes) == ([], 7, [])


def test_trees_with_described_keys() -> None:
    key = body(field("low", "uint16", 2), field("high", "uint16", 2), name="k")
    value = body(field("v", "uint8", 1))
    data = u32(2) + b"\1\0\1\0\2\x0a" + b"\1\0\3\0\4\x0b" + b"\0"
    description = described(Repeated(field("t", "gtree", len(data)), key, value, key, value))
    want = {
        "t[0].key.low": 1, "t[0].key.high": 2, "t[0].value.v": 10,
        "t[1].key.low": 3, "t[1].key.high": 4, "t[1].value.v": 11,
    }  # fmt: skip
    for state in (own(description, data), other(description, data)):
        assert (values(state), state.notes) == (want, [])
        first = (state.fields[0].children or ())[0]
        assert [(one.vmsd_name, one.size) for one in first.children or ()] == [("k", 4), ("e", 1)]
    data = u32(1) + b"\1\0\1\0\2\x0a\0"
    state = other(description, data)
    assert (state.fields[0].count, state.notes) == (1, [])


def test_an_empty_tree_and_one_of_which_nothing_is_described() -> None:
    description = described(field("t", "gtree", 5), field("z", "uint8", 1))
    state = own(description, u32(0) + b"\0\x07")
    assert (state.fields[0].count, state.fields[1].value, state.notes) == (0, 7, [])
    assert not other(description, u32(0) + b"\0\x07").notes
    state = own(description, u32(1) + b"\0\x07")
    assert notes(state) == [(NoteKind.MISFIT, 0, 5)]


def test_a_tree_whose_size_no_reading_of_its_bodies_gives_is_bytes() -> None:
    state = own(described(Repeated(field("t", "gtree", 9), body(WORD))), bytes(9))
    assert (state.fields[0].type, state.fields[0].value) == ("gtree", bytes(9))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (u32(1) + b"\1" + bytes(8) + b"\0\1\1", NoteKind.MISFIT),  # no end marker
        (u32(1) + b"\2" + bytes(8) + b"\0\1\0", NoteKind.MISFIT),  # no element marker
        (u32(0) + b"\1" + bytes(8) + b"\0\1\0", NoteKind.MISFIT),  # count of another tree
        (u32(0xFFFFFFFF) + b"\1" + bytes(8) + b"\0\1\0", NoteKind.MISFIT),
    ],
)
def test_trees_that_are_none_stay_opaque(data: bytes, kind: NoteKind) -> None:
    description = described(Repeated(field("t", "gtree", len(data)), body(WORD)), field("z", "uint8", 1))
    state = own(description, data + b"\x07")
    assert (notes(state), state.fields[1].value) == ([(kind, 0, len(data))], 7)


def test_ends_and_starts_of_trees() -> None:
    data = u32(1) + b"\1abcdefgh\x09\0" + u32(0) + b"\0"
    tree = Tree("t", None, shape_of(Leaf("b", "uint8", 1)))
    found = region(data)
    assert numbers(tree.ends(found, (0, 1), 20)) == [15]
    assert numbers(tree.ends(found, (0, 1 | 1 << 15), 20)) == [15, 20]
    assert numbers(tree.starts(found, (20, 1), (0, 1 | 1 << 15), 20)) == [15]
    assert numbers(tree.starts(found, (15, 0b100001), (0, 1 | 1 << 15), 20)) == [0, 15]
    assert numbers(tree.ends(found, (17, 1), 20)) == []
    short = Tree("t", None, shape_of(Leaf("b", "buffer", 12)))
    assert numbers(short.ends(found, (0, 1), 11)) == []
    assert numbers(Tree("t", None, None).ends(found, (15, 1), 20)) == [20]


def test_keys_whose_end_is_not_certain() -> None:
    key = shape_of(Leaf("l", "uint8", 1), Optional(Leaf("o", "uint8", 1)))
    tree = Tree("t", key, shape_of(Blob("b", "buffer")))
    data = u32(1) + b"\1abcd\0"
    field_ = tree.explain(region(data), 0, len(data))
    assert field_.note is not None
    assert field_.note.kind is NoteKind.AMBIGUOUS
    two = Tree("t", key, shape_of(Leaf("l", "uint8", 1), Optional(Leaf("o", "uint8", 1))))
    data = u32(2) + b"\1\1\1\1\1\1\1\0"
    field_ = two.explain(region(data), 0, len(data))
    assert field_.note is not None
    assert field_.note.kind is NoteKind.AMBIGUOUS


# -- arrays ----------------------------------------------------------------------------------------


def test_arrays_of_numbers_and_of_structures() -> None:
    nested = {"struct": body(WORD)}
    description = described(
        field("a", "uint16", 2, array_len=3),
        field("s", "struct", 2, array_len=2, **nested),
        field("n", "int8", 1),
    )
    data = b"\0\1\0\2\0\3" + b"\0\4\0\5" + b"\xff"
    state = own(description, data)
    assert values(state) == {"a": (1, 2, 3), "s[0].x": 4, "s[1].x": 5, "n": -1}
    assert [one.count for one in state.fields] == [3, 2, None]
    assert values(other(description, data)) == values(state)


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_uncompressed_arrays_are_fields_of_one_name(index: dict[str, int]) -> None:
    """5.2 and 7.2 write an `index`, 11.1 none."""
    sub = body(field("y", "uint8", 1), name="e/s")
    entries = [
        field("s", "struct", 2, **index, struct=body(WORD)),
        field("s", "struct", 12, struct=body(WORD, subsections=[sub])),
    ]
    data = b"\0\4" + b"\0\5" + b"\5\3e/s\0\0\0\1\x09"
    description = described(*entries, field("n", "uint8", 1))
    state = own(description, data + b"\1")
    assert (values(state), state.notes) == ({"s[0].x": 4, "s[1].x": 5, "s[1]{e/s}.y": 9, "n": 1}, [])


def test_a_nested_vstruct_and_tmp() -> None:
    for type_ in ("vstruct", "tmp"):
        description = described({**field("t", type_, 2), **body(WORD)})
        state = own(description, b"\1\2")
        assert (values(state), state.fields[0].type, state.fields[0].vmsd_name) == ({"t.x": 258}, type_, "e")


# -- arrays of pointers -------------------------------------------------------------------------------


def pointers(*kinds: str) -> list[dict[str, Any]]:
    return [
        field("p", "nullptr", 1) if kind == "0" else field("p", "struct", 2, struct=body(WORD))
        for kind in kinds
    ]


def test_null_pointers_of_9_2_and_later_have_their_own_entries() -> None:
    description = described(*pointers("0", "v", "v", "0"), field("z", "uint8", 1))
    state = own(description, b"0" + b"\0\1\0\2" + b"0" + b"\7")
    assert (values(state), state.notes) == (
        {"p[0]": 0x30, "p[1].x": 1, "p[2].x": 2, "p[3]": 0x30, "z": 7},
        [],
    )
    runs = described(
        field("p", "nullptr", 1, array_len=2),
        field("p", "struct", 2, array_len=2, struct=body(WORD)),
        field("z", "uint8", 1),
    )
    state = own(runs, b"00" + b"\0\1\0\2" + b"\7")
    assert [one.size for one in state.fields] == [6, 1]
    want = {"p[0]": 0x30, "p[1]": 0x30, "p[2].x": 1, "p[3].x": 2, "z": 7}
    assert (values(state), state.fields[0].count, state.notes) == (want, 4, [])
    none = described(field("p", "nullptr", 1, array_len=0), field("p", "struct", 2, struct=body(WORD)))
    assert values(own(none, b"\0\1")) == {"p[0].x": 1}


def test_null_pointers_in_another_pattern_are_searched_for() -> None:
    description = described(*pointers("0", "v", "v"), field("z", "uint8", 1))
    state = other(description, b"\0\1" + b"0" + b"\0\2" + b"\7")
    assert (values(state), state.notes) == ({"p[0].x": 1, "p[1]": 0x30, "p[2].x": 2, "z": 7}, [])


def test_null_first_element_described_for_all_of_5_2() -> None:
    """5.2 to 9.1 describe a NULL first element for the whole array: the others are not described."""
    description = described(field("p", "nullptr", 1, array_len=3), field("z", "uint8", 1))
    state = own(description, b"000" + b"\7")
    assert (values(state), state.notes) == ({"p": (0x30,) * 3, "z": 7}, [])
    state = own(description, b"0" + b"ab" + b"0" + b"\7")
    assert (state.fields[0].type, state.fields[0].size, state.fields[1].value) == (OPAQUE, 4, 7)
    assert notes(state) == [(NoteKind.UNDESCRIBED, 0, 4)]
    assert state.notes[0].requirement == "LEG-VMS-071"


def test_non_null_first_element_described_for_all_of_5_2() -> None:
    description = described(field("p", "struct", 2, array_len=3, struct=body(WORD)), field("z", "uint8", 1))
    assert values(own(description, b"\0\1\0\2\0\3\7")) == {"p[0].x": 1, "p[1].x": 2, "p[2].x": 3, "z": 7}
    state = own(description, b"\0\1" + b"0" + b"\0\3" + b"\7")
    assert (values(state), state.notes) == ({"p[0].x": 1, "p[1]": 0x30, "p[2].x": 3, "z": 7}, [])


def marked(*kinds: str) -> list[dict[str, Any]]:
    found = []
    for kind in kinds:
        found.append(field("p", "ptr-marker", 1))
        if kind == "v":
            found.append(field("p", "struct", 2, struct=body(WORD)))
    return found


def test_auto_allocated_pointers_of_11_1_have_markers_in_front() -> None:
    description = described(*marked("v", "0", "v"), field("z", "uint8", 1))
    state = own(description, b"1\0\1" + b"0" + b"1\0\3" + b"\7")
    assert (values(state), state.notes) == ({"p[0].x": 1, "p[1]": 0x30, "p[2].x": 3, "z": 7}, [])
    # any pattern in another stream
    for data, want in [
        (b"0" + b"1\0\2", {"p[0]": 0x30, "p[1].x": 2, "z": 7}),
        (b"1\0\1" * 4, {"p[0].x": 1, "p[1].x": 1, "p[2].x": 1, "p[3].x": 1, "z": 7}),
    ]:
        state = other(description, data + b"\7")
        assert (values(state), state.notes) == (want, [])


def test_a_marker_that_is_neither() -> None:
    description = described(*marked("v"), field("z", "uint8", 1))
    state = own(description, b"2\0\1\7")
    assert state.notes
    assert state.fields[-1].type == OPAQUE


def test_all_pointers_null() -> None:
    description = described(*marked("0"), field("z", "uint8", 1))
    assert own(description, b"0\7").fields[0].value == 0x30
    assert own(description, b"1\7").fields[0].value == 0x31
    assert own(description, b"2\7").fields[0].type == OPAQUE


# -- arrays as shapes ------------------------------------------------------------------------------


def names_of(one: Field) -> list[tuple[int | None, int, int]]:
    return [(child.index, child.offset - BASE, child.size) for child in one.children or ()]


VARIABLE = shape_of(Leaf("n", "bool", 1, None, b"\0\1"), Optional(Leaf("o", "uint8", 1, None, b"\7")))


def test_elements_of_any_length() -> None:
    array = Array(Struct("a", VARIABLE), 3)
    data = b"\0\7\1\1\7"
    found = region(data)
    assert numbers(array.ends(found, (0, 1), 5)) == [4, 5]
    assert numbers(array.starts(found, (5, 1), (0, 0b11111), 5)) == [0]
    assert names_of(array.explain(found, 0, 5)) == [(0, 0, 2), (1, 2, 1), (2, 3, 2)]
    with pytest.raises(Misfit, match="ends elsewhere"):
        array.explain(found, 0, 2)
    with pytest.raises(Misfit, match="places of its elements are not certain"):
        Array(Struct("a", shape_of(Blob("b", "buffer"))), 2).explain(found, 0, 2)
    assert array.ends(found, EMPTY, 5) == EMPTY
    assert array.starts(found, EMPTY, (0, 1), 5) == EMPTY
    assert array.starts(found, (5, 1), EMPTY, 5) == EMPTY
    assert array.ends(region(b"\2\2"), (0, 1), 2) == EMPTY
    assert array.starts(region(b"\2\2"), (2, 1), (0, 1), 2) == EMPTY


def test_any_number_of_elements() -> None:
    array = Array(Struct("a", VARIABLE), None)
    data = b"\0\7\1\1\7\2"
    found = region(data)
    assert numbers(array.ends(found, (0, 1), 6)) == [0, 1, 2, 3, 4, 5]
    assert numbers(array.starts(found, (5, 1), (0, 0b111111), 6)) == [0, 2, 3, 5]
    assert names_of(array.explain(found, 0, 5)) == [(0, 0, 2), (1, 2, 1), (2, 3, 2)]
    assert names_of(array.explain(found, 2, 2)) == []
    with pytest.raises(Misfit):
        array.explain(found, 0, 6)


def test_any_number_of_elements_of_one_length() -> None:
    array = Array(Leaf("a", "uint16", 2), None)
    found = region(bytes(11))
    assert numbers(array.ends(found, (1, 1), 11)) == [1, 3, 5, 7, 9, 11]
    assert numbers(array.ends(found, (1, 1), 4)) == [1, 3]
    assert numbers(array.starts(found, (9, 1), (0, (1 << 11) - 1), 11)) == [1, 3, 5, 7, 9]
    assert array.explain(found, 1, 7).value == (0, 0, 0)
    assert array.explain(found, 3, 3).value == ()
    with pytest.raises(Misfit, match="3 bytes of elements of 2"):
        array.explain(found, 0, 3)
    allowed = Array(Leaf("a", "bool", 1, None, b"\0\1"), None)
    with pytest.raises(Misfit, match="bytes that it cannot have"):
        allowed.explain(region(b"\0\1\2"), 0, 3)


def test_a_count_that_is_not_certain() -> None:
    empty = Array(Struct("a", shape_of(Optional(Leaf("o", "uint8", 1, None, b"\7")))), None)
    with pytest.raises(Misfit, match="more than one count fits") as caught:
        empty.explain(region(b"\7"), 1, 1)
    assert caught.value.kind is NoteKind.AMBIGUOUS


def test_elements_of_no_bytes() -> None:
    array = Array(Leaf("a", "buffer", 0), 5)
    assert array.explain(region(b"x"), 1, 1).size == 0
    with pytest.raises(Misfit):
        Array(Leaf("a", "buffer", 0), None).explain(region(b"x"), 0, 1)
    many = Array(Struct("a", shape_of(Optional(Leaf("o", "uint8", 1)))), 1 << 40)
    with pytest.raises(Misfit, match="given up at its bound"):
        many.ends(region(b"x"), (0, 1), 1)
    with pytest.raises(Misfit, match="given up at its bound"):
        many.starts(region(b"x"), (0, 1), (0, 1), 1)


def test_marked_and_nullable_elements() -> None:
    marked_ = Array(Leaf("a", "uint8", 1), 2, marked=True)
    data = b"1x01y1z"
    found = region(data)
    assert numbers(marked_.ends(found, (0, 0b111), 7)) == [3, 5]
    assert numbers(marked_.starts(found, (5, 1), (0, 0b1111), 7)) == [2]
    field_ = marked_.explain(found, 2, 5)
    assert names_of(field_) == [(0, 2, 1), (1, 3, 2)]
    assert [child.value for child in (field_.children or ())[1].children or ()] == [ord("y")]
    nullable = Array(Leaf("a", "uint16", 2), 2, nullable=True)
    found = region(b"0ab0")
    assert numbers(nullable.ends(found, (0, 1), 4)) == [3, 4]
    assert numbers(nullable.starts(found, (4, 1), (0, 0b11), 4)) == [0, 1]
    assert names_of(nullable.explain(found, 0, 3)) == [(0, 0, 1), (1, 1, 2)]
    with pytest.raises(Misfit):
        nullable.explain(found, 0, 2)
    unclear = Array(Leaf("a", "uint16", 2), 2, nullable=True)
    with pytest.raises(Misfit, match="not certain") as caught:
        unclear.explain(region(b"000"), 0, 3)
    assert caught.value.kind is NoteKind.AMBIGUOUS


def test_one_more_optional_element_has_no_field_of_its_own() -> None:
    array = Array(Optional(Leaf("o", "uint8", 1)), 1)
    (child,) = array.explain(region(b""), 0, 0).children or ()
    assert (child.type, child.size) == ("unused_buffer", 0)


def test_arrays_of_one_length() -> None:
    array = Array(Leaf("a", "uint16", 2), 3)
    found = region(bytes(9))
    assert numbers(array.ends(found, (0, 0b11111), 9)) == [6, 7, 8, 9]
    assert numbers(array.starts(found, (8, 0b11), (0, 0b101), 9)) == [2]


def test_elements_that_are_not_like_the_first() -> None:
    marker = field("m", "ptr-marker", 1)
    description = described(
        field("s", "struct", 2, array_len=2, struct=body(marker, field("y", "uint8", 1))),
        field("z", "uint8", 1),
    )
    assert values(own(description, b"0a1b\7")) == {
        "s[0].m": 48,
        "s[0].y": 97,
        "s[1].m": 49,
        "s[1].y": 98,
        "z": 7,
    }
    state = own(description, b"0azb\7")
    assert state.notes
    assert "s[1].m" not in values(state)
    assert state.opaque_bytes() >= 2


def test_described_lengths_that_end_elsewhere() -> None:
    two = shape_of(Leaf("x", "uint16", 2))
    listed = Queue("q", "qtailq", two, listed=[two])
    assert listed.explain(region(b"\1\0\1\0"), 0, 4).count == 1
    data = b"\1\0\1\0\0\0"  # the end marker, and more
    assert listed.explain(region(data), 0, 6).type == OPAQUE
    tree = Tree("t", None, two, listed=[two])
    data = u32(1) + b"\1" + bytes(8) + b"\0\1\0"
    assert tree.explain(region(data), 0, len(data)).count == 1
    field_ = tree.explain(region(data + b"\0"), 0, len(data) + 1)
    assert field_.note is not None
    assert "ends at another place" in field_.note.message


def test_markers_of_a_row_go_together() -> None:
    """Elements have markers in front all or none: one of each kind is neither, and is not decoded."""
    inner = body(field("x", "uint8", 1))
    marker, element = field("p", "ptr-marker", 1), field("p", "struct", 1, struct=inner)
    description = described(marker, element, marker, element)
    for data, count in ((b"1a1b", 2), (b"0a0b", 4)):
        state = own(description, data)
        assert (state.notes, state.fields[0].count) == ([], count)
    assert own(description, b"1a0b").opaque_bytes()
