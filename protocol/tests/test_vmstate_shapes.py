"""Shapes by themselves: where they may end and start, and the fields they make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig.legacy.vmstate.bodies import BodyShape
from qmig.legacy.vmstate.containers import Array
from qmig.legacy.vmstate.linked import (
    OWN_LENGTH,
    Linked,
    Msix,
    Own,
    PciConfig,
    msix_size,
    packets_size,
    pci_config_size,
)
from qmig.legacy.vmstate.lists import Queue
from qmig.legacy.vmstate.model import NoteKind
from qmig.legacy.vmstate.positions import EMPTY, Positions, each, span
from qmig.legacy.vmstate.region import Misfit, Region
from qmig.legacy.vmstate.shapes import Blob, Either, Leaf, Optional, Shape, Sized


def region(data: bytes, *, budget: int = 10_000) -> Region:
    return Region(memoryview(data), 0x1000, budget=budget)


def positions(*places: int) -> Positions:
    mask = sum(1 << (place - min(places)) for place in places)
    return (min(places), mask) if places else EMPTY


def ends(shape: Shape, data: bytes, *places: int) -> list[int]:
    return list(each(shape.ends(region(data), positions(*places), len(data))))


def starts(shape: Shape, data: bytes, goal: Positions, *places: int) -> list[int]:
    return list(each(shape.starts(region(data), goal, positions(*places), len(data))))


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


PACKETS = u32(2) + u32(1) + u32(0) + b"a" + u32(0) + u32(0)

SHAPES = {
    "leaf": Leaf("a", "uint16", 2),
    "array": Leaf("a", "uint8", 1, 3),
    "bool": Leaf("a", "bool", 1, None, b"\0\1"),
    "bools": Leaf("a", "bool", 1, 40, b"\0\1"),
    "blob": Blob("a", "virtio"),
    "sized": Sized("a", "x", (0, 3, 5)),
    "optional": Optional(Leaf("a", "uint32", 4)),
    "either": Either([Leaf("a", "uint32", 4), Leaf("a", "uint8", 1)]),
    "own": Own("a", "GByteArray", OWN_LENGTH["GByteArray"]),
    "ids": Own("a", "usb-redir-packet-id-q", OWN_LENGTH["usb-redir-packet-id-q"]),
    "packets": Own("a", "usb-redir-bufpq", OWN_LENGTH["usb-redir-bufpq"]),
    "msix": Msix("a"),
    "varray": Array(Leaf("a", "uint16", 2), None),
    "pointers": Array(Leaf("a", "uint16", 2), None, nullable=True),
    "queue": Queue("a", "qtailq", BodyShape("e", 1, [Leaf("x", "uint8", 1)])),
    "unknown queue": Queue("a", "qtailq", None),
}


@pytest.mark.parametrize("name", SHAPES)
@given(
    data=st.binary(max_size=90) | st.lists(st.sampled_from([0, 1, 0x30, 4]), max_size=90).map(bytes),
    places=st.sets(st.integers(0, 90), min_size=1, max_size=6),
    goal=st.integers(0, 90),
)
def test_starts_are_the_inverse_of_ends(name: str, data: bytes, places: set[int], goal: int) -> None:
    """A start leads to a goal if and only if the goal is among its ends; no end is outside."""
    shape = SHAPES[name]
    goal = min(goal, len(data))
    here = {place for place in places if place <= len(data)}
    if not here:
        return
    reached = {place: set(ends(shape, data, place)) for place in here}
    assert set(ends(shape, data, *here)) == set().union(*reached.values())
    assert all(place <= end <= len(data) for place, found in reached.items() for end in found)
    leading = {place for place in here if goal in reached[place]}
    assert set(starts(shape, data, positions(goal), *here)) == leading
    for place in leading:
        field = None
        try:
            field = shape.explain(region(data), place, goal)
        except Misfit as problem:  # only where several inner readings fit
            assert problem.kind is NoteKind.AMBIGUOUS  # noqa: PT017
        if field is not None:
            assert (field.offset, field.size) == (0x1000 + place, goal - place)


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_comes_of_nothing(name: str) -> None:
    shape = SHAPES[name]
    assert shape.ends(region(bytes(9)), EMPTY, 9) == EMPTY
    assert shape.starts(region(bytes(9)), EMPTY, (0, 1), 9) == EMPTY


def test_many_places_at_once() -> None:
    """Runs are found in one pass where there are too many places to look at each."""
    data = bytes(50) + b"\2" + bytes(49)
    shape = Leaf("a", "bool", 1, 10, b"\0\1")
    found = shape.ends(region(data), span(0, 99), 100)
    assert list(each(found)) == [place + 10 for place in range(91) if not place <= 50 < place + 10]
    never = Leaf("a", "bool", 1, 60, b"\0\1")
    assert never.ends(region(b"\2\0" * 50), span(0, 99), 100) == EMPTY


def test_too_many_places_for_what_reads_each() -> None:
    shape = Own("a", "GByteArray", OWN_LENGTH["GByteArray"])
    with pytest.raises(Misfit, match="too many places") as problem:
        shape.ends(region(bytes(1000)), span(0, 600), 1000)
    assert problem.value.kind is NoteKind.BUDGET


def test_a_shape_is_abstract() -> None:
    shape = Shape("a", None)
    with pytest.raises(NotImplementedError):
        shape.ends(region(b""), EMPTY, 0)
    with pytest.raises(NotImplementedError):
        shape.starts(region(b""), EMPTY, EMPTY, 0)
    with pytest.raises(NotImplementedError):
        shape.explain(region(b""), 0, 0)


def test_bytes_that_a_type_cannot_have() -> None:
    with pytest.raises(Misfit, match="bytes that it cannot have"):
        SHAPES["bool"].explain(region(b"\2"), 0, 1)
    with pytest.raises(Misfit, match="cannot have 4 bytes"):
        SHAPES["sized"].explain(region(bytes(9)), 0, 4)
    with pytest.raises(Misfit, match="not of the length that it says"):
        SHAPES["own"].explain(region(u32(3) + b"abc"), 0, 6)
    with pytest.raises(Misfit, match="fits no known encoding"):
        SHAPES["either"].explain(region(bytes(9)), 0, 2)


def test_either() -> None:
    """Of a thing and an array of it the thing is taken; of a thing and a list, neither."""
    one = Leaf("a", "uint8", 1)
    alike = Either([one, Array(one, None)])
    assert alike.explain(region(b"\0"), 0, 1).type == "uint8"  # type: ignore[union-attr]
    assert alike.explain(region(b"\0\0"), 0, 2).count == 2  # type: ignore[union-attr]
    assert alike.explain(region(b"\0"), 0, 0) is None
    other = Either([one, Queue("a", "qtailq", None)])
    with pytest.raises(Misfit, match="more than one encoding") as problem:
        other.explain(region(b"\0"), 0, 1)
    assert problem.value.kind is NoteKind.AMBIGUOUS


# -- lengths that other bytes tell ------------------------------------------------------------------


def test_linked() -> None:
    """The value of the field in front makes the shape, where its place is certain."""
    free = Blob("b", "buffer")
    linked = Linked("n", 2, lambda size: Leaf("b", "buffer", size), free)
    here = region(b"\0\3abcdef")
    assert linked.ends(here, (2, 1), 8) == span(2, 8)
    here.known["n"] = 0
    assert linked.ends(here, (2, 1), 8) == (5, 1)
    assert linked.starts(here, (5, 1), (2, 1), 8) == (2, 1)
    assert linked.starts(here, (6, 1), (2, 1), 8) == EMPTY
    field = linked.explain(here, 2, 5)
    assert field is not None
    assert field.value == b"abc"


def test_packets() -> None:
    data = memoryview(b"x" + PACKETS)
    assert packets_size(data, 1) == len(PACKETS)
    assert packets_size(data, len(data)) is None
    assert packets_size(data[:-5], 1) is None
    assert packets_size(memoryview(u32(1025)), 0) is None


def config(*capabilities: int, size: int = 256) -> bytes:
    """A configuration space with a list of capabilities, at 0x40, 0x50, …"""
    space = bytearray(size)
    if capabilities:
        space[6], space[0x34] = 0x10, 0x40
    for number, capability in enumerate(capabilities):
        place = 0x40 + 16 * number
        space[place] = capability
        space[place + 1] = place + 16 if number + 1 < len(capabilities) else 0
        if capability == 0x11:
            space[place + 2 : place + 4] = (4).to_bytes(2, "little")  # five vectors
    return bytes(space)


def test_pci_config_size() -> None:
    assert pci_config_size(memoryview(config()), 0) == 256
    assert pci_config_size(memoryview(config(5, 0x11)), 0) == 256
    assert pci_config_size(memoryview(config(5, 0x10)), 0) == 4096
    assert pci_config_size(memoryview(config()), 1) is None
    circle = bytearray(config(5))
    circle[0x41] = 0x40
    assert pci_config_size(memoryview(bytes(circle)), 0) == 256
    outside = bytearray(config(5))
    outside[0x41] = 0xFF
    assert pci_config_size(memoryview(bytes(outside)), 0) == 256


def test_pci_config_names_the_field_that_was_sent() -> None:
    shape = PciConfig("config[0]", "config[1]")
    assert shape.explain(region(config(5)), 0, 256).name == "config[0]"
    assert shape.explain(region(config(0x10, size=4096)), 0, 4096).name == "config[1]"
    assert ends(shape, config(5) + bytes(256), 0, 256) == [256, 512]


def test_msix_is_as_long_as_the_configuration_space_says() -> None:
    assert msix_size(5) == 81
    data = config(5, 0x11) + bytes(200)
    here = region(data)
    pci = PciConfig("config[0]", "config[1]")
    msix = Msix("msix")
    assert len(list(each(msix.ends(here, (256, 1), 456)))) == 13  # 0 to 12 vectors
    assert pci.ends(here, (0, 1), 456) == (256, 1)
    assert msix.ends(here, (256, 1), 456) == (256 + 81, 1)
    assert msix.starts(here, (256 + 81, 1), (256, 1), 456) == (256, 1)
    assert msix.starts(here, (256 + 17, 1), (256, 1), 456) == EMPTY
    without = region(config(5) + bytes(200))
    pci.explain(without, 0, 256)
    assert msix.ends(without, (256, 1), 456) == (256, 1)
