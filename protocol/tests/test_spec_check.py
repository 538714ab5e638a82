"""`qmig spec check` and `render`: ours is clean, and each kind of damage to a small one is found."""

import hashlib
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qmig.cli import main
from qmig.errors import QmigError
from qmig.spec import check as check_module
from qmig.spec import trace
from qmig.spec.check import check
from qmig.spec.render import render, render_page
from qmig.spec.vectors import load_file
from qmig.testing import checkout, load_registry, load_vectors, spec_root

A = "LEG-" + "TST-001"
REGISTRY = f"""
title = "Things"
chapter = "10-test"
hex_digits = 2
columns = {{ extra = "further" }}

[[entry]]
value = 7
name = "SEVEN"
since = "5.2"
until = "8.2"
requirement = "{A}"
note = "a | b"
extra = 3

[[entry]]
value = 8
name = "EIGHT"
since = "9.0"
requirement = "{A}"
sample = "7e 00 00 00 01"
record = "qmig.legacy.sections:SectionFooter"
"""
BLOB = b"QEVM" * 2000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with one chapter, one registry, one file of vectors; rendered, and clean."""
    spec = tmp_path / "spec"
    for folder in ("spec/legacy", "spec/registries", "spec/vectors/legacy", "protocol/qmig"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copytree(spec_root() / "schema", spec / "schema")
    (spec / "legacy/10-test.md").write_text(
        f"# Test\n\n**[{A}]** (both; all; x) Text; see [this](#test).\n\n"
        "<!-- generated: registry things --><!-- /generated -->\n\n"
        "<!-- generated: layout qmig.legacy.sections:SectionStart --><!-- /generated -->\n",
        encoding="utf-8",
    )
    (spec / "registries/things.toml").write_text(REGISTRY)
    (tmp_path / "README.md").write_text(
        "[spec](spec/legacy/10-test.md#test) [web](https://example.org/none)\n"
    )
    blob = spec / "vectors/legacy/some-main.xz"
    blob.write_bytes(lzma.compress(BLOB))
    write_vectors(tmp_path, lambda file: None)
    render(spec, tmp_path)
    assert check(spec, tmp_path) == []
    return tmp_path


def write_vectors(tree: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file: dict[str, Any] = {
        "schema": "qmig/vectors/1",
        "title": "Some bytes",
        "source": {"kind": "hand-made", "basis": "10.0"},
        "notes": {"open": "versions differ"},
        "vectors": [
            {
                "name": "one", "comment": "a footer", "reader": "record", "result": "valid",
                "channels": {"main": {"hex": "7e 00000001"}}, "expect": {"decoding": {"section_id": 1}},
            },
            {
                "name": "two", "comment": "a blob", "reader": "stream", "result": "invalid",
                "flags": ["open"],
                "channels": {
                    "main": {
                        "file": "some-main.xz", "size": len(BLOB),
                        "sha256": hashlib.sha256(BLOB).hexdigest(),
                    }
                },
                "expect": {"error": "TruncatedStream", "offset": 4, "requirement": A, "record": "header"},
            },
        ],
    }  # fmt: skip
    file["vectors"][0]["channels"]["main"]["hex"] = "7e 00 00 00 01"
    change(file)
    (tree / "spec/vectors/legacy/some.json").write_text(json.dumps(file))


def found(tree: Path) -> list[str]:
    return [str(problem) for problem in check(tree / "spec", tree)]


def test_the_specification_has_no_problems() -> None:
    assert [str(problem) for problem in check(spec_root(), checkout())] == []


def edit(tree: Path, name: str, old: str, new: str) -> None:
    path = tree / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


CHAPTER, THINGS = "spec/legacy/10-test.md", "spec/registries/things.toml"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (THINGS, "value = 8", "value = 7", "value 7 occurs twice"),
        (THINGS, '"EIGHT"', '"SEVEN"', "name SEVEN occurs twice"),
        (THINGS, "value = 8", "value = -8", "$.entry[1].value"),
        (THINGS, "extra = 3", "other = 3", "SEVEN: column 'other' is not declared"),
        (THINGS, 'until = "8.2"', 'until = "4.2"', "SEVEN: until 4.2 is before since 5.2"),
        (THINGS, 'since = "9.0"', 'since = "9"', "$.entry[1].since"),
        (THINGS, A, "LEG-" + "TST-002", "is not in the specification"),
        (THINGS, "hex_digits = 2", 'enum = "qmig.legacy.sections:SectionType"', "SEVEN = 7 is not in"),
        (THINGS, '"10-test"', '"20-test"', "chapter 20-test.md does not show it"),
        (THINGS, 'record = "qmig.legacy.sections:SectionFooter"', "", "'record' is a dependency of 'sample'"),
        (CHAPTER, f"**[{A}]** (both", f"**[{A}]** (none", "side 'none'"),
        (CHAPTER, "`SEVEN`", "`SIX`", "generated parts are stale"),
        (CHAPTER, "(#test)", "(#none)", "link to #none: no such heading"),
        (CHAPTER, "(#test)", "(none.md)", "link to none.md, which does not exist"),
        ("README.md", "10-test.md#test", "10-test.md#none", "no such heading"),
        ("spec/CONFORMANCE.md", "both", "source", "generated parts are stale"),
    ],
)
def test_damage_is_found(tree: Path, name: str, old: str, new: str, message: str) -> None:
    edit(tree, name, old, new)
    assert any(message in line and line.startswith(("spec/", "README.md")) for line in found(tree)), found(
        tree
    )


def test_unknown_citation_makes_the_check_fail(tree: Path) -> None:
    (tree / "protocol/qmig/x.py").write_text("LEG-" + "TST-009")
    assert any("x.py: cites LEG-" + "TST-009" in line for line in found(tree))


def vector(number: int, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda file: file["vectors"][number].update(changes)


def blob(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda file: file["vectors"][1]["channels"]["main"].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (vector(1, name="one"), "legacy/some#one: the name occurs twice"),
        (vector(1, flags=["else"]), "flag 'else' is not in notes"),
        (vector(1, flags=[]), "note 'open' explains a flag that no vector has"),
        (vector(0, result="invalid"), "$.vectors[0].expect"),
        (vector(0, result="acceptable"), "'flags' is a required property"),
        (vector(0, comment="x" * 100), "is too long"),
        (lambda file: file.update(schema="qmig/vectors/0"), "$.schema"),
        (lambda file: file.update(source={"kind": "recording"}), "$.source"),
        (
            lambda file: file["vectors"][1]["expect"].update(requirement="LEG-" + "TST-002"),
            "is not in the spec",
        ),
        (blob(size=3), "4 bytes, the vector says 3"),
        (blob(size=9000), "8000 bytes, the vector says 9000"),
        (blob(sha256="0" * 64), "sha256 differs"),
        (blob(file="none-main.xz"), "No such file"),
        (blob(file="none-main.xz"), "spec/vectors/legacy/some-main.xz: no vector uses this file"),
    ],
)
def test_damage_to_vectors_is_found(
    tree: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write_vectors(tree, change)
    assert any(message in line for line in found(tree)), found(tree)


def test_a_blob_that_is_no_xz_file(tree: Path) -> None:
    (tree / "spec/vectors/legacy/some-main.xz").write_bytes(b"QEVM")
    assert any("some-main.xz" in line for line in found(tree))


def test_vectors_have_a_budget(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "VECTORS_LIMIT", 100)
    assert any("bytes in all, the limit is 100" in line for line in found(tree))


def test_large_plain_blob_is_to_be_compressed(tree: Path) -> None:
    (tree / "spec/vectors/legacy/some-main.xz").unlink()
    (tree / "spec/vectors/legacy/some-main.bin").write_bytes(BLOB)
    write_vectors(tree, blob(file="some-main.bin"))
    assert any("some-main.bin is large; compress it with xz" in line for line in found(tree))


def test_installed_specification_is_checked_without_a_checkout(tree: Path) -> None:
    (tree / "protocol/qmig/x.py").write_text("LEG-" + "TST-009")
    assert check(tree / "spec", None) == []


def test_check_says_what_it_needs(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "find_spec", lambda _: None)
    with pytest.raises(QmigError, match=r"pip install 'qmig\[test\]'"):
        check(tree / "spec", tree)


def test_render_is_stable_and_shows_every_row(tree: Path) -> None:
    assert render(tree / "spec", tree) == []
    text = (tree / CHAPTER).read_text(encoding="utf-8")
    assert f"| `0x07` | `SEVEN` | 3 | ≤5.2 | 8.2 | {A} | a \\| b |" in text
    assert f"| `0x08` | `EIGHT` |  | 9.0 |  | {A} |  |" in text
    assert "| 5 | 1+n | `idstr` |" in text
    assert "| … | 4 | `version_id` |" in text


def test_diagram_of_a_record(tree: Path) -> None:
    text = (tree / CHAPTER).read_text(encoding="utf-8")
    diagram = text.partition("```text\n")[2].partition("```")[0].splitlines()
    assert diagram == [
        "+-------+-------------------------------+",
        "| 0x01  |          section_id           |",
        "+---------------------------------------------------------------+",
        "~                       idstr (1+n bytes)                       ~",
        "+-------------------------------+-------------------------------+",
        "|          instance_id          |          version_id           |",
        "+---------------------------------------------------------------+",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- generated: registry things -->", "malformed"),
        ("<!-- generated: registry --><!-- /generated -->", "malformed"),
        ("<!-- generated: picture x --><!-- /generated -->", "unknown generated block 'picture'"),
        ("<!-- generated: registry none --><!-- /generated -->", "no registry 'none'"),
        ("<!-- generated: layout qmig.errors:QmigError --><!-- /generated -->", "is no record"),
    ],
)
def test_mark_that_cannot_be_rendered(tree: Path, text: str, message: str) -> None:
    with pytest.raises(QmigError, match=message):
        render_page(tree / "spec", text, "page.md")


def test_vectors_are_loaded(tree: Path) -> None:
    one, two = load_file(tree / "spec", tree / "spec/vectors/legacy/some.json")
    assert (one.id, one.data(), one.reader, one.expect) == (
        "legacy/some#one", bytes.fromhex("7e00000001"), "record", {"decoding": {"section_id": 1}},
    )  # fmt: skip
    assert (two.flags, two.data() == BLOB, two.source["basis"]) == (("open",), True, "10.0")


@pytest.mark.parametrize(
    "change", [lambda f: f.update(schema="x"), lambda f: f.pop("source"), lambda f: f.update(vectors=3)]
)
def test_file_of_another_form_is_refused(tree: Path, change: Callable[[dict[str, Any]], object]) -> None:
    write_vectors(tree, change)
    with pytest.raises(QmigError, match=r"some\.json"):
        list(load_file(tree / "spec", tree / "spec/vectors/legacy/some.json"))


def test_helpers_find_the_specification() -> None:
    assert (spec_root() / "legacy").is_dir()
    assert load_registry("capabilities").entries[0].name == "XBZRLE"
    everything = list(load_vectors())
    assert everything
    for wanted in everything[:3]:
        assert wanted.id in [vector.id for vector in load_vectors(wanted.id, reader=wanted.reader)]
        assert [vector.id for vector in load_vectors(wanted.id, reader="none")] == []


def test_show_prints_statements_and_what_cites_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "show", "leg-ver-030"]) == 0
    assert "The file version stayed 3" in capsys.readouterr().out
    assert main(["spec", "show", "LEG-VER-02", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    schema = json.loads((spec_root() / "schema/spec-show.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    rows = {row["id"]: row for row in document["requirements"]}
    assert list(rows) == sorted(rows)
    assert rows["LEG-VER-025"]["cited"]["registries"] == ["spec/registries/compat-properties.toml"]


def test_check_and_render_commands(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qmig.cli.spec.spec_root", lambda: tree / "spec")
    monkeypatch.setattr("qmig.cli.spec.checkout", lambda: tree)
    assert main(["spec", "check"]) == 0
    assert capsys.readouterr().out == "specification: no problems\n"
    edit(tree, CHAPTER, "`SEVEN`", "`SIX`")
    assert main(["spec", "check"]) == 1
    out, err = capsys.readouterr()
    assert out == f"{CHAPTER}: generated parts are stale; run: qmig spec render\n"
    assert err == "qmig: 1 problems in the specification\n"
    assert main(["spec", "render"]) == 0
    assert capsys.readouterr().out == f"rewritten: {tree / CHAPTER}\n"
    assert main(["spec", "check"]) == 0
    monkeypatch.setattr("qmig.cli.spec.checkout", lambda: None)
    assert main(["spec", "render"]) == 2


# -- protocol v2 ------------------------------------------------------------------------------------------

B = "HS-" + "TST-001"


@pytest.fixture
def second(tree: Path) -> Path:
    """With a chapter of v2, and what its statements answer."""
    (tree / "spec/v2").mkdir()
    (tree / "spec/v2/20-new.md").write_text(
        f"# New\n\n**[{B}]** (both; MUST; R-02, S-1) Text.\n\n"
        "<!-- generated: trace R --><!-- /generated -->\n\n"
        "<!-- generated: states qmig.handshake.source_table:TABLE --><!-- /generated -->\n\n"
        "<!-- generated: cddl qmig.handshake.cddl:bodies --><!-- /generated -->\n",
        encoding="utf-8",
    )
    rows = {letter: range(1, most + 1) for letter, most in trace.NUMBERS.items()}
    text = "".join(
        f"[{letter}]\n" + "".join(f'{at} = "asks => gone"\n' for at in numbers)
        for letter, numbers in rows.items()
    )
    (tree / "spec/v2/trace.toml").write_text(text.replace('2 = "asks => gone"', '2 = "asks"', 1))
    render(tree / "spec", tree)
    assert found(tree) == []
    return tree


def test_a_table_of_v2_has_no_column_that_says_nothing(second: Path) -> None:
    page = "# x\n<!-- generated: registry words --><!-- /generated -->\n"
    (second / "spec/registries/words.toml").write_text(
        f'title = "Words"\nchapter = "20-new"\ncolumns = {{ means = "meaning" }}\n'
        f'[[entry]]\nvalue = "one"\nname = "ONE"\nsince = "2.0"\nrequirement = "{B}"\nmeans = "x"\n'
    )
    shown = render_page(second / "spec", page, "20-new.md")
    assert f"| value | meaning | statement |\n| --- | --- | --- |\n| `one` | x | {B} |" in shown


def test_pages_of_v2_are_rendered(second: Path) -> None:
    page = (second / "spec/v2/20-new.md").read_text(encoding="utf-8")
    assert f"| R-02 | asks |  | [{B}](20-new.md) |" in page
    assert "| R-03 | asks | gone |  |" in page
    assert "    IDLE --> HELLO: start\n" in page
    assert "management - the guest is the destination's" in page
    assert "| FLOW | end of control | `retry` | FLOW | reconnect |  |" in page
    assert "  1: bstr .size 32, ; hash" in page
    assert (second / "spec/v2/handshake.cddl").read_text(encoding="utf-8").startswith("; Messages of QEMU")
    assert f"| [{B}](v2/20-new.md) | both | MUST |" in (second / "spec/CONFORMANCE.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("spec/v2/trace.toml", '2 = "asks"', '2 = "asks => so"', "generated parts are stale"),
        ("spec/v2/20-new.md", "R-02", "R-03", "R-2: neither a statement nor a reason"),
        ("spec/v2/20-new.md", "S-1", "S-106", f"{B} answers S-106, which does not exist"),
        ("spec/v2/trace.toml", '\n7 = "asks => gone"', "", "R-7 is missing"),
        ("spec/v2/trace.toml", "[S]", '131 = "x"\n[S]', "R-131 does not exist"),
        ("spec/v2/20-new.md", "MUST; R", "all; R", "level 'all' is none of"),
        ("spec/v2/20-new.md", "IDLE --> HELLO", "IDLE --> END", "generated parts are stale"),
        ("spec/v2/handshake.cddl", "hello", "hallo", "generated parts are stale"),
    ],
)
def test_damage_to_v2_is_found(second: Path, name: str, old: str, new: str, message: str) -> None:
    path = second / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert any(message in line for line in found(second)), found(second)
