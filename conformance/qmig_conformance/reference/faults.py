"""Seeded faults: what a peer with one wrong behaviour shows at its boundary.

A destination's faults change what an honest one shows: for each statement by which the honest peer refuses a
stream, one fault that takes such a stream for good, one that stops without a word, one that never comes back
and one that is ended by a signal; the same for what it answers. A source's faults are the counter-examples
of `qmig.testing.damaged`, one or more for every rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from qmig import Record
from qmig.legacy.returnpath import (
    RpPong,
    RpRecvBitmap,
    RpReqPages,
    RpReqPagesId,
    RpResumeAck,
    RpShut,
)
from qmig_conformance.case import Unmet
from qmig_conformance.hostile.answers import messages
from qmig_conformance.play import REFUSED, Outcome, Seen

_STATEMENT: Final = re.compile(r"\[([A-Z]+-[A-Z]+-\d+)\]\s*$")


@dataclass(frozen=True, slots=True)
class Fault:
    """One of a destination. `change` gives what is seen of it, None where it does as an honest one."""

    name: str
    change: Callable[[Seen], Seen | None]


def statement_of(seen: Seen) -> str:
    """The statement by which our peer refuses; empty for other reasons."""
    found = _STATEMENT.search(seen.words)
    return found[1] if found else ""


# -- outcomes ---------------------------------------------------------------------------------------------

#: what a peer may do instead of refusing
_INSTEAD: Final[dict[str, dict[str, Any]]] = {
    "takes it for good": {"outcome": Outcome.SUCCEED, "words": ""},
    "refuses without a word": {"outcome": Outcome.FAIL, "words": ""},
    "stops answering": {"outcome": Outcome.BLOCKED, "words": ""},
    "is ended by a signal": {"outcome": Outcome.CRASH, "returncode": -11},
}
#: what becomes of an outcome -> name of the fault, and its outcome
_OUTCOMES: Final[tuple[tuple[str, Outcome, Outcome], ...]] = (
    ("refuses what is good", Outcome.SUCCEED, Outcome.FAIL),
    ("is ended by a signal where it succeeds", Outcome.SUCCEED, Outcome.CRASH),
    ("never completes", Outcome.SUCCEED, Outcome.WAITS),
    ("completes where it waits", Outcome.WAITS, Outcome.SUCCEED),
    ("is ended by a signal where it waits", Outcome.WAITS, Outcome.CRASH),
    ("stops answering where it waits", Outcome.WAITS, Outcome.BLOCKED),
    ("takes for good what it refuses for another reason", Outcome.FAIL, Outcome.SUCCEED),
    ("is ended by a signal where it refuses for another reason", Outcome.FAIL, Outcome.CRASH),
    ("stops answering where it refuses for another reason", Outcome.FAIL, Outcome.BLOCKED),
    ("loses the guest of a postcopy that breaks", Outcome.POSTCOPY_PAUSED, Outcome.CRASH),
    ("goes on behind a postcopy that breaks", Outcome.POSTCOPY_PAUSED, Outcome.SUCCEED),
)


def of_statement(statement: str) -> Iterator[Fault]:
    """Those of a peer that does not hold a source to it as it should."""
    for name, values in _INSTEAD.items():
        yield Fault(f"{statement}: {name}", _refusal(statement, values))


def _refusal(statement: str, values: dict[str, Any]) -> Callable[[Seen], Seen | None]:
    def change(seen: Seen) -> Seen | None:
        refused = seen.outcome in {*REFUSED, Outcome.POSTCOPY_PAUSED}
        return replace(seen, **values) if refused and statement_of(seen) == statement else None

    return change


def _outcome(before: Outcome, after: Outcome) -> Callable[[Seen], Seen | None]:
    def change(seen: Seen) -> Seen | None:
        if seen.outcome is not before or (before is Outcome.FAIL and statement_of(seen)):
            return None
        words = "no" if after is Outcome.FAIL else seen.words
        return replace(seen, outcome=after, words=words, returncode=-11 if after is Outcome.CRASH else None)

    return change


# -- answers ----------------------------------------------------------------------------------------------

Edit = Callable[[list[Any]], list[Any]]


def _each(kind: type[Record], **values: Any) -> Edit:
    """Other values in all messages of a kind."""
    return lambda told: [_with(one, values) if type(one) is kind else one for one in told]


def _with(message: Any, values: dict[str, Any]) -> Any:
    new = {name: value(getattr(message, name)) for name, value in values.items()}
    return type(message)(**{**{field: getattr(message, field) for field in message.names()}, **new})


def _without(kind: type[Record]) -> Edit:
    return lambda told: [one for one in told if type(one) is not kind]


def _twice(kind: type[Record]) -> Edit:
    return lambda told: [one for one in told for _ in range(2 if type(one) is kind else 1)]


def _first(kind: type[Record]) -> Edit:
    return lambda told: sorted(told, key=lambda one: type(one) is not kind)


ANSWERS: Final[dict[str, Edit]] = {
    "PONG has another value": _each(RpPong, value=lambda value: value ^ 1),
    "PONG is left out": _without(RpPong),
    "PONG is sent twice": _twice(RpPong),
    "SHUT says the opposite": _each(RpShut, value=lambda value: 1 - value),
    "SHUT is left out": _without(RpShut),
    "SHUT is sent twice": _twice(RpShut),
    "SHUT comes first": _first(RpShut),
    "a page is asked for behind its block's end": _each(RpReqPagesId, start=lambda start: start + (1 << 40)),
    "a page is asked for by a part": _each(RpReqPagesId, length=lambda length: length - 1),
    "a page is asked for by a part, block unnamed": _each(RpReqPages, length=lambda length: length + 1),
    "a page of an unknown block is asked for": _each(RpReqPagesId, block=lambda block: block[:-1] + "?"),
    "the block is not named": _without(RpReqPagesId),
    "the bitmap is too short": _each(RpRecvBitmap, bitmap=lambda bitmap: bitmap[:-8]),
    "the bitmap is left out": _without(RpRecvBitmap),
    "the bitmap is another block's": _each(RpRecvBitmap, block=lambda block: block[:-1] + "?"),
    "RESUME is not acknowledged": _without(RpResumeAck),
    "RESUME is acknowledged by 0": _each(RpResumeAck, value=lambda _: 0),
    "pages are asked for before RESUME is acknowledged": lambda told: sorted(
        told, key=lambda one: type(one) is RpResumeAck
    ),
}


def _answers(edit: Edit) -> Callable[[Seen], Seen | None]:
    def change(seen: Seen) -> Seen | None:
        changed = {name: _edited(edit, data) for name, data in seen.answered.items()}
        return None if changed == dict(seen.answered) else replace(seen, answered=changed)

    return change


def _edited(edit: Edit, data: bytes) -> bytes:
    try:
        told = messages(data)
    except Unmet:
        return data
    return b"".join(message.encode() for message in edit(told))


def _cut(seen: Seen) -> Seen | None:
    changed = {name: data[:-1] for name, data in seen.answered.items()}
    return None if changed == dict(seen.answered) else replace(seen, answered=changed)


def _unknown(seen: Seen) -> Seen | None:
    changed = {name: b"\xff\xff\0\0" + data for name, data in seen.answered.items() if data}
    return replace(seen, answered={**seen.answered, **changed}) if changed else None


def destination_faults(statements: Iterable[str]) -> Sequence[Fault]:
    """All of them; `statements` are those by which an honest peer refuses."""
    return (
        *(fault for statement in sorted(statements) for fault in of_statement(statement)),
        *(Fault(name, _outcome(before, after)) for name, before, after in _OUTCOMES),
        *(Fault(f"answers: {name}", _answers(edit)) for name, edit in ANSWERS.items()),
        Fault("answers: the last one is cut", _cut),
        Fault("answers: a message of an unknown number comes first", _unknown),
    )
