"""Offers, results and agreed sets: what each side makes of the other's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig.handshake.codes import AbortCode
from qmig.handshake.messages import Offer
from qmig.handshake.names import NAMES, Entry, Kind, Party, Result, fits
from qmig.handshake.negotiate import (
    AGREED,
    Refused,
    Unable,
    admissible,
    answer,
    check_agreed,
    settle,
    why_off,
)
from qmig.testing.handshake import offers

WIRE = {name: entry for name, entry in NAMES.items() if entry.party is Party.WIRE}


def value_of(entry: Entry) -> st.SearchStrategy[Any]:
    match entry.kind:
        case Kind.FLAG:
            return st.just(True)
        case Kind.NUMBER:
            return st.integers(entry.least, entry.most)
        case Kind.WORDS:
            return st.lists(st.sampled_from(entry.words), min_size=1, unique=True)
        case Kind.SET:
            return st.lists(st.sampled_from("abcd"), unique=True).map(sorted)


@st.composite
def offers_and_abilities(draw: st.DrawFn) -> tuple[dict[str, Offer], dict[str, Any]]:
    offered, able = {}, {}
    for name in draw(st.lists(st.sampled_from(sorted(WIRE)), unique=True)):
        entry = WIRE[name]
        value = draw(value_of(entry))
        low = (
            draw(st.none() | st.integers(max(entry.least, 1), value)) if entry.result is Result.MIN else None
        )
        offered[name] = Offer(
            value=value, bound=low, essential=draw(st.sampled_from([None, None, None, True]))
        )
        if draw(st.booleans()):
            able[name] = draw(
                value_of(entry) | st.just(Unable("no")) | st.just(Unable("no", applicable=False))
            )
    return offered, able


CONFLICTS = st.lists(
    st.frozensets(st.sampled_from(["multifd-channels", "postcopy-ram", "x-colo"]), min_size=2, max_size=2),
    max_size=2,
)


@given(offers_and_abilities(), CONFLICTS, CONFLICTS)
def test_what_d_answers_s_may_take_and_d_takes_back(
    both: tuple[dict[str, Offer], dict[str, Any]], theirs: list[frozenset[str]], ours: list[frozenset[str]]
) -> None:
    """HS-NEG-002, HS-NEG-006, HS-NEG-015, HS-NEG-023."""
    offered, able = both
    results = answer(offered, able, theirs)
    assert set(results) == set(offered)
    assert results == answer(dict(reversed(offered.items())), able, theirs)
    for name, result in results.items():
        assert result[0] != AGREED or admissible(NAMES[name], offered[name], result[1])
    try:
        agreed = settle(offered, results, ours)
    except Refused as refusal:
        agreed, code, missing = {}, refusal.code, refusal.names
    else:
        code, missing = AbortCode.MISSING_REQUIRED, {}
    assert code is AbortCode.MISSING_REQUIRED
    assert all(offered[name].essential for name in missing)
    check_agreed(results, agreed)
    for name, value in agreed.items():
        assert fits(NAMES[name], value)
        assert set(NAMES[name].needs) <= set(agreed)
    for pair in (*theirs, *ours):
        assert not pair <= set(agreed)


def test_multifd_16_against_8() -> None:
    """HS-NEG-010, HS-NEG-019."""
    for wanted, most, agreed in ((16, 8, 8), (255, 255, 255), (4, 8, 4), (1, 1, 1)):
        results = answer(offers(multifd_channels=wanted), {"multifd-channels": most})
        assert settle(offers(multifd_channels=wanted), results) == {"multifd-channels": agreed}
    results = answer(offers(multifd_channels=16), {"multifd-channels": 0})
    assert results == {"multifd-channels": (4, "at most 0")}
    assert settle(offers(multifd_channels=16), results) == {}


def test_all_that_is_missing_is_listed() -> None:
    """HS-NEG-005."""
    wanted = {
        name: Offer(value=True, essential=True) for name in ("postcopy-ram", "handover.v1", "org.example/x")
    }
    wanted["x-colo"] = Offer(value=True)
    results = answer(wanted, {"handover.v1": Unable("no-hold")})
    with pytest.raises(Refused) as refusal:
        settle(wanted, results)
    assert refusal.value.code is AbortCode.MISSING_REQUIRED
    assert refusal.value.text == (
        "postcopy-ram: not known to the destination; handover.v1: no-hold; "
        "org.example/x: not known to the destination"
    )


def test_an_essential_set_that_comes_to_nothing_is_missing() -> None:
    wanted = {"dirty-bitmaps": Offer(value=["a"], essential=True)}
    with pytest.raises(Refused, match="nothing in common"):
        settle(wanted, {"dirty-bitmaps": (0, [])})


def test_an_essential_name_that_falls_at_s_is_missing() -> None:
    """HS-NEG-017."""
    wanted = {**offers(multifd_channels=2), "postcopy-ram": Offer(value=True, essential=True)}
    with pytest.raises(Refused, match="cannot be on together with multifd-channels"):
        settle(wanted, answer(wanted, {"multifd-channels": 2, "postcopy-ram": True}), [frozenset(wanted)])


@pytest.mark.parametrize(
    ("offered", "results", "wrong"),
    [
        (offers("x-colo"), {}, {"x-colo": "not answered"}),
        ({}, {"x-colo": (2,)}, {"x-colo": "answered and not offered"}),
        (
            offers("org.example/x"),
            {"org.example/x": (0, True)},
            {"org.example/x": "agreed, and no name that can be"},
        ),
        (offers(multifd_channels=4), {"multifd-channels": (0, 5)}, None),
        (offers(multifd_channels=4), {"multifd-channels": (0, 0)}, None),
        (offers(multifd_channels=4), {"multifd-channels": (0, True)}, None),
        (offers(multifd_channels=4), {"multifd-channels": (0,)}, None),
        ({"multifd-channels": Offer(value=4, bound=3)}, {"multifd-channels": (0, 2)}, None),
        (offers("x-colo"), {"x-colo": (0, False)}, None),
        (offers("x-colo"), {"x-colo": (0, 1)}, None),
        (offers(switchover_ack=["single"]), {"switchover-ack": (0, "per-device")}, None),
        (offers(dirty_bitmaps=["a", "b"]), {"dirty-bitmaps": (0, ["b", "a"])}, None),
        (offers(dirty_bitmaps=["a", "b"]), {"dirty-bitmaps": (0, ["c"])}, None),
        (offers(dirty_bitmaps=["a", "b"]), {"dirty-bitmaps": (0, "a")}, None),
        (offers(announce_step=5), {"announce-step": (0, 6)}, None),
    ],
)
def test_results_that_no_d_may_give(offered: Any, results: Any, wrong: Any) -> None:
    """HS-NEG-011."""
    with pytest.raises(Refused) as refusal:
        settle(offered, results)
    assert refusal.value.code is AbortCode.SELECTION_MISMATCH
    assert refusal.value.names == (wrong or dict.fromkeys(results, "not among what was offered"))


@pytest.mark.parametrize("result", [(3, "x"), (4, "x"), (1, True), (77,), (2,)])
def test_results_that_mean_off(result: Any) -> None:
    """HS-NEG-004: an unknown code is a refusal."""
    assert settle(offers("x-colo"), {"x-colo": result}) == {}
    assert why_off(result) in {"x", "refused", "not known to the destination"}


@pytest.mark.parametrize(
    ("agreed", "problem"),
    [
        ({"x-colo": True}, "was not agreed to"),
        ({"org.example/x": 1}, "was not agreed to"),
        ({"multifd-channels": 9}, "has another value than was agreed to"),
        ({"multifd-channels": 0}, "has another value than was agreed to"),
        ({"postcopy-ram": 1}, "has another value than was agreed to"),
        ({"postcopy-preempt": True}, "needs postcopy-ram"),
        ({"dirty-bitmaps": []}, "has another value than was agreed to"),
        ({"dirty-bitmaps": ["z"]}, "has another value than was agreed to"),
        ({"dirty-bitmaps": 5}, "has another value than was agreed to"),
    ],
)
def test_commits_that_d_does_not_take(agreed: Any, problem: str) -> None:
    """HS-NEG-016."""
    results: Any = {
        "multifd-channels": (0, 8), "postcopy-ram": (0, True), "postcopy-preempt": (0, True),
        "dirty-bitmaps": (0, ["a", "b"]), "x-colo": (4, "no"),
    }  # fmt: skip
    check_agreed(results, {"multifd-channels": 3, "dirty-bitmaps": ["b"]})
    with pytest.raises(Refused) as refusal:
        check_agreed(results, agreed)
    assert refusal.value.code is AbortCode.BAD_AGREED_SET
    assert list(refusal.value.names.values()) == [problem]


DECLARED = {
    "test-number": Entry(name="test-number", result=Result.DECLARE_DST, kind=Kind.NUMBER, most=9),
    "test-set": Entry(name="test-set", result=Result.INTERSECT, kind=Kind.SET),
}


def test_what_d_declares_is_not_answered() -> None:
    """HS-NEG-018: no name of this revision has it."""
    offered = {"test-number": Offer(value=3)}
    assert answer(offered, {"test-number": 5}, (), DECLARED) == {"test-number": (2,)}
    with pytest.raises(Refused):
        settle(offered, {"test-number": (0, 3)}, (), DECLARED)


def test_words_that_are_none_are_not_offered_with_success() -> None:
    for words in ([], "single", [1], ["Not A Name"]):
        assert (
            answer({"switchover-ack": Offer(value=words)}, {"switchover-ack": ["single"]})["switchover-ack"][
                0
            ]
            == 4
        )
    assert (
        answer({"multifd-channels": Offer(value=4, bound=5)}, {"multifd-channels": 8})["multifd-channels"][0]
        == 4
    )
    assert (
        answer({"multifd-channels": Offer(value=4, bound="x")}, {"multifd-channels": 8})["multifd-channels"][
            0
        ]
        == 4
    )


def test_what_fits_a_name() -> None:
    assert fits(NAMES["dirty-bitmaps"], ["a"])
    assert not fits(NAMES["dirty-bitmaps"], [])
    assert not fits(NAMES["dirty-bitmaps"], ["a", 1])
    assert not fits(NAMES["switchover-ack"], "No")
