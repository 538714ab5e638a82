"""``qmig spec``: look up requirements, check and render the specification."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from qmig.cli.exits import CommandError, Exit
from qmig.spec.ids import Citations, Requirement, read_citations, read_requirements
from qmig.testing import checkout, spec_root

SHOW_SCHEMA = "qmig/spec-show/1"


@click.group()
def spec() -> None:
    """Look up requirements; check and render the specification."""


@spec.command()
@click.argument("prefix", metavar="ID-PREFIX")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(prefix: str, as_json: bool) -> None:
    """Show the statements whose id begins with ID-PREFIX, and what cites them."""
    requirements, _ = read_requirements(spec_root())
    found = [r for r in requirements.values() if r.id.startswith(prefix.upper())]
    if not found:
        chapters = ", ".join(sorted({r.chapter for r in requirements.values()}))
        raise CommandError(f"no statement begins with {prefix!r}; chapters are {chapters}")
    top = checkout()
    cited: Citations = read_citations(top) if top else {}
    if as_json:
        rows = [{**asdict(r), "cited": cited.get(r.id, {})} for r in found]
        click.echo(json.dumps({"schema": SHOW_SCHEMA, "requirements": rows}, indent=1))
        return
    click.echo("\n\n".join(_statement(r, cited) for r in found))


def _statement(requirement: Requirement, cited: Citations) -> str:
    r = requirement
    evidence = f"; {r.evidence}" if r.evidence else ""
    lines = [f"{r.id}  ({r.side}; {r.level or r.versions}{evidence})  spec/{r.file}:{r.line}"]
    lines += textwrap.wrap(r.text, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    lines += [f"  {kind}: {', '.join(files)}" for kind, files in sorted(cited.get(r.id, {}).items())]
    return "\n".join(lines)


@spec.command()
def check() -> int:
    """Check ids and their citations, registries, vectors, links, and that generated parts are fresh."""
    from qmig.spec.check import check as run

    problems = run(spec_root(), checkout())
    for problem in problems:
        click.echo(str(problem))
    if problems:
        click.echo(f"qmig: {len(problems)} problems in the specification", err=True)
        return Exit.BAD
    click.echo(
        "specification: no problems" + ("" if checkout() else " (no checkout: citations not looked at)")
    )
    return Exit.GOOD


@spec.command()
def render() -> None:
    """Rewrite generated tables and diagrams, and CONFORMANCE.md."""
    from qmig.spec.render import render as run

    for path in run(spec_root(), _source_tree()):
        click.echo(f"rewritten: {path}")


def _source_tree() -> Path:
    top = checkout()
    if top is None:
        raise CommandError("generated parts belong to a source tree; run this in a checkout of qmig")
    return top
