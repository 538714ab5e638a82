"""Deterministic CBOR: one value, one spelling, and everything else refused at its byte."""

from __future__ import annotations

import re
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig._cbor import Bounds, CborError, decode, encode
from qmig.errors import LocalProtocolError

#: bytes -> (what is wrong, at which byte)
BAD = {
    "": ("an item is missing", 0),
    "18": ("a head is cut", 0),
    "1817": ("23 is not in its shortest form", 0),
    "1900ff": ("255 is not in its shortest form", 0),
    "1a0000ffff": ("65535 is not in its shortest form", 0),
    "1b00000000ffffffff": ("4294967295 is not in its shortest form", 0),
    "1c": ("the reserved head 0x1c", 0),
    "5f41aaff": ("an indefinite length", 0),
    "9fff": ("an indefinite length", 0),
    "bfff": ("an indefinite length", 0),
    "3b8000000000000000": ("a negative number below -2^63", 0),
    "4201": ("a string of 2 bytes with 1 left", 0),
    "5affffffff": ("a string of 4294967295 bytes with 0 left", 0),
    "61ff": ("a text that is not UTF-8", 0),
    "63eda080": ("a text that is not UTF-8", 0),
    "8201": ("2 values with 1 bytes left", 0),
    "9affffffff": ("4294967295 values in one array or map, more than 65536", 0),
    "a1": ("2 values with 0 bytes left", 0),
    "a20101": ("4 values with 2 bytes left", 0),
    "a201000100": ("key 1 twice", 3),
    "a202000100": ("key 1 out of order", 3),
    "a2616200616100": ("key 'a' out of order", 4),
    "a262616100616200": ("key 'b' out of order", 5),
    "a20100616100": ("a map with both numbers and texts as keys", 3),
    "a12000": ("a key that is neither text nor a number from 0 to 65535", 1),
    "a11a0001000000": ("a key that is neither text nor a number from 0 to 65535", 1),
    "a1f500": ("a key that is neither text nor a number from 0 to 65535", 1),
    "a1410000": ("a key that is neither text nor a number from 0 to 65535", 1),
    "a18000": ("nested deeper than 16", 1),
    "c000": ("tag 0", 0),
    "d82300": ("tag 35", 0),
    "f7": ("the simple value or break 23", 0),
    "f818": ("the simple value or break 24", 0),
    "ff": ("the simple value or break 31", 0),
    "f97e00": ("a float", 0),
    "fa47c35000": ("a float", 0),
    "fb7ff0000000000000": ("a float", 0),
    "0000": ("1 bytes behind the item", 1),
    "81" * 17 + "00": ("nested deeper than 16", 16),
}


@pytest.mark.parametrize("spelled", BAD)
def test_what_is_refused(spelled: str) -> None:
    message, at = BAD[spelled]
    with pytest.raises(CborError, match=re.escape(message)) as problem:
        decode(bytes.fromhex(spelled))
    assert problem.value.at == at
    assert problem.value.limit == ("deeper" in message or "more than" in message)


values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.binary(max_size=40),
        st.text(max_size=40),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.integers(0, 65_535), inner, max_size=5),
        st.dictionaries(st.text(max_size=12), inner, max_size=5),
    ),
    max_leaves=12,
)  # fmt: skip


@given(values)
def test_there_and_back(value: Any) -> None:
    spelled = encode(value)
    assert decode(spelled) == value
    assert decode(memoryview(spelled)) == value


@given(values)
def test_the_library_reads_what_we_write(value: Any) -> None:
    assert cbor2.loads(encode(value)) == value


@given(st.binary(max_size=60))
def test_what_is_accepted_is_its_only_spelling(data: bytes) -> None:
    try:
        value = decode(data)
    except CborError:
        return
    assert encode(value) == data


@given(values, st.data())
def test_a_cut_is_found(value: Any, data: st.DataObject) -> None:
    spelled = encode(value)
    with pytest.raises(CborError):
        decode(spelled[: data.draw(st.integers(0, len(spelled) - 1))])


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        {1.0: 1},
        {-1: 1},
        {65_536: 1},
        {"a": 1, 1: 1},
        1 << 64,
        -(1 << 63) - 1,
        "\ud800",
        {1, 2},
        object(),
    ],
)
def test_what_has_no_spelling(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match="cannot be encoded"):
        encode(value)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        ("a" * 9, Bounds(text=8), "a text of 9 bytes, more than 8"),
        ([0] * 9, Bounds(array_items=8), "9 values in one array or map, more than 8"),
        (dict.fromkeys(range(5), 0), Bounds(map_entries=4), "10 values in one array or map, more than 8"),
        ([[0, 0], [0, 0]], Bounds(items=6), "more than 6 values"),
        ([[[0]]], Bounds(depth=2), "nested deeper than 2"),
    ],
)
def test_bounds(value: Any, bounds: Bounds, message: str) -> None:
    with pytest.raises(CborError, match=message) as problem:
        decode(encode(value), bounds)
    assert problem.value.limit
