"""Invariant: whatever the bytes, a reader delivers events, then ends or raises one of the library's
own errors with offset, record and requirement; the events' bytes are a prefix of the input; the result
does not depend on how the input was cut into chunks."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmig._wire import Record
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.spec.ids import ID
from qmig.testing import load_vectors
from qmig.testing.damage import boundaries
from qmig.testing.streams import PLAIN, read, to_bytes
from qmig_fuzz.mutations import EDGES, blind, structured

PLAIN_BYTES = to_bytes(PLAIN)
VECTORS = {
    vector.id.partition("#")[2]: vector
    for vector in load_vectors("legacy/recordings")
    if "main" in vector.channels and "offset" not in vector.id
}
SMALL = sorted(VECTORS, key=lambda name: VECTORS[name].channels["main"].size or 0)[:12]


@functools.cache
def recording(name: str) -> tuple[bytes, list[Record]]:
    """A main channel and its events. Views in them stay valid: it is all one chunk."""
    data = VECTORS[name].data()
    return data, read(data)[0]


def judge(data: bytes, cuts: Sequence[int] = ()) -> tuple[bytes, str]:
    """What the events say and how the reading ended; fails when the invariant does not hold."""
    events, error = read(data, cuts)
    content = b"".join(event.encode() for event in events)
    assert data.startswith(content)
    if error is None:
        assert len(content) == len(data)
        return content, "end"
    assert isinstance(error, RemoteProtocolError)
    assert not isinstance(error, LocalProtocolError)
    assert 0 <= error.offset <= len(data)
    assert ID.fullmatch(error.requirement), error.requirement
    assert error.record
    assert len(str(error)) < 1500  # a name of 255 unprintable bytes is four times as long when shown
    assert str(error).isprintable()
    return content, f"{type(error).__name__} {error}"


@given(st.data())
def test_blind_damage(data: st.DataObject) -> None:
    damaged = data.draw(blind(PLAIN_BYTES).flatmap(blind))
    judge(damaged)


@given(st.data())
def test_structured_damage(data: st.DataObject) -> None:
    events = read(PLAIN_BYTES)[0]
    judge(data.draw(structured(PLAIN_BYTES, events)))


@given(st.data())
def test_chunking_changes_nothing(data: st.DataObject) -> None:
    events = read(PLAIN_BYTES)[0]
    damaged = data.draw(structured(PLAIN_BYTES, events) | blind(PLAIN_BYTES))
    cuts = data.draw(
        st.just(list(range(len(damaged)))) | st.lists(st.integers(0, max(len(damaged), 1)), max_size=8)
    )
    assert judge(damaged, [cut for cut in cuts if cut < len(damaged)]) == judge(damaged)


@given(st.binary(max_size=300).map(lambda tail: b"QEVM\0\0\0\3" + tail))
def test_random_bytes_behind_a_header(data: bytes) -> None:
    judge(data)


@pytest.mark.parametrize("name", SMALL)
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None
)
@given(data=st.data())
def test_structured_damage_of_recordings(name: str, data: st.DataObject) -> None:
    raw, events = recording(name)
    judge(data.draw(structured(raw, events)))


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_cuts_at_record_boundaries(name: str, pytestconfig: pytest.Config) -> None:
    raw, events = recording(name)
    edges = [edge + by for edge in boundaries(events) for by in (-1, 0, 1)]
    step = 1 if pytestconfig.getoption("--sweep") == "full" else max(1, len(edges) // 60)
    for end in edges[::step]:
        if 0 <= end <= len(raw):
            judge(raw[:end])


@pytest.mark.parametrize(
    "event", range(len(PLAIN)), ids=lambda index: f"{index}-{type(PLAIN[index]).__name__}"
)
def test_no_field_makes_memory_grow(event: int) -> None:
    """Every fixed field of every record at every edge value: what is kept stays under 1 MiB."""
    from qmig.testing.damage import fields, replace

    record = read(PLAIN_BYTES)[0][event]
    for _, at, size in fields(record):
        for value in EDGES:
            damaged = replace(PLAIN_BYTES, at, (value & ((1 << 8 * size) - 1)).to_bytes(size, "big"))
            tracemalloc.start()
            judge(damaged)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 1 << 20
