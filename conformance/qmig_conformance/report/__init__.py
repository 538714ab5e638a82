"""What a run leaves behind: `report.json` and what is made of it."""

from __future__ import annotations

from pathlib import Path

from qmig_conformance.report.formats import write_junit, write_markdown, write_tap
from qmig_conformance.report.html import write_html
from qmig_conformance.report.model import Report, to_document, write

__all__ = ["write_all"]


def write_all(report: Report, folder: Path) -> list[Path]:
    """Writes all formats into a folder; their paths, the one to look at last."""
    folder.mkdir(parents=True, exist_ok=True)
    document = to_document(report)
    write(document, folder / "report.json")
    write_junit(report, folder / "junit.xml")
    write_tap(report, folder / "report.tap")
    write_markdown(report, folder / "report.md")
    write_html(document, folder / "report.html")
    names = ("junit.xml", "report.tap", "report.md", "report.json", "report.html")
    return [folder / name for name in names]
