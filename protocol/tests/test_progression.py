"""Progressions as long numbers say what a loop would say."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from qmig.legacy.progression import MOST, following, numbers

steps = st.sampled_from([1024, 4096, 65536])


@given(st.integers(0, 1 << 40), steps, st.integers(0, 3 * MOST + 2))
def test_numbers(first: int, step: int, count: int) -> None:
    first -= first % step
    assert numbers(first, step, count) == array("Q", range(first, first + count * step, step))


@given(st.integers(0, 1 << 40), steps, st.sampled_from([8, 9]), st.integers(1, 2 * MOST), st.data())
def test_how_many_follow(first: int, step: int, size: int, count: int, data: st.DataObject) -> None:
    words = [first + number * step for number in range(count)]
    good = data.draw(st.integers(0, count))
    if good < count:
        words[good] ^= 1 << data.draw(st.integers(0, 8 * size - 1))
    raw = b"".join(word.to_bytes(size, "big") for word in words)
    assert following(raw, size, first, step) == good


@given(st.integers(0, 1 << 50), steps, st.integers(0, 40_000))
def test_numbers_over_many_spans(first: int, step: int, count: int) -> None:
    first -= first % step
    assert numbers(first, step, count) == array("Q", range(first, first + count * step, step))
