"""Whole sessions of protocol v2, for its vectors: who does what, from the start to the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qmig.handshake.codes import Level
from qmig.handshake.messages import Finding, Offer
from qmig.testing import handshake as hs
from qmig.testing.handshake_form import diagnostic, vector

BAD: Final = Finding(
    rule="D01", level=Level.INCOMPATIBLE.value, path="/machine/peripheral/rng0", text="not there"
)
#: side, method that its user calls, keyword arguments
Step = tuple[str, str, dict[str, Any]]
_GOOD: Final[tuple[Step, ...]] = (
    ("source", "qemu_at_switch", {}),
    ("destination", "loaded", {}),
    ("source", "qemu_gave", {"run": True}),
    ("destination", "complete", {}),
)
SESSIONS: Final[tuple[tuple[str, str, Callable[[], hs.Pair], tuple[Step, ...]], ...]] = (
    (
        "hand-over",
        "multifd, hand-over, a guest that ran",
        lambda: hs.Pair(hs.source(), hs.destination()),
        _GOOD,
    ),
    (
        "switch",
        "without hand-over",
        lambda: hs.Pair(hs.source(hs.offers("resume.v1")), hs.destination()),
        (
            ("source", "qemu_at_switch", {}),
            ("source", "qemu_done", {}),
            ("destination", "started", {}),
            ("destination", "complete", {}),
        ),
    ),
    ("probe", "up to the verdict", lambda: hs.Pair(hs.probing(), hs.destination()), ()),
    (
        "mux",
        "one pipe for all",
        lambda: hs.Pair(
            hs.source({**hs.OFFERS, "channel.mux": hs.essential(Offer(value=True))}), hs.destination()
        ),
        _GOOD,
    ),
    (
        "postcopy",
        "postcopy, a guest that ran",
        lambda: hs.Pair(hs.source(), hs.destination()),
        (
            ("source", "to_postcopy", {"run": True}),
            ("source", "qemu_at_switch", {}),
            ("destination", "loaded", {}),
            ("source", "qemu_gave", {}),
            ("destination", "complete", {}),
        ),
    ),
    (
        "incompatible",
        "the source refuses the verdict",
        lambda: hs.Pair(hs.source(), hs.destination(), findings=[BAD]),
        (),
    ),
    (
        "missing",
        "the destination lacks something essential",
        lambda: hs.Pair(hs.source(), hs.destination({})),
        (),
    ),
    (
        "returned",
        "the destination cannot run the guest",
        lambda: _holding(hs.Pair(hs.source(), hs.destination()), "cont if the guest ran"),
        (
            ("source", "qemu_at_switch", {}),
            ("destination", "loaded", {}),
            ("source", "qemu_gave", {"run": True}),
            ("destination", "cont_failed", {"text": "image locked"}),
        ),
    ),
    (
        "load-failed",
        "the destination cannot load the guest",
        lambda: hs.Pair(hs.source(), hs.destination()),
        (("destination", "load_failed", {"text": "Unknown section 'x'"}),),
    ),
    (
        "cancelled",
        "the operator of the source ends it",
        lambda: hs.Pair(hs.source(), hs.destination()),
        (("source", "cancel", {}),),
    ),
    (
        "peer-described",
        "both describe themselves",
        lambda: hs.Pair(hs.source({**hs.OFFERS, "description.peer": Offer(value=True)}), hs.destination()),
        (),
    ),
    (
        "older-source",
        "a source that offers nothing",
        lambda: hs.Pair(hs.source({}), hs.destination()),
        (("source", "qemu_at_switch", {}), ("destination", "started", {}), ("destination", "complete", {})),
    ),
    (
        "older-destination",
        "a destination that knows hand-over only",
        lambda: hs.Pair(hs.source(), hs.destination({"handover.v1": True})),
        _GOOD,
    ),
)


def _holding(pair: hs.Pair, action: str) -> hs.Pair:
    pair.held.add(action)
    return pair


def play(make: Callable[[], hs.Pair], steps: tuple[Step, ...], chunk: int = 0) -> hs.Pair:
    """A session from its start to its end."""
    pair = make()
    pair.chunk = chunk
    pair.start()
    for side, event, values in steps:
        pair.tell(side, event, **values)
    return pair


def recorded(name: str, comment: str, make: Callable[[], hs.Pair], steps: tuple[Step, ...]) -> dict[str, Any]:
    pair = play(make, steps)
    channels = {side: bytes(said) for side, said in pair.said.items()}
    channels |= {f"{side}-{kind}-{index}": data for (side, kind, index), data in pair.bound.items()}
    expect = {
        "agreed": diagnostic(dict(pair.source.agreement.agreed)),
        "turns": [list(turn) for turn in pair.turns],
        "source": {
            "asked": pair.does("source"),
            "state": pair.source.state.value,
            "outcome": pair.outcome("source"),
        },
        "destination": {
            "asked": pair.does("destination"),
            "state": pair.destination.state.value,
            "outcome": pair.outcome("destination"),
        },
    }
    return vector(name, comment, "session", channels, {"decoding": expect}, ("grease",))
