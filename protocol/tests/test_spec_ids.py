"""The statement grammar, and citations."""

from pathlib import Path

import pytest

from qmig.spec.ids import (
    Problem,
    Requirement,
    read_citations,
    read_requirements,
    statements,
    unknown_citations,
)

# Ids that exist nowhere: put together here, so that the checker does not take them for citations.
A, B, OTHER = "LEG-" + "TST-001", "LEG-" + "TST-002", "LEG-" + "OTR-001"


def only(text: str) -> Requirement | Problem:
    found = list(statements(text, "legacy/10-test.md"))
    assert len(found) == 1
    return found[0]


def test_statement_is_taken_apart() -> None:
    head = "(source; 5.2-8.2, 9.0+; invariant 3, a (b) c; d)"
    text = f"# Title\n\nProse.\n\n**[{A}]** {head} It does\nthis `x`.\n\nMore."
    assert only(text) == Requirement(
        id=A, side="source", versions="5.2-8.2, 9.0+", evidence="invariant 3, a (b) c; d",
        text="It does this `x`.", file="legacy/10-test.md", line=5,
    )  # fmt: skip


def test_head_may_run_over_a_line() -> None:
    found = only(f"**[{A}]** (both; all;\nobserved)\nText.")
    assert isinstance(found, Requirement)
    assert (found.evidence, found.text) == ("observed", "Text.")


HS = "HS-" + "TST-001"


def of_v2(text: str) -> Requirement | Problem:
    (found,) = statements(text, "v2/10-test.md")
    return found


@pytest.mark.parametrize("level", ["MUST", "SHOULD", "MAY"])
def test_a_statement_of_v2_has_a_level(level: str) -> None:
    assert of_v2(f"**[{HS}]** (both; {level}; R-01, A-02) Text.") == Requirement(
        id=HS, side="both", versions="all", evidence="R-01, A-02", text="Text.", file="v2/10-test.md", line=1,
        level=level,
    )  # fmt: skip


def test_a_withdrawn_statement_of_v2_needs_no_level() -> None:
    found = of_v2(f"**[{HS}]** (withdrawn) Was wrong.")
    assert isinstance(found, Requirement)
    assert (found.side, found.level) == ("withdrawn", "")


def test_levels_and_folders_are_checked() -> None:
    assert "level 'all' is none of MUST, SHOULD, MAY" in str(of_v2(f"**[{HS}]** (both; all; x) Text."))
    assert "belong to the chapters of v2" in str(of_v2(f"**[{A}]** (both; all; x) Text."))
    assert "belong to the chapters of v2" in str(only(f"**[{HS}]** (both; MUST; x) Text."))


@pytest.mark.parametrize(
    "versions",
    ["all", "5.2", "9.0+", "≤8.2", "5.2-8.2", "5.2–8.2", "machine ≤8.0", "5.2, machine 9.2+, 10.0-11.1"],
)
def test_versions_as_they_may_be_written(versions: str) -> None:
    assert isinstance(only(f"**[{A}]** (both; {versions}; observed) Text."), Requirement)


def test_withdrawn_statement_keeps_its_id() -> None:
    found = only(f"**[{A}]** (withdrawn) Was wrong.")
    assert isinstance(found, Requirement)
    assert (found.side, found.chapter) == ("withdrawn", "LEG-TST")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("**[LEG-X-1]** (both; all; x) T.", "not an id"),
        (f"**[{A}]** Text.", "expected (side; versions; evidence)"),
        (f"**[{A}]** (both; all) Text.", "expected (side; versions; evidence)"),
        (f"**[{A}]** (both; all; ) Text.", "expected (side; versions; evidence)"),
        (f"**[{A}]** (both; all; x)", "expected (side; versions; evidence)"),
        (f"**[{A}]** (sender; all; x) Text.", "side 'sender' is none of"),
        (f"**[{A}]** (both; since 9; x) Text.", "versions 'since 9'"),
        (f"- **[{A}]** (both; all; x) Text.", "a paragraph of its own"),
        (f"Prose\n**[{A}]** (both; all; x) Text.", "a paragraph of its own"),
    ],
)
def test_malformed_statement(text: str, message: str) -> None:
    found = only(text)
    assert isinstance(found, Problem)
    assert message in found.message


def test_example_in_a_code_block_is_no_statement() -> None:
    assert list(statements(f"```text\n**[{A}]** (nothing) here\n```\n", "x.md")) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("spec/legacy", "protocol/qmig", "protocol/tests", "conformance/qmig_conformance/cases"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "spec/legacy/10-a.md").write_text(
        f"**[{B}]** (both; all; x) Two.\n\n**[{A}]** (withdrawn) One.\n", encoding="utf-8"
    )
    return tmp_path


def test_requirements_of_all_chapters(tree: Path) -> None:
    (tree / "spec/legacy/20-b.md").write_text(f"**[{OTHER}]** (both; all; x) Three.\n")
    found, problems = read_requirements(tree / "spec")
    assert (list(found), problems) == ([B, A, OTHER], [])


def test_id_given_twice_and_prefix_in_two_files(tree: Path) -> None:
    third = "LEG-" + "TST-003"
    (tree / "spec/legacy/20-b.md").write_text(
        f"**[{A}]** (both; all; x) X.\n\n**[{third}]** (both; all; x) Y.\n"
    )
    assert [str(problem) for problem in read_requirements(tree / "spec")[1]] == [
        f"spec/legacy/20-b.md:1: {A} is also at legacy/10-a.md:3",
        "spec/legacy/20-b.md:3: LEG-TST has its home in legacy/10-a.md",
    ]


def test_citations_by_kind(tree: Path) -> None:
    (tree / "protocol/qmig/x.py").write_text(f"# {A} {B} {B}")
    (tree / "protocol/tests/test_x.py").write_text(f"# {B}, LEG-TST-0011, XLEG-{B}")
    (tree / "conformance/qmig_conformance/cases/c.py").write_text(B)
    (tree / "protocol/qmig/notes.txt").write_text(OTHER)
    cited = read_citations(tree)
    assert {key: dict(value) for key, value in cited.items()} == {
        A: {"code": ["protocol/qmig/x.py"]},
        B: {
            "code": ["protocol/qmig/x.py"],
            "tests": ["protocol/tests/test_x.py"],
            "cases": ["conformance/qmig_conformance/cases/c.py"],
        },
    }


def test_citation_of_what_is_not_there(tree: Path) -> None:
    (tree / "protocol/qmig/x.py").write_text(f"{A} {B} {OTHER}")
    found, _ = read_requirements(tree / "spec")
    assert sorted(str(problem) for problem in unknown_citations(found, read_citations(tree))) == [
        f"protocol/qmig/x.py: cites {OTHER}, which is not in the specification",
        f"protocol/qmig/x.py: cites {A}, which is withdrawn",
    ]
