"""What an outcome is held to.

Rule 1: a build does what builds of its version were seen to do (`spec/registries/destination-outcomes.toml`);
between two measured versions, what either does. An endpoint without a version does what any of them does, and
may always refuse; where all of them accept, that is a SHOULD.
Rule 2: whatever builds do, no input may end a destination by a signal or leave it with a monitor that does
not answer. Where all of them did, whatever else comes of it is right.
Rule 3: a refusal comes with words. Which ones is a SHOULD; the statement that the case is about has them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from qmig.spec.ids import Requirement, read_requirements
from qmig.spec.registry import Entry
from qmig.testing import load_registry, spec_root
from qmig_conformance.case import Level, NotShown, Unmet
from qmig_conformance.play import NEVER, REFUSED, Outcome, Seen

REGISTRY: Final = "destination-outcomes"
#: the registry's words
WORDS: Final = {
    "runs": Outcome.SUCCEED,
    "completes": Outcome.SUCCEED,
    "fails": Outcome.FAIL,
    "exits": Outcome.FAIL_DEST_QUIT_ERR,
    "stays": Outcome.FAIL,
    "refuses": Outcome.QMP_ERROR,
    "waits": Outcome.WAITS,
    "pauses": Outcome.POSTCOPY_PAUSED,
    "blocks": Outcome.BLOCKED,
    "dies": Outcome.CRASH,
}
_RANGE = re.compile(r"(\d+)\.(\d+)")
#: what varies in a text of a statement
_VARIABLE = re.compile(r"%(?:ll?)?[a-z]?|…")


def release(version: str) -> tuple[int, int]:
    """(10, 0) of "10.0.13"."""
    found = _RANGE.match(version)
    if found is None:
        raise ValueError(f"{version!r} is no version of QEMU")
    return int(found[1]), int(found[2])


def documented(entry: Entry, version: str) -> frozenset[Outcome]:
    """What builds of this version were seen to do, crashes included; empty where none had the feature."""
    known = [
        (release(measured), WORDS[str(entry.extra[key])])
        for key, measured in _columns().items()
        if key in entry.extra
    ]
    if not version:
        return frozenset(outcome for _, outcome in known)
    wanted = release(version)
    below = [pair for pair in known if pair[0] <= wanted]
    above = [pair for pair in known if pair[0] >= wanted]
    return frozenset(outcome for pair in (below[-1:], above[:1]) for _, outcome in pair)


@functools.cache
def _columns() -> Mapping[str, str]:
    """Column of the registry -> the version that it is of."""
    return load_registry(REGISTRY).columns


def held(seen: Seen, entry: Entry, version: str) -> None:
    """Raises `Unmet` where the outcome is not that of the registry's row."""
    allowed = documented(entry, version)
    if not allowed:
        raise NotShown(f"no build near {version} was seen with it")
    robust(seen, allowed)
    right = allowed - NEVER
    if right and seen.outcome not in right:
        # A postcopy that is paused has refused, and can go on.
        if version or seen.outcome not in {*REFUSED, Outcome.POSTCOPY_PAUSED}:
            raise Unmet(expected=_any_of(right), actual=described(seen))
        if not right & REFUSED:
            raise Unmet(expected=_any_of(right), actual=described(seen), level=Level.SHOULD)
    if seen.outcome in REFUSED:
        reasoned(seen)
        if version:
            worded(seen, entry.requirement)


def source_held(seen: Seen, entry: Entry, version: str) -> None:
    """The same of a source, whose guest goes on where its migration fails."""
    allowed = documented(entry, version)
    robust(seen, allowed)
    if seen.outcome not in allowed:
        raise Unmet(expected=_any_of(allowed), actual=described(seen))
    if seen.outcome is Outcome.FAIL:
        if seen.run_state != "running":
            raise Unmet(expected="its guest goes on", actual=f"run state {seen.run_state}: {described(seen)}")
        reasoned(seen)


def robust(seen: Seen, allowed: frozenset[Outcome] = frozenset()) -> None:
    """Raises `Unmet` for what no input may bring about."""
    if seen.outcome in NEVER:
        raise Unmet(expected=_any_of(allowed - NEVER), actual=described(seen))


def reasoned(seen: Seen) -> None:
    """Raises `Unmet` for a refusal without a word."""
    if not list(_said(seen)):
        raise Unmet(expected="a reason in words", actual=described(seen))


def worded(seen: Seen, requirement: str) -> None:
    """Raises `Unmet`, as a SHOULD, where none of the texts of a statement was said."""
    patterns = texts(requirement)
    said = seen.words
    if patterns and not any(re.search(pattern, said) for pattern in patterns):
        raise Unmet(expected=f"one of the texts of {requirement}", actual=described(seen), level=Level.SHOULD)


@functools.cache
def texts(requirement: str) -> Sequence[str]:
    """The messages that a statement quotes, as regular expressions."""
    statement = _statements()[requirement]
    # A quotation may be broken by the end of a line.
    flat = re.sub(r"\s+", " ", statement.text)
    return tuple(
        ".*".join(re.escape(part) for part in _VARIABLE.split(quoted))
        for quoted in re.findall(r"`([^`]+)`", flat)
        if len(quoted.split()) > 2  # a name or a value is no message
    )


@functools.cache
def _statements() -> Mapping[str, Requirement]:
    return read_requirements(spec_root())[0]


def described(seen: Seen) -> str:
    """The outcome in one line."""
    said = "; ".join(_said(seen)) or "nothing said"
    status = f" (signal {-seen.returncode})" if seen.returncode is not None and seen.returncode < 0 else ""
    return f"{seen.outcome}{status}: {said}"


def _said(seen: Seen) -> Iterator[str]:
    """Its own words, without warnings."""
    for line in seen.words.splitlines():
        text = re.sub(r"^qemu-system-\w+: ", "", line.strip())
        if text and not text.startswith("warning: "):
            yield text


def _any_of(outcomes: frozenset[Outcome]) -> str:
    return " or ".join(sorted(outcomes)) or "any outcome in which it goes on or ends by itself"
