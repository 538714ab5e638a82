"""What comes of an offer: pure functions of what both sides can do.

Source: `spec/v2`, chapter "Negotiation" (HS-NEG). D selects (`answer`), S checks that it could have
(`settle`), D checks what S made of it (`check_agreed`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from qmig._cbor import Value
from qmig.handshake.codes import AbortCode
from qmig.handshake.messages import Offer
from qmig.handshake.names import NAMES, Entry, Party, Result, fits, is_set


class Code(enum.IntEnum):
    """First element of a result (HS-NEG-003)."""

    AGREED = 0
    NOT_UNDERSTOOD = 2
    NOT_APPLICABLE = 3
    REFUSED = 4


AGREED: Final = Code.AGREED.value
NOT_UNDERSTOOD: Final = Code.NOT_UNDERSTOOD.value
NOT_APPLICABLE: Final = Code.NOT_APPLICABLE.value
REFUSED: Final = Code.REFUSED.value

#: name -> (code, value or reason)
Results: TypeAlias = Mapping[str, tuple[Any, ...]]
#: names that a build cannot have on together
Conflicts: TypeAlias = Iterable[frozenset[str]]


@dataclass(frozen=True, slots=True)
class Unable:
    """Why a side cannot do what a name stands for; `applicable` is false where it makes no sense here."""

    reason: str
    applicable: bool = True


#: name -> what this side can do: True, a greatest number, a sequence of words or paths, a value, or why not.
#: A name that is absent is not understood.
Abilities: TypeAlias = Mapping[str, Any]


class Refused(Exception):
    """The negotiation ends the session; `names` are all that stand in its way, with reasons."""

    def __init__(self, code: AbortCode, names: Mapping[str, str]) -> None:
        listed = "; ".join(f"{name}: {reason}" if reason else name for name, reason in names.items())
        super().__init__(f"{code}: {listed}")
        self.code = code
        self.names = names

    @property
    def text(self) -> str:
        return "; ".join(f"{name}: {reason}" if reason else name for name, reason in self.names.items())


def answer(
    offers: Mapping[str, Offer],
    abilities: Abilities,
    conflicts: Conflicts = (),
    names: Mapping[str, Entry] = NAMES,
) -> Results:
    """D's results for all offered names and no other: a function of the offer and of D's abilities."""
    single = {name: _single(offer, names.get(name), abilities.get(name)) for name, offer in offers.items()}
    return _walk(single, conflicts, names)


def _walk(single: Results, conflicts: Conflicts, names: Mapping[str, Entry]) -> dict[str, tuple[Any, ...]]:
    """Goes through the names by rank; one whose needs are off, or that conflicts with one on, falls."""
    results = dict(single)
    on: set[str] = set()
    pairs = list(conflicts)
    agreed = [name for name, result in single.items() if result[0] == AGREED]
    for name in sorted(agreed, key=lambda name: (names[name].rank, name.encode())):
        missing = [need for need in names[name].needs if need not in on]
        clash = next((sorted(pair - {name}) for pair in pairs if name in pair and pair - {name} <= on), None)
        if missing:
            results[name] = (NOT_APPLICABLE, f"needs {', '.join(missing)}")
        elif clash is not None:
            results[name] = (NOT_APPLICABLE, f"cannot be on together with {', '.join(clash)}")
        else:
            on.add(name)
    return results


def _single(offer: Offer, entry: Entry | None, ability: Any) -> tuple[Any, ...]:
    """The result of one name by itself."""
    if entry is None or ability is None:
        return (NOT_UNDERSTOOD,)
    if entry.party is not Party.WIRE or entry.result is Result.DECLARE_DST:
        return (NOT_UNDERSTOOD,)
    if isinstance(ability, Unable):
        return (REFUSED if ability.applicable else NOT_APPLICABLE, ability.reason)
    if not _offerable(entry, offer):
        return (REFUSED, "the offered value is none for this name")
    value = offer.value
    match entry.result:
        case Result.MIN:
            lowest = offer.bound if offer.bound is not None else max(entry.least, 1)
            chosen = min(value, ability)
            return (AGREED, chosen) if chosen >= lowest else (REFUSED, f"at most {ability}")
        case Result.FIRST_COMMON:
            common = [word for word in value if word in ability]
            return (AGREED, common[0]) if common else (REFUSED, f"has {', '.join(ability) or 'none'}")
        case Result.INTERSECT:
            return (AGREED, [item for item in value if item in ability])
        case Result.EXACT:
            same = type(value) is type(ability) and value == ability
            return (AGREED, value) if same else (REFUSED, f"is {ability} here")
    return (AGREED, value)


def _offerable(entry: Entry, offer: Offer) -> bool:
    """Whether the offer has the form that the name's result function takes."""
    match entry.result:
        case Result.FIRST_COMMON:
            words = offer.value
            return isinstance(words, list | tuple) and bool(words) and all(fits(entry, w) for w in words)
        case Result.INTERSECT:
            return is_set(offer.value)
        case Result.MIN:
            lowest = offer.bound
            fit = lowest is None or (type(lowest) is int and entry.least <= lowest)
            return fits(entry, offer.value) and fit and (lowest is None or lowest <= offer.value)
    return fits(entry, offer.value)


def admissible(entry: Entry, offer: Offer, value: Value) -> bool:
    """Whether D could have answered `value` to the offer, whatever its abilities are (HS-NEG-011)."""
    match entry.result:
        case Result.MIN:
            lowest = offer.bound if offer.bound is not None else max(entry.least, 1)
            return type(value) is int and lowest <= value <= offer.value
        case Result.FIRST_COMMON:
            return isinstance(value, str) and value in offer.value
        case Result.INTERSECT:
            return is_set(value) and set(value) <= set(offer.value)
        case Result.DECLARE_DST:
            return False
    return type(value) is type(offer.value) and bool(value == offer.value)


def settle(
    offers: Mapping[str, Offer],
    results: Results,
    conflicts: Conflicts = (),
    names: Mapping[str, Entry] = NAMES,
) -> dict[str, Value]:
    """What S commits to: the names that are on, with their values.

    Raises Refused with `selection-mismatch` for results that no D may give, with `missing-required` for
    essential names that are off; each lists all of them."""
    _check_results(offers, results, names)
    on = {name: result for name, result in results.items() if result[0] == AGREED and result[1] != []}
    walked = _walk(on, conflicts, names)
    agreed = {name: result[1] for name, result in walked.items() if result[0] == AGREED}
    missing = {
        name: why_off(walked.get(name, results[name]))
        for name, offer in offers.items()
        if offer.essential and name not in agreed
    }
    if missing:
        raise Refused(AbortCode.MISSING_REQUIRED, missing)
    return agreed


def _check_results(offers: Mapping[str, Offer], results: Results, names: Mapping[str, Entry]) -> None:
    wrong: dict[str, str] = {}
    for name in sorted(set(offers) ^ set(results)):
        wrong[name] = "not answered" if name in offers else "answered and not offered"
    for name in set(offers) & set(results):
        code = results[name][0]
        if code != AGREED:
            continue
        value = results[name][1] if len(results[name]) > 1 else None
        entry = names.get(name)
        if entry is None:
            wrong[name] = "agreed, and no name that can be"
        elif not admissible(entry, offers[name], value):
            wrong[name] = "not among what was offered"
    if wrong:
        raise Refused(AbortCode.SELECTION_MISMATCH, dict(sorted(wrong.items())))


def why_off(result: Sequence[Any]) -> str:
    """A result in words."""
    match result[0]:
        case 0:
            return "nothing in common"
        case 2:
            return "not known to the destination"
    return result[1] if len(result) > 1 and isinstance(result[1], str) else "refused"


def check_agreed(results: Results, agreed: Mapping[str, Value], names: Mapping[str, Entry] = NAMES) -> None:
    """D's look at COMMIT: only what it agreed to, with the same values or less, and nothing without its
    needs. Raises Refused with `bad-agreed-set`."""
    wrong: dict[str, str] = {}
    for name, value in agreed.items():
        result = results.get(name, (NOT_UNDERSTOOD,))
        if result[0] != AGREED:
            wrong[name] = "was not agreed to"
        elif not _within(names[name], value, result[1]):
            wrong[name] = "has another value than was agreed to"
        elif missing := [need for need in names[name].needs if need not in agreed]:
            wrong[name] = f"needs {', '.join(missing)}"
    if wrong:
        raise Refused(AbortCode.BAD_AGREED_SET, wrong)


def _within(entry: Entry, value: Value, answered: Value) -> bool:
    match entry.result:
        case Result.MIN:
            return type(value) is int and entry.least <= value <= answered
        case Result.INTERSECT:
            return is_set(value) and bool(value) and set(value) <= set(answered)
    return type(value) is type(answered) and bool(value == answered)
