"""What the statements of v2 answer: requirements (R), statements of the origin thread (S), amendments (A).

A statement names them in its evidence (``R-07, S-61``). `spec/v2/trace.toml` says of each number what it
asks, and what became of it where no statement can say so. Every number has one or the other.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from qmig.spec.ids import V2, WITHDRAWN, Problem, read_requirements

#: letter -> how many there are
NUMBERS = {"R": 130, "S": 105, "A": 59}
FILE = "v2/trace.toml"

_CITED = re.compile(r"\b([RSA])-([0-9]+)\b")


def answers(root: Path) -> dict[str, list[str]]:
    """ "R-7" -> ids of the statements that answer it, in reading order, with their chapter files."""
    found: dict[str, list[str]] = {}
    for requirement in read_requirements(root)[0].values():
        if requirement.id.startswith(V2) and requirement.side != WITHDRAWN:
            for letter, number in _CITED.findall(requirement.evidence):
                found.setdefault(f"{letter}-{int(number)}", []).append(requirement.id)
    return found


def asked(root: Path) -> dict[str, dict[str, str]]:
    """Letter -> number as text -> what is asked, and behind `=>` what became of it beyond the statements."""
    return tomllib.loads((root / FILE).read_text(encoding="utf-8"))


def check(root: Path) -> Iterator[Problem]:
    """Numbers that nobody answers, and those that do not exist."""
    if not (root / FILE).exists():
        return
    answered, table = answers(root), asked(root)
    known = {f"{letter}-{at}" for letter, most in NUMBERS.items() for at in range(1, most + 1)}
    for place in sorted(set(answered) - known):
        yield Problem("spec/v2", 0, f"{answered[place][0]} answers {place}, which does not exist")
    for letter, most in NUMBERS.items():
        rows = table.get(letter, {})
        for at in range(1, most + 1):
            text = rows.get(str(at))
            if text is None:
                yield Problem(f"spec/{FILE}", 0, f"{letter}-{at} is missing")
            elif "=>" not in text and f"{letter}-{at}" not in answered:
                yield Problem(f"spec/{FILE}", 0, f"{letter}-{at}: neither a statement nor a reason")
        for extra in sorted(set(rows) - {str(at) for at in range(1, most + 1)}):
            yield Problem(f"spec/{FILE}", 0, f"{letter}-{extra} does not exist")


def table_of(root: Path, letter: str) -> list[str]:
    """The page's table for one letter."""
    from qmig.spec.render import table

    answered = answers(root)
    files = {requirement.id: requirement.file for requirement in read_requirements(root)[0].values()}
    lines = []
    for at, text in sorted(asked(root)[letter].items(), key=lambda item: int(item[0])):
        what, _, became = (part.strip() for part in text.partition("=>"))
        found = answered.get(f"{letter}-{at}", ())
        ids = ", ".join(f"[{identifier}]({Path(files[identifier]).name})" for identifier in found)
        lines.append([f"{letter}-{int(at):02}", what, became, ids])
    return table(["", "asks", "became", "statements"], lines)
