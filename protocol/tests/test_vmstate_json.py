"""The description at the end of a stream as text: what is read, what is refused, and where it says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig.errors import LimitExceeded, RemoteProtocolError
from qmig.legacy.vmstate.jsontext import JsonText, Pairs, Wrong, integer, items, string
from qmig.legacy.vmstate.vmdesc import Body, VmDescription, parse_vmdesc
from qmig.testing.streams import VMDESC

BASE = 0x1000


def document(text: str | bytes) -> JsonText:
    data = text.encode() if isinstance(text, str) else text
    return JsonText(data, base=BASE, record="r", requirement="LEG-VMS-050")


def device(fields: str, *, more: str = "") -> str:
    """A description with one device that has these fields."""
    inner = f'"name":"d","instance_id":3,"vmsd_name":"v","version":2,"fields":[{fields}]{more}'
    return f'{{"page_size":4096,"devices":[{{{inner}}}]}}'


def body_of(text: str) -> Body:
    return parse_vmdesc(text.encode()).devices[0].body


def plain(body: Body) -> Any:
    """A body as nested tuples."""
    fields = [(f.name, f.type, f.size, f.array_len, [plain(one) for one in f.bodies]) for f in body.fields]
    return body.vmsd_name, body.version, fields, [plain(sub) for sub in body.subsections]


# -- text ------------------------------------------------------------------------------------


def test_objects_keep_repeated_keys_in_order() -> None:
    root = document('{"a": 1, "b": [true, null, "x"], "a": {"a": 2}}').root
    assert root == (("a", 1), ("b", [True, None, "x"]), ("a", (("a", 2),)))
    assert type(root) is Pairs
    assert (root.first("a"), root.first("c")) == (1, None)


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("", "no JSON: Expecting value", 0),
        ("{} {}", "no JSON: Extra data", 3),
        ('{"a":1,}', "no JSON", 7),
        ('{"ä":x}', "no JSON: Expecting value", 6),
        ('["\x01"]', "no JSON: Invalid control character", 2),
        (b'{"\xff":1}', "no UTF-8: invalid start byte", 2),
        ("[1.5]", "1.5 is not a value that QEMU writes", 0),
        ("[1e3]", "1e3 is not a value that QEMU writes", 0),
        ("[NaN]", "NaN is not a value that QEMU writes", 0),
        ("[-Infinity]", "-Infinity is not a value that QEMU writes", 0),
        ("[" + "9" * 5000 + "]", "Exceeds the limit", 0),
        (r'["a", "\ud800"]', "half of a surrogate pair", 7),
        (r'["\\\uDC01"]', "half of a surrogate pair", 4),
        (r'["\udc01\ud800"]', "half of a surrogate pair", 2),
    ],
)
def test_what_is_no_json_is_refused_where_it_is(text: str | bytes, message: str, place: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        document(text)
    error = caught.value
    assert message in error.message
    assert (error.offset, error.record, error.requirement) == (BASE + place, "r", "LEG-VMS-050")
    assert not isinstance(error, LimitExceeded)


def test_surrogate_pairs_and_escaped_backslashes_are_text() -> None:
    assert document(r'["\ud83d\ude00", "\\ud800", "\u00e4", "\ud7ff"]').root == [
        "😀",
        r"\ud800",
        "ä",
        "\ud7ff",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000, "nested too deep"),
        (b"[" + b"," * (limits.JSON_VALUES + 1), f"more than {limits.JSON_VALUES} values"),
        (b" " * (limits.VMDESC + 1), f"over the limit of {limits.VMDESC}"),
    ],
    ids=["arrays", "objects", "values", "bytes"],
)
def test_bounds_on_text(data: bytes, message: str) -> None:
    with pytest.raises(LimitExceeded, match=message) as caught:
        document(data)
    assert (caught.value.offset, caught.value.requirement) == (BASE, "LEG-VMS-062")


def test_bounds_are_not_one_too_narrow() -> None:
    assert document(b" " * (limits.VMDESC - 2) + b"[]").root == []
    assert len(document(b"[" + b"0," * (limits.JSON_VALUES - 2) + b"0]").root) == limits.JSON_VALUES - 1


def test_a_complaint_is_given_the_place_of_its_value() -> None:
    text = ' { "ä" : [ 1 , {"x":[0,1]} ] , "k" : [ {} , { "y" : 7 , "z" : "w" } ] }'
    found = document(text)
    for path, value in [((), "{"), ((0,), "["), ((0, 1), '{"x"'), ((0, 1, 0, 1), "1]"), ((1, 1, 1), '"w"')]:
        problem = Wrong("m")
        for step in reversed(path):
            problem = problem.at(step)
        error = found.wrong(problem)
        assert text.encode()[error.offset - BASE :].decode().startswith(value)
        assert error.message == "m"


def test_checked_values() -> None:
    assert integer(5, 5, 5, "n") == 5
    for value, message in [
        (True, "n is no integer"),
        ("5", "n is no integer"),
        (None, "n is no integer"),
        (4, "n 4 is not 5 to 6"),
        (7, "n 7 is not 5 to 6"),
        (1 << 64, "n of over 64 bits is not 5 to 6"),
        (-(1 << 64), "n of over 64 bits is not 5 to 6"),
    ]:
        with pytest.raises(Wrong) as caught:
            integer(value, 5, 6, "n")
        assert caught.value.message == message
    assert string("abc", "s", 3) == "abc"
    for value, message in [(1, "s is no string"), ("abcd", "s is longer than 3 characters")]:
        with pytest.raises(Wrong) as caught:
            string(value, "s", 3)
        assert caught.value.message == message
    one = Pairs((("a", 1),))
    assert list(items([one, one], "l")) == [(0, one), (1, one)]
    with pytest.raises(Wrong, match="l is no array"):
        list(items(one, "l"))
    with pytest.raises(Wrong, match="l: an item is no object") as wrong:
        list(items([one, []], "l"))
    assert wrong.value.path == [1]


# -- the description -------------------------------------------------------------------------


def test_a_whole_description() -> None:
    text = """{"configuration": {"vmsd_name": "configuration", "version": 1, "fields": [
        {"name": "len", "type": "uint32", "size": 4}]}, "unknown": {"x": []}, "page_size": 65536, "devices": [
        {"name": "d", "instance_id": 4294967295, "vmsd_name": "v", "version": -1, "fields": [
          {"name": "a", "type": "uint16", "size": 2},
          {"name": "b", "index": 0, "type": "uint8", "size": 1},
          {"name": "c", "array_len": 3, "type": "struct",
           "struct": {"vmsd_name": "s", "version": 1, "fields": [{"name": "x", "type": "bool", "size": 1}]},
           "size": 1}],
         "subsections": [{"vmsd_name": "v/sub", "version": 9, "fields": []}]},
        {"name": "old", "instance_id": 0, "size": 3,
         "fields": [{"name": "data", "size": 3, "type": "buffer"}]}
        ]}"""
    found = parse_vmdesc(text.encode())
    assert found.page_size == 65536
    assert found.configuration is not None
    assert plain(found.configuration) == ("configuration", 1, [("len", "uint32", 4, None, [])], [])
    first, old = found.devices
    assert (first.name, first.instance_id) == ("d", 4294967295)
    nested: Any = ("s", 1, [("x", "bool", 1, None, [])], [])
    assert plain(first.body) == (
        "v",
        -1,
        [("a", "uint16", 2, None, []), ("b", "uint8", 1, None, []), ("c", "struct", 1, 3, [nested])],
        [("v/sub", 9, [], [])],
    )
    assert [field.total for field in first.body.fields] == [2, 1, 3]
    assert first.body.total == 6 + (6 + len("v/sub"))
    assert (old.name, plain(old.body)) == ("old", ("", 0, [("data", "buffer", 3, None, [])], []))


def test_no_configuration_before_8_2() -> None:
    assert parse_vmdesc(VMDESC).configuration is None


def test_bodies_of_a_list_are_repeated_keys_of_one_object() -> None:
    one = '"vmsd_name":"e","version":1,"fields":[{"name":"x","type":"uint8","size":1}]'
    sub = '"subsections":[{"vmsd_name":"e/s","version":1,"fields":[]}]'
    text = device(f'{{"name":"q","type":"qtailq",{one},{sub},{one},{one},{sub},"size":30}}')
    (field,) = body_of(text).fields
    assert [len(body.subsections) for body in field.bodies] == [1, 0, 1]
    assert all(body.vmsd_name == "e" and body.fields[0].name == "x" for body in field.bodies)


def test_vstruct_and_tmp_have_their_body_in_the_field() -> None:
    for type_ in ("vstruct", "tmp"):
        text = device(f'{{"name":"t","type":"{type_}","vmsd_name":"b","version":7,"fields":[],"size":0}}')
        (field,) = body_of(text).fields
        assert [plain(body) for body in field.bodies] == [("b", 7, [], [])]


FIELD = '"name":"f","type":"uint8","size":1'
EMPTY = '"vmsd_name":"e","version":1,"fields":[]'


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("[]", "the description is no object", "[]"),
        ('{"devices":[]}', "page_size or devices is missing", "{"),
        ('{"page_size":1}', "page_size or devices is missing", "{"),
        ('{"page_size":0,"devices":[]}', "page_size 0 is not 1 to 65536", "0,"),
        ('{"page_size":65537,"devices":[]}', "page_size 65537", "65537"),
        ('{"page_size":1,"devices":{}}', "devices is no array", "{}"),
        ('{"page_size":1,"devices":[[]]}', "devices: an item is no object", "[]]"),
        ('{"page_size":1,"devices":[],"configuration":[]}', "configuration is no object", "[]}"),
        (f'{{"page_size":1,"devices":[],"configuration":{{{EMPTY},{EMPTY}}}}}', "2 descriptions", '{"vmsd'),
        ('{"page_size":1,"devices":[{"name":"d","instance_id":0}]}', "'d' has 0 descriptions", '{"name'),
        ('{"page_size":1,"devices":[{"instance_id":0}]}', "name of a device is no string", '{"inst'),
        ('{"page_size":1,"devices":[{"name":"' + "n" * 256 + '"}]}', "longer than 255", '{"name'),
        ('{"page_size":1,"devices":[{"name":"d","instance_id":4294967296}]}', "instance_id 42949", '{"name'),
        (device("7"), "fields: an item is no object", "7]"),
        (device('{"type":"uint8","size":1}'), "name of a field is no string", '{"type"'),
        (device('{"name":"f","size":1}'), "type of a field is no string", '{"name":"f"'),
        (device('{"name":"f","type":"uint8"}'), "size of a field is no integer", '{"name":"f"'),
        (device('{"name":"f","type":"uint8","size":-1}'), "size of a field -1", '{"name":"f"'),
        (device('{"name":"f","type":"uint8","size":1099511627777}'), "size of a field 10995", '{"name":"f"'),
        (device(f'{{{FIELD},"array_len":-1}}'), "array_len -1", "-1}"),
        (device(f'{{{FIELD},"array_len":true}}'), "array_len is no integer", "true"),
        (device(f'{{{FIELD},"struct":[]}}'), "struct is no object", "[]}"),
        (device(f'{{{FIELD},"vmsd_name":"e"}}'), "a description without fields", '{"name":"f"'),
        (device(f'{{{FIELD},"subsections":[{{{EMPTY}}}]}}'), "a description without fields", '{"name":"f"'),
        (device(f'{{{FIELD},{EMPTY},"fields":[]}}'), "fields without a vmsd_name before", "[]}"),
        (device(f'{{{FIELD},"version":4294967296}}'), "version 4294967296", "4294967296"),
        (device(f'{{{FIELD},"vmsd_name":4}}'), "vmsd_name is no string", "4}"),
        (device(FIELD.join("{}"), more=',"subsections":3'), "subsections is no array", "3}"),
        (
            device("", more=',"subsections":[{"vmsd_name":"","fields":[]}]'),
            "a subsection is not",
            '{"vmsd_name":""',
        ),
        (device("", more=f',"subsections":[{{{EMPTY},{EMPTY}}}]'), "a subsection is not", '{"vmsd_name":"e"'),
        (
            device("", more=f',"subsections":[{{"vmsd_name":"{"ä" * 128}","fields":[]}}]'),
            "a name of 1 to 255 bytes",
            '{"vmsd_name":"ä',
        ),
    ],
)
def test_what_is_no_description_is_refused_where_it_is(text: str, message: str, at: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_vmdesc(text.encode(), BASE)
    error = caught.value
    assert message in error.message
    assert text.encode()[error.offset - BASE :].startswith(at.encode())
    assert (error.record, error.requirement) == ("vmdesc", "LEG-VMS-050")


@pytest.mark.parametrize("kind", ["struct", "subsections"])
def test_depth_of_structures_is_bounded(kind: str) -> None:
    def nested(depth: int) -> str:
        if kind == "struct":
            inner = f'{{{FIELD},"struct":{{"vmsd_name":"e","version":1,"fields":['
            return device(inner * depth + "]}}" * depth)
        inner = ',"subsections":[{"vmsd_name":"e","fields":[]'
        return device("", more=inner * depth + "}]" * depth)

    assert parse_vmdesc(nested(limits.VMSTATE_DEPTH).encode()).devices
    with pytest.raises(RemoteProtocolError, match=f"nested more than {limits.VMSTATE_DEPTH} deep"):
        parse_vmdesc(nested(limits.VMSTATE_DEPTH + 1).encode())


@pytest.mark.parametrize("place", ["name of a subsection", "name of a field"])
def test_half_a_surrogate_pair_in_a_name_is_no_name(place: str) -> None:
    text = device(r'{"name":"\udfff","type":"uint8","size":1}')
    if place == "name of a subsection":
        text = device("", more=r',"subsections":[{"vmsd_name":"v\ud800","fields":[]}]')
    with pytest.raises(RemoteProtocolError, match="half of a surrogate pair"):
        parse_vmdesc(text.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "type",
                    "size",
                    "array_len",
                    "struct",
                    "fields",
                    "vmsd_name",
                    "version",
                    "subsections",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def read(text: bytes) -> VmDescription | None:
    """The description; None if it was refused, with a place inside the text."""
    try:
        return parse_vmdesc(text, BASE)
    except RemoteProtocolError as error:
        if not BASE <= error.offset <= BASE + len(text):
            raise AssertionError(f"{error}: outside the text") from error
        return None


@given(st.sampled_from(["page_size", "devices", "configuration"]), json_values)
def test_any_json_gives_a_description_or_an_error_of_the_library(key: str, value: object) -> None:
    found = read(json.dumps({"page_size": 4096, "devices": [value], key: value}).encode())
    assert found is None or type(found.page_size) is int


@given(st.integers(0, len(VMDESC) - 1), st.integers(0, 255))
def test_one_changed_byte_gives_a_description_or_an_error_of_the_library(place: int, value: int) -> None:
    found = read(VMDESC[:place] + bytes([value]) + VMDESC[place + 1 :])
    assert found is None or len(found.devices) == 1
