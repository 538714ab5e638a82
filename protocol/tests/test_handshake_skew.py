"""Ends that differ in what they know, want, can and allow; bytes cut otherwise or altered on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig.handshake import policy
from qmig.handshake.events import Do
from qmig.handshake.messages import Finding, Limits, Offer
from qmig.handshake.names import NAMES, Entry, Kind, Party, Result
from qmig.handshake.negotiate import Unable
from qmig.testing.handshake import ABILITIES, OFFERS, Pair, destination, source

WIRE = {name: entry for name, entry in NAMES.items() if entry.party is Party.WIRE}
#: an older revision does not exist yet: this one without most of its names stands for it
OLDEST = {name: WIRE[name] for name in ("multifd-channels", "postcopy-ram")}
REVISIONS: list[Mapping[str, Entry]] = [NAMES, OLDEST, {}]


@st.composite
def offers(draw: st.DrawFn) -> dict[str, Offer]:
    made = {}
    for name in draw(st.lists(st.sampled_from(sorted(WIRE)), unique=True, max_size=8)):
        entry = WIRE[name]
        essential = draw(st.sampled_from([None, None, True]))
        made[name] = Offer(value=draw(values(entry)), essential=essential)
    return made


def values(entry: Entry) -> st.SearchStrategy[Any]:
    match entry.kind:
        case Kind.FLAG:
            return st.just(True)
        case Kind.NUMBER if entry.result is Result.MIN:
            return st.integers(1, 5)
        case Kind.NUMBER:
            return st.integers(entry.least, entry.least + 3)
        case Kind.WORDS:
            return st.lists(st.sampled_from(entry.words), min_size=1, unique=True)
        case _:
            return st.lists(st.sampled_from("abc"), unique=True).map(sorted)


def abilities() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {}, optional={name: values(entry) | st.just(Unable("no")) for name, entry in WIRE.items()}
    )


LEVELS = st.sampled_from(["note", "warn", "unknown", "incompatible", "dire"])
FINDINGS = st.lists(st.builds(Finding, rule=st.sampled_from(["D01", "V06", "Z99"]), level=LEVELS), max_size=3)


@given(
    offers(), abilities(), st.sampled_from(REVISIONS), st.sampled_from(REVISIONS), FINDINGS,
    st.lists(st.sampled_from(["D01", "V06"]), unique=True), st.tuples(st.booleans(), st.booleans()),
    st.sampled_from([0, 1, 3, 100]), st.sampled_from([None, 1, 4]),
)  # fmt: skip
def test_both_agree_or_both_say_the_same_reason(
    wanted: dict[str, Offer], able: dict[str, Any], theirs: Mapping[str, Entry], ours: Mapping[str, Entry],
    findings: list[Finding], allowed: list[str], strict: tuple[bool, bool], chunk: int, most: int | None,
) -> None:  # fmt: skip
    known = {name: offer for name, offer in wanted.items() if name in ours}
    s = source(known, names=ours, strict=strict[0], allowed=[policy.Admission(rule) for rule in allowed])
    limits = Limits(channels=most) if most is not None else None
    d = destination(able, names=theirs, strict=strict[1], limits=limits)
    pair = Pair(s, d, chunk=chunk, findings=findings).start()
    if s.state.value == "flow":
        assert d.state.value == "loading"
        assert s.agreement.agreed == d.agreement.agreed
        assert tuple(s.agreement.plan) == tuple(d.agreement.plan)
        assert all(name in s.agreement.agreed for name, offer in known.items() if offer.essential)
        assert set(s.agreement.agreed) <= set(theirs) & set(ours)
        assert {**s.agreement.off, **s.agreement.agreed}.keys() == known.keys()
    else:
        assert s.reason is not None
        assert d.reason is not None
        assert (s.reason.code, s.reason.text) == (d.reason.code, d.reason.text)
        assert s.reason.of_peer is not d.reason.of_peer
        assert (pair.outcome("source"), pair.outcome("destination")) == ("here", "listen")
        assert not any(isinstance(event, Do) and event.action.value == "migrate" for _, event in pair.log)


def lengths() -> dict[str, int]:
    """What each side says before READY's frame."""
    said = Pair(source(), destination()).start().said
    return {"source": len(said["source"]), "destination": len(said["destination"]) - 8 - 37}


LENGTHS = lengths()


@pytest.mark.parametrize("side", ["source", "destination"])
@given(st.data())
def test_no_altered_session_gets_to_ready(side: str, data: st.DataObject) -> None:
    """HS-TRN-006: bytes that a relay changes, drops, inserts or repeats, before READY's own frame."""
    at = data.draw(st.integers(0, LENGTHS[side] - 1))
    how = data.draw(st.sampled_from(["change", "drop", "insert", "repeat"]))
    byte = data.draw(st.integers(1, 255))
    if how == "repeat" and side == "source" and at == LENGTHS[side] - 1:
        how = "change"  # a byte behind COMMIT is outside of the hashes
    pair = Pair(source(), destination(), chunk=data.draw(st.sampled_from([0, 1])))
    deliver = pair._deliver

    def alter(who: str, said: bytes) -> bool:
        before = len(pair.said[who])
        if who == side and before <= at < before + len(said):
            place = at - before
            piece = {
                "change": bytes([said[place] ^ byte]), "drop": b"",
                "insert": bytes([byte, said[place]]), "repeat": said[place : place + 1] * 2,
            }[how]  # fmt: skip
            said = said[:place] + piece + said[place + 1 :]
        return deliver(who, said)

    pair._deliver = alter  # type: ignore[method-assign, assignment]
    pair.start()
    assert pair.source.state.value != "flow"
    assert not any(isinstance(event, Do) and event.action.value == "migrate" for _, event in pair.log)


@given(st.binary(max_size=200), st.integers(0, 500), st.sampled_from(["source", "destination"]))
def test_nonsense_anywhere_is_refused_or_waited_for(nonsense: bytes, at: int, side: str) -> None:
    """Only our own errors leave, whatever comes; and the guest stays."""
    pair = Pair(source(), destination())
    deliver = pair._deliver

    def alter(who: str, said: bytes) -> bool:
        before = len(pair.said[who])
        if who == side and before <= at < before + len(said):
            said = said[: at - before] + nonsense
        return deliver(who, said)

    pair._deliver = alter  # type: ignore[method-assign, assignment]
    pair.start()
    for end in (pair.source, pair.destination):
        end.receive_data(b"")
    pair.run()
    assert pair.destination.state.value not in {"running", "taking"}
    assert "record given" not in pair.does("source")


def test_the_names_here_are_names() -> None:
    assert set(OFFERS) <= set(WIRE)
    assert set(ABILITIES) <= set(WIRE)
