"""Hypothesis strategies for damaged streams: blind ones, and ones that know the records."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from qmig._wire import Record
from qmig.testing import damage

#: values at which length, count and offset checks break
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0xFFF,
    0x1000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 63,
    (1 << 64) - 1,
)


def blind(data: bytes) -> st.SearchStrategy[bytes]:
    """A few bytes replaced, removed or inserted anywhere, or the end cut off."""
    at = st.integers(0, len(data))
    return st.one_of(
        at.map(lambda end: data[:end]),
        st.builds(damage.replace, st.just(data), at, st.binary(min_size=1, max_size=8)),
        st.builds(damage.insert, st.just(data), at, st.binary(min_size=1, max_size=64)),
        st.builds(lambda a, n: data[:a] + data[a + n :], at, st.integers(1, 64)),
    )


@st.composite
def structured(draw: st.DrawFn, data: bytes, events: Sequence[Record]) -> bytes:
    """One record removed, repeated, exchanged, or one of its fields at an edge value."""
    event = draw(st.sampled_from(events))
    kind = draw(st.sampled_from(("field", "remove", "repeat", "swap", "cut")))
    places = damage.fields(event)
    if kind == "field" and places:
        _, at, size = draw(st.sampled_from(places))
        value = draw(st.sampled_from(EDGES) | st.integers(0, (1 << 8 * size) - 1))
        return damage.replace(data, at, (value & ((1 << 8 * size) - 1)).to_bytes(size, "big"))
    if kind == "repeat":
        return damage.repeat(data, event)
    if kind == "swap":
        other = draw(st.sampled_from(events))
        first, second = sorted((event, other), key=lambda record: record.offset)
        if first.offset + first.size <= second.offset:
            return damage.swap(data, first, second)
    if kind == "cut":
        edge = event.offset + draw(st.integers(0, 1)) * event.size
        return data[: max(0, edge + draw(st.integers(-1, 1)))]
    return damage.remove(data, event)
