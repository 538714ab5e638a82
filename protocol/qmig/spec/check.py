"""`qmig spec check`: everything about the specification that a machine can find wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qmig.errors import QmigError
from qmig.spec import registry as reg
from qmig.spec import trace
from qmig.spec import vectors as vec
from qmig.spec.ids import (
    WITHDRAWN,
    Problem,
    Requirement,
    read_citations,
    read_requirements,
    unknown_citations,
)
from qmig.spec.render import stale

#: All of `spec/vectors`; recordings are samples, the big ones stay where they were made.
VECTORS_LIMIT = 4 << 20
#: A blob that is larger is compressed.
PLAIN_BLOB_LIMIT = 4096

_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *$", re.MULTILINE)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)

Validator = Callable[[Any], Iterator[str]]


def check(root: Path, checkout: Path | None) -> list[Problem]:
    """All problems, sorted. Without a checkout, what only its other folders can show is not looked at.

    Raises `QmigError` when jsonschema is not installed."""
    requirements, problems = read_requirements(root)
    problems += trace.check(root)
    problems += _registries(root, requirements)
    problems += _vectors(root, requirements)
    if checkout is not None:
        problems += unknown_citations(requirements, read_citations(checkout))
        problems += stale(root, checkout)
        problems += _links(checkout)
    return sorted(set(problems))


def _validator(root: Path, name: str) -> Validator:
    if find_spec("jsonschema") is None:
        raise QmigError("the check needs jsonschema; install it with: pip install 'qmig[test]'")
    import jsonschema

    schema = json.loads((root / "schema" / name).read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)

    def errors(document: Any) -> Iterator[str]:
        for error in validator.iter_errors(document):
            yield f"{error.json_path}: {error.message[:200]}"

    return errors


def _registries(root: Path, requirements: dict[str, Requirement]) -> Iterator[Problem]:
    errors = _validator(root, "registry.json")
    for name in reg.registry_names(root):
        file = f"spec/registries/{name}.toml"
        wrong = list(errors(reg.read_toml(root, name)))
        if not wrong:
            wrong = list(_registry(root, reg.load_registry(root, name), requirements))
        yield from (Problem(file, 0, message) for message in wrong)


def _registry(root: Path, registry: reg.Registry, requirements: dict[str, Requirement]) -> Iterator[str]:
    values = [entry.value for entry in registry.entries]
    names = [entry.name for entry in registry.entries]
    yield from (f"value {value!r} occurs twice" for value in set(values) if values.count(value) > 1)
    yield from (f"name {name} occurs twice" for name in set(names) if names.count(name) > 1)
    yield from reg.differences(registry)
    for entry in registry.entries:
        yield from (
            f"{entry.name}: column {key!r} is not declared"
            for key in entry.extra
            if key not in registry.columns
        )
        if entry.until is not None and release(entry.until) < release(entry.since):
            yield f"{entry.name}: until {entry.until} is before since {entry.since}"
        if entry.requirement not in requirements or requirements[entry.requirement].side == WITHDRAWN:
            yield f"{entry.name}: {entry.requirement} is not in the specification"
        if entry.record is not None:
            reg.resolve(entry.record)
    shown = f"<!-- generated: registry {registry.name} -->"
    pages = [
        path for path in root.glob(f"*/{registry.chapter}.md") if shown in path.read_text(encoding="utf-8")
    ]
    if not pages:
        yield f"chapter {registry.chapter}.md does not show it; add {shown}<!-- /generated -->"


def release(text: str) -> tuple[int, ...]:
    """ "10.2" as (10, 2), which compares as versions do."""
    return tuple(map(int, text.split(".")))


def _vectors(root: Path, requirements: dict[str, Requirement]) -> Iterator[Problem]:
    errors = _validator(root, "vectors.json")
    folder = root / "vectors"
    used: set[Path] = set()
    for path in vec.vector_files(root):
        file = f"spec/{path.relative_to(root).as_posix()}"
        raw = json.loads(path.read_text(encoding="utf-8"))
        wrong = list(errors(raw))
        if not wrong:
            wrong = list(_vector_file(root, path, raw, requirements, used))
            used.update(vector.facts for vector in vec.load_file(root, path) if vector.facts)
        yield from (Problem(file, 0, message) for message in wrong)
    blobs = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".json", ".md"}}
    for orphan in sorted(blobs - used):
        yield Problem(f"spec/{orphan.relative_to(root).as_posix()}", 0, "no vector uses this file")
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if total > VECTORS_LIMIT:
        yield Problem("spec/vectors", 0, f"{total} bytes in all, the limit is {VECTORS_LIMIT}")


def _vector_file(
    root: Path, path: Path, raw: dict[str, Any], requirements: dict[str, Requirement], used: set[Path]
) -> Iterator[str]:
    notes = set(raw.get("notes", ()))
    seen: set[str] = set()
    flags: set[str] = set()
    for vector in vec.load_file(root, path):
        if vector.id in seen:
            yield f"{vector.id}: the name occurs twice"
        seen.add(vector.id)
        flags.update(vector.flags)
        yield from (
            f"{vector.id}: flag {flag!r} is not in notes" for flag in vector.flags if flag not in notes
        )
        if vector.expect.get("requirement", "") not in {"", *requirements}:
            yield f"{vector.id}: {vector.expect['requirement']} is not in the specification"
        for channel in vector.channels.values():
            if channel.path is not None:
                used.add(channel.path)
                if channel.path.suffix != ".xz" and (channel.size or 0) > PLAIN_BLOB_LIMIT:
                    yield f"{vector.id}: {channel.path.name} is large; compress it with xz"
            try:
                channel.read()
            except QmigError as problem:
                yield str(problem)
    yield from (f"note {flag!r} explains a flag that no vector has" for flag in sorted(notes - flags))


def _links(checkout: Path) -> Iterator[Problem]:
    """Relative links of all Markdown files to files, and to headings in them."""
    pages = [*checkout.glob("*.md"), *(checkout / "spec").rglob("*.md")]
    for page in sorted(pages):
        text = _CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), page.read_text(encoding="utf-8"))
        for link in _LINK.finditer(text):
            target, _, anchor = link["target"].partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            goal = (page.parent / target).resolve() if target else page
            line = text.count("\n", 0, link.start()) + 1
            name = page.relative_to(checkout).as_posix()
            if not goal.exists():
                yield Problem(name, line, f"link to {link['target']}, which does not exist")
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
                yield Problem(name, line, f"link to {link['target']}: no such heading")


def anchors(text: str) -> set[str]:
    """The anchors that a Markdown page's headings get."""
    return {
        re.sub(r"[^\w\- ]", "", found["title"].lower()).replace(" ", "-") for found in _HEADING.finditer(text)
    }
