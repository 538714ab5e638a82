"""Requirement statements and the places that cite them.

A statement is a Markdown paragraph that begins ``**[LEG-RAM-nnn]** (source; all; invariant 38) Text``:
its id, then side, versions and evidence, then one normative sentence or a few. In chapters of protocol v2
(``**[HS-PRE-nnn]** (source; MUST; R-01) Text``) a level stands in place of the versions, and the evidence
names what the statement answers: requirements (R-), statements of the origin thread (S-), amendments (A-),
decisions (P-).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: What a citation looks like anywhere: area, chapter, number.
ID = re.compile(r"\b(?:LEG|HS)-[A-Z]{3}-[0-9]{3}\b")

SIDES = ("source", "destination", "both", "reader")
#: How strong a statement of v2 is (RFC 2119, RFC 8174). A MUST NOT is a MUST.
LEVELS = ("MUST", "SHOULD", "MAY")
#: Ids of v2 begin so; they live in the folder `v2`, all others elsewhere.
V2 = "HS-"
#: In place of the side: the id is kept, and never given to anything else.
WITHDRAWN = "withdrawn"

_START = re.compile(r"^\*\*\[(?P<id>[^\]\n]*)\]\*\*[ ]*", re.MULTILINE)
_HEAD = re.compile(r"\((?P<head>[^()]*(?:\([^()]*\)[^()]*)*)\)[ \n]+(?P<text>\S.*)", re.DOTALL)
_BOLD = re.compile(r"\*\*\[")
_FENCE = re.compile(r"^```.*?^```[^\n]*$", re.MULTILINE | re.DOTALL)

_RELEASE = r"[0-9]{1,2}\.[0-9]{1,2}"
#: "all", "5.2", "9.0+", "≤8.2", "5.2-8.2", any of them for machine types, several with commas.
_RANGE = rf"(?:all|(?:machine )?(?:{_RELEASE}\+?|≤{_RELEASE}|{_RELEASE}[-–]{_RELEASE}))"
_VERSIONS = re.compile(rf"{_RANGE}(?:, {_RANGE})*")

#: Folders whose text may cite ids, relative to the checkout; `kind` is a column of CONFORMANCE.md.
_CITING = (
    ("code", "protocol/qmig"),
    ("code", "conformance/qmig_conformance"),
    ("code", "fuzz/qmig_fuzz"),
    ("cases", "conformance/qmig_conformance/cases"),
    ("cases", "conformance/qmig_conformance/hostile"),
    ("tests", "protocol/tests"),
    ("tests", "conformance/tests"),
    ("tests", "fuzz/tests"),
    ("vectors", "spec/vectors"),
    ("registries", "spec/registries"),
)
_CITING_SUFFIXES = frozenset({".py", ".toml", ".json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    id: str
    #: one of SIDES, or WITHDRAWN
    side: str
    #: as written: "all", "9.0+", "machine ≤8.0" …; "all" in v2
    versions: str
    evidence: str
    text: str
    #: chapter file, relative to the spec's root, and the line of the statement
    file: str
    line: int
    #: one of LEVELS in v2, else empty
    level: str = ""

    @property
    def chapter(self) -> str:
        return self.id.rpartition("-")[0]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with the specification. `file` is relative to the folder above `spec/`."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


def chapters(root: Path) -> list[Path]:
    """The chapter files, in reading order."""
    return sorted(path for folder in ("legacy", "v2") for path in (root / folder).glob("**/*.md"))


def read_requirements(root: Path) -> tuple[dict[str, Requirement], list[Problem]]:
    """All statements by id, in reading order, and what is malformed about them."""
    found: dict[str, Requirement] = {}
    problems: list[Problem] = []
    home: dict[str, str] = {}
    for path in chapters(root):
        name = path.relative_to(root).as_posix()
        for item in statements(path.read_text(encoding="utf-8"), name):
            if isinstance(item, Problem):
                problems.append(item)
                continue
            first = found.get(item.id)
            if first is not None:
                problems.append(
                    Problem(f"spec/{name}", item.line, f"{item.id} is also at {first.file}:{first.line}")
                )
                continue
            found[item.id] = item
            if home.setdefault(item.chapter, name) != name:
                problems.append(
                    Problem(f"spec/{name}", item.line, f"{item.chapter} has its home in {home[item.chapter]}")
                )
    return found, problems


def statements(text: str, name: str) -> Iterator[Requirement | Problem]:
    """The statements of one chapter; `name` is its path under the spec's root."""
    # Blank out fenced blocks, keeping offsets, so that an example is no statement.
    prose = _FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    starts = {found.start(): found for found in _START.finditer(prose)}
    for bold in _BOLD.finditer(prose):
        line = text.count("\n", 0, bold.start()) + 1
        found = starts.get(bold.start())
        previous = prose[: bold.start()].rpartition("\n")[0].rpartition("\n")[2]
        if found is None or previous.strip():
            yield Problem(f"spec/{name}", line, "an id opens a paragraph of its own, at the line's start")
            continue
        paragraph = prose[found.end() :].partition("\n\n")[0]
        yield _statement(found["id"], paragraph, name, line)


def _statement(identifier: str, paragraph: str, name: str, line: int) -> Requirement | Problem:
    head = _HEAD.match(paragraph)

    def bad(message: str) -> Problem:
        return Problem(f"spec/{name}", line, f"{identifier}: {message}")

    if not ID.fullmatch(identifier):
        return bad("not an id; write AREA-CHP-nnn, such as LEG-RAM followed by three digits")
    if identifier.startswith(V2) != name.startswith("v2/"):
        return bad(f"ids of {V2[:-1]} belong to the chapters of v2, and no others do")
    if head is None:
        return bad("expected (side; versions; evidence) and the text")
    level = ""
    parts = [" ".join(part.split()) for part in head["head"].split(";", 2)]
    text = " ".join(head["text"].split())
    if parts == [WITHDRAWN]:
        parts = [WITHDRAWN, "all", ""]
    elif len(parts) != 3 or not all(parts):
        return bad("expected (side; versions; evidence) and the text")
    side, versions, evidence = parts
    if side not in (*SIDES, WITHDRAWN):
        return bad(f"side {side!r} is none of {', '.join(SIDES)}")
    if identifier.startswith(V2) and side != WITHDRAWN:
        level, versions = versions, "all"
        if level not in LEVELS:
            return bad(f"level {level!r} is none of {', '.join(LEVELS)}")
    elif not _VERSIONS.fullmatch(versions):
        return bad(f"versions {versions!r}: write all, 9.0, 9.0+, ≤8.2, 5.2-8.2, machine ≤8.0, with commas")
    return Requirement(
        id=identifier,
        side=side,
        versions=versions,
        evidence=evidence,
        text=text,
        file=name,
        line=line,
        level=level,
    )


#: id -> kind ("code", "tests", …) -> files
Citations = dict[str, dict[str, list[str]]]


def read_citations(checkout: Path) -> Citations:
    """Which files of the checkout cite which ids. A file under two folders counts for the deeper one."""
    kinds: dict[str, str] = {}
    for kind, folder in _CITING:
        for path in _texts(checkout / folder):
            kinds[path.relative_to(checkout).as_posix()] = kind
    cited: Citations = defaultdict(lambda: defaultdict(list))
    for name in sorted(kinds):
        for identifier in sorted(set(ID.findall((checkout / name).read_text(encoding="utf-8")))):
            cited[identifier][kinds[name]].append(name)
    return cited


def _texts(folder: Path) -> Iterable[Path]:
    return (p for p in folder.rglob("*") if p.suffix in _CITING_SUFFIXES and "__pycache__" not in p.parts)


def unknown_citations(requirements: dict[str, Requirement], cited: Citations) -> list[Problem]:
    """Citations of ids that the specification does not have, or has withdrawn."""
    problems = []
    for identifier, places in cited.items():
        known = requirements.get(identifier)
        if known is not None and known.side != WITHDRAWN:
            continue
        why = "is withdrawn" if known else "is not in the specification"
        problems += [
            Problem(file, 0, f"cites {identifier}, which {why}")
            for files in places.values()
            for file in files
        ]
    return problems
