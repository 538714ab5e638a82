"""Generated parts of the specification: tables and byte diagrams inside chapters, and CONFORMANCE.md.

A chapter marks where a part goes:

    <!-- generated: registry NAME -->…<!-- /generated -->
    <!-- generated: layout MODULE:RECORD -->…<!-- /generated -->
    <!-- generated: cddl MODULE:FUNCTION -->…<!-- /generated -->     lines of the function
    <!-- generated: states MODULE:TABLE -->…<!-- /generated -->     diagram and rows of a state table
    <!-- generated: trace LETTER -->…<!-- /generated -->     what v2's statements answer (`qmig.spec.trace`)

What stands between the marks is rewritten by `qmig spec render`; `qmig spec check` fails when it is stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qmig.errors import QmigError
from qmig.spec import registry as reg
from qmig.spec import trace
from qmig.spec.ids import Citations, Problem, Requirement, chapters, read_citations, read_requirements

_BLOCK = re.compile(
    r"(?P<open><!-- generated: (?P<kind>\w+) (?P<what>[^ >]+) -->).*?(?P<close><!-- /generated -->)",
    re.DOTALL,
)
_OPEN = "<!-- generated:"

#: Bytes in one line of a diagram, and characters of one byte.
_ROW = 8
_CELL = 8


def outputs(root: Path, checkout: Path) -> Iterator[tuple[Path, str, str]]:
    """Every file with generated parts: its path, its text now, its text as it ought to be.

    Raises `QmigError` for a mark that names nothing."""
    for path in chapters(root):
        old = path.read_text(encoding="utf-8")
        yield path, old, render_page(root, old, path.name)
    if (root / "v2").is_dir():
        path = root / "v2" / "handshake.cddl"
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        yield path, old, reg.resolve("qmig.handshake.cddl:document")()
    path = root / "CONFORMANCE.md"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    yield path, old, conformance(root, checkout)


def stale(root: Path, checkout: Path) -> list[Problem]:
    return [
        Problem(path.relative_to(checkout).as_posix(), 0, "generated parts are stale; run: qmig spec render")
        for path, old, new in outputs(root, checkout)
        if old != new
    ]


def render(root: Path, checkout: Path) -> list[Path]:
    """Rewrites what is stale and returns those files."""
    changed = [(path, new) for path, old, new in outputs(root, checkout) if old != new]
    for path, new in changed:
        path.write_text(new, encoding="utf-8")
    return [path for path, _ in changed]


def render_page(root: Path, text: str, name: str) -> str:
    """The page with its generated blocks made anew."""
    if text.count(_OPEN) != len(_BLOCK.findall(text)):
        raise QmigError(f"{name}: a 'generated' mark is malformed or has no <!-- /generated -->")

    def block(found: re.Match[str]) -> str:
        match found["kind"]:
            case "registry":
                lines = registry_table(reg.load_registry(root, found["what"]))
            case "layout":
                lines = layout(found["what"])
            case "cddl":
                lines = reg.resolve(found["what"])()
            case "states":
                lines = states(found["what"])
            case "trace":
                lines = trace.table_of(root, found["what"])
            case kind:
                raise QmigError(f"{name}: unknown generated block {kind!r}")
        return "\n".join([found["open"], *lines, found["close"]])

    return _BLOCK.sub(block, text)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [heading, ["---"] * len(heading), *cells]]


#: Of rows of protocol v2, which has had one revision.
_FIRST = "2.0"


def registry_table(registry: reg.Registry) -> list[str]:
    notes = any(entry.note for entry in registry.entries)
    heading = ["value", "name", *registry.columns.values(), "since", "until", "statement", *["note"][:notes]]
    rows = [
        [
            f"`{registry.value_text(entry.value)}`",
            f"`{entry.name}`",
            *(str(entry.extra.get(key, "")) for key in registry.columns),
            "≤5.2" if entry.since == "5.2" else entry.since,
            entry.until or "",
            entry.requirement,
            *[entry.note][:notes],
        ]
        for entry in registry.entries
    ]
    if any(entry.since != _FIRST for entry in registry.entries):
        return table(heading, rows)
    # In v2 words are their own names, and the revision says nothing yet.
    hidden = {"since", "until", *(["name"] if isinstance(registry.entries[0].value, str) else [])}
    shown = [at for at, title in enumerate(heading) if title not in hidden]
    return table([heading[at] for at in shown], [[row[at] for at in shown] for row in rows])


def layout(target: str) -> list[str]:
    """Byte diagram and table of a record."""
    record = reg.resolve(target)
    if not hasattr(record, "fields_layout"):
        raise QmigError(f"{target} is no record")
    rows = record.fields_layout()
    title = (record.__doc__ or "").strip().partition("\n")[0]
    heading = ["offset", "size", "field", "type", "value", "present", "meaning"]
    show = [True, True, True, True, any(r.value is not None for r in rows), any(r.when for r in rows), True]
    body = [
        [
            "…" if row.offset is None else str(row.offset),
            row.size,
            f"`{row.name}`",
            f"`{row.type}`",
            "" if row.value is None else value_text(row.value, row.size),
            f"with `{row.when}`" if row.when else "",
            row.doc,
        ]
        for row in rows
    ]
    shown = [[cell for cell, on in zip(line, show, strict=True) if on] for line in [heading, *body]]
    head = f"`{record.__name__}` ({record.requirement}). {title}"
    return [head, "", "```text", *diagram(rows), "```", "", *table(shown[0], shown[1:])]


def states(target: str) -> list[str]:
    """Diagram of a state table, and its rows."""
    rows = reg.resolve(target).rows
    drawn: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.next is not row.state:
            label = row.event.value.replace(":", " -")  # a colon ends the label
            drawn.setdefault((row.state.name, row.next.name), []).append(label)
    arrows = [f"    {a} --> {b}: {' / '.join(dict.fromkeys(events))}" for (a, b), events in drawn.items()]
    heading = ["state", "event", "if", "next", "actions", "outcome"]
    lines = [
        [
            row.state.value.upper(),
            row.event.value,
            ", ".join(f"`{fact}`" for fact in row.when),
            row.next.value.upper(),
            "; ".join(action.value for action in row.actions if action.value != "note"),
            row.outcome and f"`{row.outcome}`",
        ]
        for row in rows
    ]
    return ["```mermaid", "stateDiagram-v2", *arrows, "```", "", *table(heading, lines)]


def value_text(value: Any, size: str) -> str:
    if isinstance(value, int) and size.isdigit():
        return f"`{value:#0{2 * int(size) + 2}x}`"
    return f"`{value!r}`"


def diagram(rows: Sequence[Any]) -> list[str]:
    """Fields of fixed size as boxes, eight bytes to a line; a field of open size has a line of its own."""
    lines: list[str] = []
    boxes: list[tuple[str, int]] = []
    for row in rows:
        if row.size.isdigit() and not row.when and int(row.size) <= _ROW * 2:
            boxes += _split(row, sum(width for _, width in boxes))
            continue
        lines += _box_lines(boxes)
        boxes = []
        size = f"{row.size} bytes" + (f", with {row.when}" if row.when else "")
        text = f" {row.name} ({size}) "
        lines += [_rule([_ROW]), f"~{text:^{_ROW * _CELL - 1}}~"]
    lines += _box_lines(boxes)
    return [*lines, _last_rule(lines, boxes)]


def _split(row: Any, at: int) -> Iterator[tuple[str, int]]:
    """The field's boxes: more than one when it runs over the end of a line."""
    left, name = int(row.size), row.name
    if row.value is not None and len(name) > left * _CELL - 1:
        name = value_text(row.value, row.size).strip("`")
    while left:
        width = min(left, _ROW - at % _ROW)
        yield name, width
        at, left, name = at + width, left - width, f"{row.name}…"


def _box_lines(boxes: Sequence[tuple[str, int]]) -> list[str]:
    lines: list[str] = []
    line: list[tuple[str, int]] = []
    for box in boxes:
        line.append(box)
        if sum(width for _, width in line) == _ROW:
            lines += _one_line(line)
            line = []
    return lines + (_one_line(line) if line else [])


def _one_line(line: Sequence[tuple[str, int]]) -> list[str]:
    cells = [_fit(name, width * _CELL - 1) for name, width in line]
    return [_rule([width for _, width in line]), f"|{'|'.join(cells)}|"]


def _fit(name: str, width: int) -> str:
    text = name if len(name) <= width else f"{name[: width - 1]}…"
    return f"{text:^{width}}"


def _rule(widths: Sequence[int]) -> str:
    return "+" + "+".join("-" * (width * _CELL - 1) for width in widths) + "+"


def _last_rule(lines: Sequence[str], boxes: Sequence[tuple[str, int]]) -> str:
    """The rule that closes the diagram, as long as the last line."""
    return "+" + "-" * (len(lines[-1]) - 2) + "+" if lines else ""


def conformance(root: Path, checkout: Path) -> str:
    """CONFORMANCE.md: every statement, and who checks it."""
    requirements, _ = read_requirements(root)
    cited = read_citations(checkout)
    kinds = ("code", "tests", "vectors", "cases")
    lines = [
        "# Conformance: statements and where they are checked",
        "",
        "Generated by `qmig spec render` from the chapters and from the places that cite an id; do not edit.",
        "Rows name the files that cite a statement; `qmig spec show ID` gives their paths.",
        "",
        *table(
            ["chapter", "statements", *(f"in {kind}" for kind in kinds)],
            [
                [
                    chapter,
                    str(len(own)),
                    *(str(sum(1 for r in own if cited.get(r.id, {}).get(kind))) for kind in kinds),
                ]
                for chapter, own in by_chapter(requirements).items()
            ],
        ),
    ]
    for chapter, own in by_chapter(requirements).items():
        rows = [
            [
                f"[{r.id}]({r.file})",
                r.side,
                r.level or r.versions,
                *(_names(cited, r.id, kind) for kind in kinds),
            ]
            for r in own
        ]
        lines += [
            "",
            f"## {chapter}",
            "",
            *table(["id", "side", "level" if own[0].level else "versions", *kinds], rows),
        ]
    return "\n".join(lines) + "\n"


def _names(cited: Citations, identifier: str, kind: str) -> str:
    """Base names of the citing files; those of tests and cases are unique in the repository."""
    return ", ".join(Path(file).name for file in cited.get(identifier, {}).get(kind, ()))


def by_chapter(requirements: dict[str, Requirement]) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for requirement in sorted(requirements.values(), key=lambda r: (r.file, r.id)):
        found.setdefault(requirement.chapter, []).append(requirement)
    return found
