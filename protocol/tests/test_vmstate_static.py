"""Schemas from elsewhere: `-dump-vmstate` files, other streams, built-in layouts; where a section ends."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig.errors import RemoteProtocolError
from qmig.legacy.vmstate import follow, known, schema
from qmig.legacy.vmstate.dumpvmstate import parse_dump_vmstate
from qmig.legacy.vmstate.known import Encoding, parse_encoding
from qmig.legacy.vmstate.linked import (
    Linked,
    Msix,
    Own,
    PciConfig,
    counted_size,
    msix_size,
    packet_ids_size,
    packets_size,
    pci_config_size,
)
from qmig.legacy.vmstate.model import DeviceState, NoteKind
from qmig.legacy.vmstate.positions import Positions, each
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.schema import (
    DeviceSchema,
    Section,
    names_of,
    schema_from_dump,
    schema_from_earlier,
    schema_from_vmdesc,
)
from qmig.legacy.vmstate.shapes import Blob, Leaf
from qmig.testing.streams import VMDESC

BASE = 0x1000


def section(idstr: str, version_id: int = 1, instance_id: int = 0, section_id: int = 7) -> Section:
    return cast(
        "Section",
        SimpleNamespace(section_id=section_id, idstr=idstr, instance_id=instance_id, version_id=version_id),
    )


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


# -- the file ----------------------------------------------------------------------------------------


def field(name: str, size: int, version_id: int = 0, *, exists: bool = False, **more: Any) -> dict[str, Any]:
    return {"field": name, "version_id": version_id, "field_exists": exists, "size": size, **more}


def vmsd(name: str, *fields: dict[str, Any], version_id: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version_id": version_id,
        "minimum_version_id": 1,
        **({"Fields": list(fields)} if fields else {}),
        **more,
    }


def dump(**classes: Any) -> bytes:
    found: dict[str, Any] = {"vmschkmachine": {"Name": "pc"}}
    for name, one in classes.items():
        found[name] = {"Name": name, "version_id": 1, "minimum_version_id": 1, "Description": one}
    return json.dumps(found).encode()


def test_a_dump() -> None:
    nested = vmsd("inner", field("b", 4), version_id=3)
    found = parse_dump_vmstate(
        dump(
            dev=vmsd(
                "outer",
                field("a", 2, 1, exists=True, num=5),
                field("x", 1),
                field("x", 8, Description=nested),
                Subsections=[vmsd("outer/s", field("y", 1))],
            )
        )
    )
    assert (found.machine, found.counts, list(found.classes)) == ("pc", True, ["dev"])
    outer = found.classes["dev"]
    assert [(f.name, f.version_id, f.size, f.conditional, f.num) for f in outer.fields] == [
        ("a", 1, 2, True, 5),
        ("x[0]", 0, 1, False, None),
        ("x[1]", 0, 8, False, None),
    ]
    inner = outer.fields[2].vmsd
    assert inner is not None
    assert (inner.name, inner.version_id, inner.minimum_version_id) == ("inner", 3, 1)
    assert [one.name for one in outer.within()] == ["outer", "inner", "outer/s"]
    again = parse_dump_vmstate(dump(dev=vmsd("outer", field("a", 2, 1, exists=True, num=5)))).classes["dev"]
    assert again.key() != outer.key()
    assert again.key() == parse_dump_vmstate(
        dump(other=vmsd("outer", field("a", 2, 1, exists=True, num=5)))
    ).classes["other"].key()  # fmt: skip
    old = parse_dump_vmstate(b"{}")
    assert (old.machine, old.classes, old.counts) == (None, {}, False)


def holder(description: str) -> str:
    return f'{{"d": {{"Description": {description}}}}}'


HEAD = '"name":"v","version_id":1,"minimum_version_id":1'


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("[]", "the file is no object", "[]"),
        ('{"d": 5}', "'d' is no object", "5"),
        ('{"vmschkmachine": {}}', "Name is no string", "{}}"),
        ('{"d": {}}', "no Description", "{}}"),
        (holder("7"), "a Description is no object", "7"),
        (holder('{"version_id":1,"minimum_version_id":1}'), "name of a VMSD is no string", '{"version_id"'),
        (holder('{"name":"v","minimum_version_id":1}'), "version_id is no integer", '{"name"'),
        (holder('{"name":"v","version_id":1}'), "minimum_version_id is no integer", '{"name"'),
        (holder(f'{{{HEAD},"Fields":{{}}}}'), "Fields is no array", "{}}"),
        (holder(f'{{{HEAD},"Fields":[4]}}'), "Fields: an item is no object", "4]"),
        (holder(f'{{{HEAD},"Fields":[{{}}]}}'), "field_exists is neither", "{}]"),
        (
            holder(f'{{{HEAD},"Fields":[{{"field_exists":true}}]}}'),
            "name of a field is no string",
            '{"field_',
        ),
        (holder(f'{{{HEAD},"Subsections":[{{}}]}}'), "name of a VMSD is no string", "{}]"),
        (
            holder(f'{{{HEAD},"Fields":[{{"field":"f","version_id":1,"field_exists":true,"size":-1}}]}}'),
            "size of a field -1",
            '{"field":',
        ),
        (
            holder(
                f'{{{HEAD},"Fields":[{{"field":"f","version_id":1,"field_exists":true,"size":1,"num":-1}}]}}'
            ),
            "num -1",
            '{"field":',
        ),
    ],
)
def test_what_is_no_dump_is_refused_where_it_is(text: str, message: str, at: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_dump_vmstate(text.encode())
    error = caught.value
    assert message in error.message
    assert text[error.offset :].startswith(at)
    assert (error.record, error.requirement) == ("dump-vmstate", "LEG-VMS-080")


@pytest.mark.parametrize("kind", ["Fields", "Subsections"])
def test_depth_of_a_dump_is_bounded(kind: str) -> None:
    def nested(depth: int) -> bytes:
        one = vmsd("v")
        for _ in range(depth):
            one = (
                vmsd("v", field("f", 1, Description=one))
                if kind == "Fields"
                else vmsd("v", Subsections=[one])
            )
        return dump(d=one)

    assert parse_dump_vmstate(nested(limits.VMSTATE_DEPTH)).classes
    with pytest.raises(RemoteProtocolError, match="nested more than"):
        parse_dump_vmstate(nested(limits.VMSTATE_DEPTH + 1))


# -- encodings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("uint32", Encoding("uint32")),
        ("buffer:512", Encoding("buffer", size=512)),
        ("struct*6", Encoding("struct", count=6)),
        ("uint8*", Encoding("uint8", array=True)),
        ("uint8*9+", Encoding("uint8", count=9, array=True)),
        ("virtio~", Encoding("virtio", open=True)),
        ("buffer~@size", Encoding("buffer", open=True, length="size")),
        ("struct*@num", Encoding("struct", array=True, length="num")),
        ("buffer?identify_set", Encoding("buffer", condition="identify_set")),
        ("bool!", Encoding("bool", there=True)),
        ("-", Encoding("", there=False)),
    ],
)
def test_encodings(text: str, encoding: Encoding) -> None:
    assert parse_encoding(text) == encoding


def test_packaged_files() -> None:
    with pytest.raises(ValueError, match="is no encoding"):
        parse_encoding("a*b")
    for name, fields in known.encodings().items():
        for one in fields:
            assert known.encoding_of(name, one) is not None
    assert known.encoding_of("PCIDevice", "no such field") is None
    assert {"cpu", "apic", "timer", "globalstate"} <= {
        device.body.vmsd_name for device in known.layouts().devices
    }


# -- fields that tell lengths ------------------------------------------------------------------------


def region(data: bytes) -> Region:
    return Region(memoryview(data), BASE, budget=1 << 20)


def numbers(positions: Positions) -> list[int]:
    return list(each(positions))


def test_a_field_whose_length_one_in_front_tells() -> None:
    linked = Linked("n", 2, lambda value: Leaf("d", "buffer", value), Blob("d", "buffer"))
    found = region(b"\0\3abcdef")
    assert numbers(linked.ends(found, (2, 1), 8)) == list(range(2, 9))  # nothing certain in front
    assert numbers(linked.starts(found, (5, 1), (2, 1), 8)) == [2]
    found.known["n"] = 0
    assert numbers(linked.ends(found, (2, 1), 8)) == [5]
    assert numbers(linked.starts(found, (6, 1), (2, 0b11), 8)) == [3]
    one = linked.explain(found, 2, 5)
    assert one is not None
    assert one.value == b"abc"


@pytest.mark.parametrize(
    ("length", "data", "size"),
    [
        (counted_size, u32(2) + b"ab", 6),
        (counted_size, b"\0\0\0", None),
        (packet_ids_size, u32(2), 20),
        (packet_ids_size, b"", None),
        (packets_size, u32(0), 4),
        (packets_size, u32(2) + u32(1) + bytes(5) + u32(0) + bytes(4), 21),
        (packets_size, u32(2) + u32(1) + bytes(5), None),
        (packets_size, u32(1025) + bytes(100), None),
        (packets_size, b"\1", None),
    ],
)
def test_fields_that_tell_their_own_length(length: Any, data: bytes, size: int | None) -> None:
    assert length(memoryview(b"x" + data), 1) == size


def test_own_lengths() -> None:
    own = Own("g", "GByteArray", counted_size)
    data = u32(1) + b"a" + u32(9)
    found = region(data)
    assert numbers(own.ends(found, (0, 0b100001), 9)) == [5]
    assert numbers(own.starts(found, (5, 1), (0, 0b100001), 9)) == [0]
    assert numbers(own.starts(found, (6, 1), (0, 0b100001), 9)) == []
    assert own.explain(found, 0, 5).value == b"a"
    with pytest.raises(Misfit, match="not of the length that it says"):
        own.explain(found, 0, 6)


def config(*capabilities: int, size: int = 256, vectors: int = 1, loop: bool = False) -> bytes:
    data = bytearray(size)
    if capabilities:
        data[6] = 0x10
        data[0x34] = 0x40
    for index, number in enumerate(capabilities):
        place = 0x40 + 16 * index
        last = index == len(capabilities) - 1
        data[place : place + 2] = bytes([number, (0x40 if loop else 0) if last else place + 16])
        data[place + 2 : place + 4] = (vectors - 1).to_bytes(2, "little")
    return bytes(data[:size])


def test_configuration_spaces() -> None:
    assert pci_config_size(memoryview(config()), 0) == 256
    assert pci_config_size(memoryview(config(1, 0x11)), 0) == 256
    assert pci_config_size(memoryview(config(1, 0x10)), 0) == 4096
    assert pci_config_size(memoryview(config(1, 5, loop=True)), 0) == 256
    assert pci_config_size(memoryview(config())[1:], 0) is None
    pci = PciConfig("config[0]", "config[1]")
    data = config(0x10, size=4096)
    found = region(data + config())
    assert numbers(pci.ends(found, (0, 1), 4352)) == [4096]
    assert found.config == 0
    assert numbers(pci.ends(found, (0, 1 | 1 << 4096), 4352)) == [4096, 4352]
    assert pci.explain(found, 0, 4096).name == "config[1]"
    assert pci.explain(found, 4096, 4352).name == "config[0]"
    assert found.config == 4096


def test_msix() -> None:
    assert [msix_size(vectors) for vectors in (0, 1, 8, 9, 2048)] == [0, 17, 129, 146, 33024]
    msix = Msix("m")
    found = region(config(0x11, vectors=2) + bytes(100))
    assert numbers(msix.ends(found, (256, 1), 356)) == [256, 273, 289, 305, 321, 337, 353]
    assert numbers(msix.starts(found, (289, 1), (256, 1), 356)) == [256]
    found.config = 0
    assert numbers(msix.ends(found, (256, 1), 356)) == [289]
    assert numbers(msix.starts(found, (290, 1), (256, 0b11), 356)) == [257]
    assert msix.explain(found, 256, 289).size == 33
    found = region(config() + bytes(100))
    found.config = 0
    assert numbers(msix.ends(found, (256, 1), 356)) == [256]


# -- where sections end ------------------------------------------------------------------------------

FOOTER = b"\x7e" + u32(7)
NEXT = b"\x04" + u32(8) + b"\x03abc" + u32(0) + u32(1)


@pytest.mark.parametrize(
    ("behind", "there"),
    [
        (FOOTER, True),
        (b"\x7e" + u32(8), False),
        (NEXT, True),
        (b"\x01" + NEXT[1:], True),
        (NEXT[:-1], False),
        (b"\x04" + u32(8) + b"\x04abc" + u32(0) + u32(1), False),
        (NEXT[:-4] + u32(1 << 26), False),
        (b"\0\x06" + u32(100) + b"{", True),
        (b"\0\x06" + u32(100) + b"[", False),
        (b"\0", True),
        (b"\0x", False),
        (b"\x08\0\x03\0\x04", True),
        (b"\x08\0\x0c\0\x04", False),
    ],
)
def test_what_stands_behind_a_section(behind: bytes, there: bool) -> None:
    view = memoryview(b"ab" + behind)
    sure, weak = follow.places(view, 7, len(view))
    assert (2 in sure + weak) is there
    assert all(2 not in found for found in follow.places(view, 7, 1))


# -- schemas -----------------------------------------------------------------------------------------


def values(state: DeviceState) -> dict[str, Any]:
    return {path: one.value for path, one in state.walk() if one.children is None}


def kinds(state: DeviceState) -> list[NoteKind]:
    return [note.kind for note in state.notes]


def decoded(found: DeviceSchema, header: Section, data: bytes) -> DeviceState:
    state = found.decode(header, memoryview(data), BASE)
    assert b"".join(bytes(one.raw) for one in state.fields) == data
    return state


def ends(found: DeviceSchema, header: Section, data: bytes) -> list[int]:
    return list(found.ends(header, memoryview(data)))


def earlier(*devices: tuple[str, list[Any]], version: int = 1) -> Any:
    listed = [
        {
            "name": name,
            "instance_id": index,
            "vmsd_name": name.split("/")[-1],
            "version": version,
            "fields": fields,
        }
        for index, (name, fields) in enumerate(devices)
    ]
    return schema_from_earlier(json.dumps({"page_size": 4096, "devices": listed}).encode())


WORD = {"name": "w", "type": "uint16", "size": 2}


def test_names() -> None:
    assert names_of("0000:00:02.0/a/b") == ["0000:00:02.0/a/b", "a/b", "b"]
    assert names_of("timer") == ["timer"]


def test_own_description() -> None:
    found = schema_from_vmdesc(VMDESC)
    assert found is not None
    assert schema_from_vmdesc(b"{}") is None
    timer = section("timer", 2)
    state = decoded(found, timer, bytes(7) + b"\5")
    assert (values(state), state.basis, state.notes) == ({"a": 5}, "vmdesc", [])
    assert ends(found, timer, bytes(8) + FOOTER)[0] == 8
    state = decoded(found, section("other"), b"abc")
    assert (state.basis, state.vmsd_name, kinds(state)) == ("", None, [NoteKind.UNDESCRIBED])
    assert state.notes[0].requirement == "LEG-VMS-003"
    assert ends(found, section("other"), b"abc") == []


def test_an_earlier_stream() -> None:
    found = earlier(("a/dev", [WORD]), ("b/dev", [WORD, {"name": "b", "type": "uint8", "size": 1}]))
    assert values(decoded(found, section("a/dev"), b"\1\2")) == {"w": 258}
    assert values(decoded(found, section("a/dev"), b"\1\2\3")) == {"w": 258, "b": 3}  # as the other one
    state = decoded(found, section("c/dev", instance_id=9), b"\1\2")
    assert (values(state), state.basis) == ({"w": 258}, "schema")
    assert values(decoded(found, section("c/dev", version_id=5), b"\1\2\3"))["b"] == 3
    assert ends(found, section("c/dev"), b"\1\2\3" + FOOTER) == [3]
    assert ends(found, section("a/dev"), b"\1\2\3" + FOOTER) == [2, 3]


def test_state_that_a_handler_wrote_itself_has_no_vmsd_name() -> None:
    data = {
        "name": "old",
        "instance_id": 0,
        "size": 3,
        "fields": [{"name": "data", "size": 3, "type": "buffer"}],
    }
    found = schema_from_earlier(json.dumps({"page_size": 4096, "devices": [data]}).encode())
    state = decoded(found, section("old", 3), b"abc")
    assert (values(state), state.vmsd_name, state.version_id) == ({"data": b"abc"}, None, 3)
    assert kinds(decoded(found, section("x/", 3), b"abc")) == [NoteKind.UNDESCRIBED]


def test_ends_are_searched_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = {"name": "q", "type": "qlist", "size": 1}
    found = earlier(("dev", [blob, WORD]))
    other = section("x/dev", instance_id=9)
    assert ends(found, other, b"\0\1\2" + FOOTER) == [3]
    longer = b"\1ab\0\1\2" + FOOTER
    for windows, want in (((1 << 14,), [6]), ((2, 4), []), ((2, 7), [6]), ((2,), [])):
        monkeypatch.setattr(schema, "_WINDOWS", windows)
        assert ends(found, other, longer) == want
    assert ends(found, section("dev"), longer) == [3]  # the length of this very device, searched for or not
    monkeypatch.setattr(schema, "_WINDOWS", (1 << 14,))
    monkeypatch.setattr(schema, "budget_for", lambda size: 0)
    assert ends(found, other, longer) == []


def static(*fields: dict[str, Any], name: str = "v", **more: Any) -> DeviceSchema:
    return schema_from_dump(dump(dev=vmsd(name, *fields, **more)))


def test_declared_sizes_are_the_plainest_types() -> None:
    found = static(
        field("a", 1),
        field("b", 2),
        field("c", 4),
        field("d", 8),
        field("e", 3),
        field("f", 2, num=2),
        field("unused", 1),
    )
    data = b"\1\0\2\0\0\0\3" + bytes(7) + b"\4abc\0\5\0\6\0"
    state = decoded(found, section("x/v"), data)
    assert values(state) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": b"abc", "f": (5, 6), "unused": b"\0"}
    assert (state.basis, state.notes) == ("dump-vmstate", [])
    assert ends(found, section("v"), data)[0] == len(data)
    assert kinds(decoded(found, section("nothing"), b"ab")) == [NoteKind.UNDESCRIBED]


def test_fields_of_later_versions_and_conditions() -> None:
    found = static(field("a", 1), field("b", 1, 2), field("c", 2, 9, exists=True), version_id=2)
    assert values(decoded(found, section("v", 1), b"\1")) == {"a": 1}
    assert values(decoded(found, section("v", 2), b"\1\2")) == {"a": 1, "b": 2}
    assert values(decoded(found, section("v", 2), b"\1\2\0\3")) == {"a": 1, "b": 2, "c": 3}


def test_nested_and_subsections_and_nothing_known() -> None:
    inner = vmsd("inner", field("x", 1))
    found = static(
        field("s", 4, Description=inner),
        field("t", 4, num=2, Description=inner),
        field("z", 0),
        Subsections=[vmsd("v/sub", field("y", 1))],
    )
    sub = b"\x05\x05v/sub" + u32(1) + b"\x09"
    state = decoded(found, section("v"), b"\1\2\3" + sub)
    assert values(state)["s.x"] == 1
    assert [values(state)[f"t[{i}].x"] for i in (0, 1)] == [2, 3]
    # declared inside another one only
    assert values(decoded(found, section("inner"), b"\7")) == {"x": 7}
    # of unknown encoding: more than the plainest fits
    loose = static(field("p", 8), field("q", 4, Description=inner), field("r", 3))
    state = decoded(loose, section("v"), bytes(8) + b"\1" + b"abc")
    assert (state.notes, values(state)["q.x"]) == ([], 1)
    state = decoded(loose, section("v"), bytes(30))
    assert state.consumed == 30


def test_two_classes_of_one_name() -> None:
    text = dump(one=vmsd("v", field("a", 2)), two=vmsd("v", field("b", 2)), three=vmsd("v", field("b", 2)))
    state = decoded(schema_from_dump(text), section("v"), b"\1\2")
    assert kinds(state) == [NoteKind.AMBIGUOUS]
    assert values(state) == {"a": 258}
    alone = dump(one=vmsd("v", field("a", 2)), two=vmsd("v", field("b", 3)))
    assert values(decoded(schema_from_dump(alone), section("v"), b"abc")) == {"b": b"abc"}
    pci = vmsd("v", field("parent", 8, Description=vmsd("PCIDevice", field("version_id", 4))))
    both = schema_from_dump(dump(one=vmsd("v", field("a", 4)), two=pci))
    assert list(values(decoded(both, section("0000:00:01.0/v"), u32(2)))) == ["parent.version_id"]


def test_built_in_layouts() -> None:
    found = static(field("a", 1))
    data = u32(8) + b"running".ljust(100, b"\0")
    state = decoded(found, section("globalstate"), data)
    assert (state.basis, values(state)["size"]) == ("built-in", 8)
    assert kinds(decoded(found, section("globalstate", 77), data)) == [NoteKind.UNDESCRIBED]


def test_known_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """n uint8, len buffer~@n, arr uint8*@n, var uint16*, usual uint8*2+, fix uint8*2,
        q qtailq, g gtree,
        p ptr-marker*, st struct*, sn struct*2, num uint32, cond uint8?n, yes uint8!, no -, g2 GByteArray,
        m msix state, o virtio~, one struct, far uint8*@nowhere,
        lst struct*@n, cf uint8?nowhere, scl uint8@n"""
    encodings = {"v": dict(one.strip().split(" ", 1) for one in text.split(","))}
    monkeypatch.setattr(known, "encodings", lambda: encodings)
    inner = vmsd("inner", field("x", 1))
    nested: Any = {"Description": inner}

    def check(fields: list[dict[str, Any]], data: bytes, want: dict[str, Any]) -> None:
        state = decoded(static(*fields), section("v"), data)
        assert {key: value for key, value in values(state).items() if value != b""} == want
        assert not state.opaque_bytes()

    n = field("n", 1)
    check([n, field("len", 8), field("z", 1)], b"\2ab\7", {"n": 2, "len": b"ab", "z": 7})
    check([n, field("arr", 8), field("z", 1)], b"\2ab\7", {"n": 2, "arr": (97, 98), "z": 7})
    check([n, field("lst", 8, **nested)], b"\1\7", {"n": 1, "lst[0].x": 7})
    check([field("var", 8)], b"\0\1\0\2", {"var": (1, 2)})
    check([field("far", 8)], b"\1\2", {"far": (1, 2)})
    check([field("usual", 8)], b"\1\2", {"usual": (1, 2)})
    check([field("usual", 8)], b"\1\2\3", {"usual": (1, 2, 3)})
    check([field("fix", 1)], b"\1\2", {"fix": (1, 2)})
    check([n, field("scl", 1)], b"\1\2", {"n": 1, "scl": 2})
    check([field("q", 8, **nested)], b"\1\7\0", {"q[0].x": 7})
    check([field("p", 8, **nested)], b"0" + b"1\7", {"p[0]": 0x30, "p[1].x": 7})
    check([field("st", 8, **nested)], b"\1\2\3", {f"st[{i}].x": i + 1 for i in range(3)})
    check([field("sn", 8, **nested)], b"\1\2", {"sn[0].x": 1, "sn[1].x": 2})
    check([field("one", 8, **nested)], b"\1", {"one.x": 1})
    check([field("num", 8, **nested)], b"\0\0\0\1", {"num": 1})
    check([field("o", 8)], b"abc", {"o": b"abc"})
    check([field("g2", 8)], u32(1) + b"a", {"g2": b"a"})
    check([n, field("cond", 1, exists=True)], b"\1\7", {"n": 1, "cond": 7})
    check([n, field("cond", 1, exists=True)], b"\0", {"n": 0})
    check([field("m", 8)], bytes(17), {"m": bytes(17)})
    check(
        [field("g", 8, **nested)], u32(1) + b"\1" + bytes(7) + b"\5\7\0", {"g[0].key": 5, "g[0].value.x": 7}
    )
    # two conditional fields of which the bytes do not tell: as real builds send them
    usual = static(field("yes", 1, exists=True), field("no", 1, exists=True))
    state = decoded(usual, section("v"), b"\7")
    assert (values(state).get("yes"), kinds(state)) == (7, [NoteKind.INFERRED])
    open_ = static(field("yes", 1, exists=True), field("cf", 1, exists=True))
    assert values(decoded(open_, section("v"), b"\7"))["yes"] == 7


def test_configuration_space_in_declared_devices() -> None:
    pci = vmsd(
        "PCIDevice",
        field("version_id", 4),
        field("config", 0, exists=True),
        field("config", 0, exists=True),
        field("irq_state", 16),
    )
    found = static(field("parent", 8, Description=pci), field("z", 1))
    for space, name in ((config(), "config[0]"), (config(0x10, size=4096), "config[1]")):
        state = decoded(found, section("v"), u32(2) + space + bytes(16) + b"\7")
        assert not state.notes
        assert values(state)[f"parent.{name}"] == space


names = st.sampled_from("abcn")
fields_ = st.lists(
    st.builds(field, names, st.sampled_from([0, 1, 2, 3, 8, 1 << 30]), exists=st.booleans()), max_size=4
)


@given(fields_, fields_, st.binary(max_size=30))
def test_any_declaration_reads_any_bytes(outer: list[Any], inner: list[Any], data: bytes) -> None:
    nested = vmsd("inner", *inner)
    found = static(
        *outer,
        field("s", 8, Description=nested),
        field("t", 8, num=3, Description=nested),
        Subsections=[nested],
    )
    state = decoded(found, section("v"), data)
    assert bool(state.opaque_bytes()) <= bool(state.notes)
    assert all(
        0 <= length <= len(data) or length >= 1 << 30 or True for length in ends(found, section("v"), data)
    )


def test_a_schema_says_what_it_knows() -> None:
    with pytest.raises(NotImplementedError):
        DeviceSchema().decode(section("v"), memoryview(b""), 0)
