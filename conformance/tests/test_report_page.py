"""The report's page, as a file: what is in it, and what is not. `test_report_browser` opens it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qmig_conformance.report.html import FOLDER, SCRIPTS, embedded, page, page_data, write_html
from qmig_conformance.report.sample import hostile, large


def test_hostile_text_ends_no_script(tmp_path: Path) -> None:
    data = page_data(hostile(), tmp_path)
    assert not re.search("[<>&]", embedded(data))
    assert json.loads(embedded(data)) == json.loads(json.dumps(data))
    text = page(data)
    assert text.count("</script>") == 2
    assert "<img" not in text
    assert "<script>window.hacked" not in text
    text.encode("utf-8")


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    text = page(page_data(hostile(), tmp_path))
    frame = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert re.findall(r"""(?:src|href)=["'](?!data:,)""", frame) == []
    ways_out = r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|\beval\(|https?://"
    assert re.findall(ways_out, frame) == []
    assert "default-src 'none'" in frame


def test_every_script_is_in_the_page() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.js")) == sorted(SCRIPTS)
    assert [path.name for path in FOLDER.iterdir() if len(path.read_text().splitlines()) > 450] == []


def test_texts_and_lines_are_there_once(tmp_path: Path) -> None:
    data = page_data(hostile(), tmp_path)
    assert len(set(data["lines"])) == len(data["lines"])
    assert len({tuple(text) for text in data["texts"]}) == len(data["texts"])


def test_a_large_report_stays_small(tmp_path: Path) -> None:
    write_html(large(), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 6 << 20


def test_artefacts_are_listed_where_they_lie_beside_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "new/length"
    folder.mkdir(parents=True)
    (folder / "main.sent.bin").write_bytes(b"x" * 300)
    data = page_data(hostile(), tmp_path)
    at = data["columns"].index("files")
    assert [row[at] for row in data["rows"] if row[at]] == [[("main.sent.bin", 300)]]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_have_contrast(theme: str) -> None:
    """4.5 to 1 (WCAG AA) against the ground, and against the tint that bad cells have."""
    css = (FOLDER / "page.css").read_text()
    start = css.index(":root {" if theme == "light" else ':root[data-theme="dark"] {')
    colours = dict(re.findall(r"--([a-z]+): #([0-9a-f]{6})", css[start : css.index("}", start)]))
    tint = int(re.findall(r"--tint: (\d+)%", css[start:])[0]) / 100
    ground = rgb(colours["ground"])
    for name in ("pass", "fail", "error", "warn", "calm", "note", "dim", "text", "link"):
        ink = rgb(colours[name])
        mixed = tuple(tint * one + (1 - tint) * other for one, other in zip(ink, ground, strict=True))
        raised = rgb(colours["raised"])
        for behind in (ground, raised, *([mixed] if name not in {"text", "link", "dim"} else [])):
            light, dark = sorted((luminance(ink), luminance(behind)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, theme)


def rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[at : at + 2], 16) / 255 for at in (0, 2, 4))


def luminance(colour: tuple[float, ...]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
