"""The report as one page that works from a file: no network, no server, nothing beside it.

Rule 1: what comes from a build or from the wire is hostile. It is in the page as JSON without any `<`, the
page's scripts put it into text nodes only, and a policy lets no other script or style run.
Rule 2: many rows share texts, and transcripts share lines: each line is in the page once.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qmig.spec.ids import WITHDRAWN
from qmig_conformance.case import Verdict
from qmig_conformance.report.model import SEVERITY

FOLDER: Final = Path(__file__).parent / "page"
SCRIPTS: Final = ("data", "dom", "diff", "matrix", "detail", "views", "main")
#: of a row, as numbers of texts
TEXTS: Final = (
    *("variant", "expected", "actual", "outcome", "sent", "received", "stderr", "detail", "repeat"),
    "artefacts",
)
#: of a row, as they are
OTHERS: Final = ("case", "target", "verdict", "level", "seconds", "waiver", "files")
#: shown beside the list of keys
MEANINGS: Final = {
    Verdict.ERROR: "a defect of the suite or of the machine, not of the build",
    Verdict.FAIL: "a MUST is not met",
    Verdict.UNEXPECTED_PASS: "passes, and an expectation says that it fails",
    Verdict.NON_STRICT: "a SHOULD is not met",
    Verdict.WAIVED: "fails as an expectation says that it does",
    Verdict.PASS: "the requirement is met",
    Verdict.UNSUPPORTED: "the build itself says that it has not got what the case needs",
    Verdict.INFORMATIONAL: "this run did not show it",
}
#: files of an artefact folder that are listed
FILES: Final = 40


def write_html(document: Mapping[str, Any], path: Path) -> None:
    """Writes the page for a report (`spec/schema/conformance-report.json`), to lie beside its artefacts."""
    path.write_text(page(page_data(document, path.parent)), encoding="utf-8")


def page(data: Mapping[str, Any]) -> str:
    """The page around what `page_data` made."""
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    sources = [(FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    script = "\n".join(['(() => {\n"use strict";', *sources, "})();"])
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    parts = {
        "policy": policy,
        "title": html.escape(f"qmig conformance: {', '.join(target['short'] for target in data['targets'])}"),
        "style": style,
        "rows": str(len(data["rows"])),
        "data": embedded(data),
        "script": script,
    }
    pieces = (FOLDER / "page.html").read_text(encoding="utf-8").split("{{")
    found = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        found += [parts[name], rest]
    return "".join(found)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that ends no script element, whatever strings are in it: `</script>` and `<!--` have no `<`."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class Texts:
    """Each text once, as the numbers of its lines; each line once."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.texts: dict[str, int] = {}
        self.made: list[list[int]] = []

    def add(self, text: str) -> int:
        number = self.texts.setdefault(text, len(self.made))
        if number == len(self.made):
            self.made.append([self.lines.setdefault(line, len(self.lines)) for line in text.split("\n")])
        return number


def page_data(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the page's scripts read. `folder` is that of the report: artefacts that lie there are listed."""
    texts = Texts()
    shorts = _shorts([_told(target) for target in document["targets"]])
    targets = [
        {"index": number, "short": short, "key": short if target["version"] else target["name"], **target}
        for number, (target, short) in enumerate(zip(document["targets"], shorts, strict=True))
    ]
    by_name = {target["name"]: target["index"] for target in targets}
    cases = {declared["id"]: _case(declared, document["requirements"]) for declared in document["cases"]}
    for row in document["rows"]:
        cases.setdefault(row["case"], _undeclared(row))
    numbers = {id_: number for number, id_ in enumerate(cases)}
    rows = []
    for row in document["rows"]:
        values = {**row, "case": numbers[row["case"]], "target": by_name.get(row["target"])}
        values["files"] = _files(folder, row["artefacts"])
        if values["target"] is not None:
            rows.append([texts.add(row[name]) for name in TEXTS] + [values[name] for name in OTHERS])
    return {
        "run": {name: document[name] for name in ("started", "seconds", "interrupted", "host")}
        | {"command": " ".join(document["command"])},
        "verdicts": [str(verdict) for verdict in SEVERITY],
        "meanings": MEANINGS,
        "targets": targets,
        "requirements": [
            {"id": id_, **statement}
            for id_, statement in document["requirements"].items()
            if statement["side"] != WITHDRAWN
        ],
        "cases": list(cases.values()),
        "columns": [*TEXTS, *OTHERS],
        "textColumns": list(TEXTS),
        "rows": rows,
        "lines": list(texts.lines),
        "texts": texts.made,
        "expectations": document["expectations"],
    }


def _told(target: Mapping[str, Any]) -> str:
    """Its version, or those of a pair."""
    if target.get("peer_version"):
        return f"{target['version']} → {target['peer_version']}"
    return str(target["version"] or target["name"])


def _shorts(names: list[str]) -> list[str]:
    """`10.0` for `10.0.13`, where that tells all from each other."""
    shorts = [re.sub(r"(\d+\.\d+)\.\d+", r"\1", name) for name in names]
    return shorts if len(set(shorts)) == len(shorts) else names


def _case(declared: Mapping[str, Any], statements: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "title", "level", "since", "until", "profile", "requirement")
    return {name: declared[name] for name in names} | {
        "role": declared["roles"],
        "requirements": [declared["requirement"], *declared["violates"]],
        "chapter": _chapter(declared, statements),
    }


def _undeclared(row: Mapping[str, Any]) -> dict[str, Any]:
    """What broke before it was known what case it is."""
    return {
        **dict.fromkeys(("title", "since", "until", "profile", "requirement", "chapter"), ""),
        "id": row["case"],
        "level": row["level"],
        "role": row["role"],
        "requirements": [],
    }


def _chapter(declared: Mapping[str, Any], statements: Mapping[str, Any]) -> str:
    """What the case's id names (`legacy.destination.CHAPTER.slug`), else where its statement stands."""
    parts = declared["id"].split(".")
    if len(parts) > 3:
        return str(parts[2])
    statement = statements.get(declared["requirement"])
    return re.sub(r"^\d+-", "", Path(statement["chapter"]).stem) if statement else ""


def _files(folder: Path, name: str) -> list[tuple[str, int]]:
    """Names and sizes in bytes of what lies in an artefact folder, if it lies below the report's."""
    found = folder / name
    if not name or not found.is_dir() or not found.resolve().is_relative_to(folder.resolve()):
        return []
    files = sorted(path for path in found.iterdir() if path.is_file())
    return [(path.name, path.stat().st_size) for path in files[:FILES]]
