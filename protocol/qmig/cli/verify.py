"""``qmig verify``: a recording against every rule that it can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qmig.cli.exits import BEYOND_US, CommandError, Exit

if TYPE_CHECKING:
    from qmig.cli.inputs import Input
    from qmig.errors import RemoteProtocolError
    from qmig.legacy.verify import Facts, Known, Outcome, Report, Rule

SCHEMA: Final = "qmig/verify/1"
RULES_SCHEMA: Final = "qmig/verify-rules/1"


@click.command()
@click.argument("file", metavar="FILE", required=False)
@click.option(
    "--channel", "channels", metavar="NAME=FILE", multiple=True,
    help="A companion: multifd-N, preempt, rp, main-2 … Without any, those beside FILE are taken.",
)  # fmt: skip
@click.option("--alone", is_flag=True, help="Do not look for companions beside FILE.")
@click.option(
    "--offset", type=click.IntRange(min=0), default=0, metavar="N", help="The stream begins at byte N."
)
@click.option("--snapshot", metavar="NAME", help="FILE is a qcow2 image: check this snapshot's state.")
@click.option(
    "--meta", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
    help="What is known of the source: version, capabilities, parameters, command line. Without it, a "
    "meta.json beside FILE that lists FILE.",
)  # fmt: skip
@click.option("--qemu-version", metavar="X.Y", help="Version of the QEMU that sent the stream.")
@click.option(
    "--capabilities", metavar="LIST", help="Capabilities that were on at the source, with commas; '' is none."
)
@click.option(
    "--no-globals", is_flag=True,
    help="No `-global migration.*` and no suppress-vmdesc was given to the source.",
)  # fmt: skip
@click.option(
    "--schema", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
    help="Describes the devices where FILE does not: a stream with a vmdescription, or -dump-vmstate output.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Say of every rule what came of it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (spec/schema/verify.json).")
@click.option("--rules", "list_rules", is_flag=True, help="List every rule and who checks it; no FILE.")
def verify(
    file: str | None,
    channels: tuple[str, ...],
    alone: bool,
    offset: int,
    snapshot: str | None,
    meta: str | None,
    qemu_version: str | None,
    capabilities: str | None,
    no_globals: bool,
    schema: str | None,
    verbose: bool,
    as_json: bool,
    list_rules: bool,
) -> int:
    """Check the migration stream in FILE (`-`: standard input) against the specification.

    Every finding names the statement that is violated, the channel and the offset. A stream does not say
    which QEMU sent it and with which settings; rules that depend on what is not known are not checked, and
    counted as such. Exit code 1: at least one error; warnings and notes do not count. Exit code 2: no error
    was found, but part of the input is beyond what can be read.
    """
    if list_rules:
        _print_rules(as_json)
        return Exit.GOOD
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.", click.get_current_context())
    from qmig.cli.feeding import gather

    known = _known(file, meta, qemu_version, capabilities, no_globals)
    inputs = gather(file, channels, offset=offset, snapshot=snapshot, alone=alone)
    report, facts, beyond = _check(inputs, known, schema)
    if as_json:
        click.echo(json.dumps(_document(inputs, report, facts), indent=1))
    else:
        _print(report, verbose)
    if report.good and beyond is not None:
        raise CommandError(f"{file}: no error found, but not all of it could be read: {beyond}")
    return Exit.GOOD if report.good else Exit.BAD


def _check(
    inputs: list[Input], known: Known, schema: str | None
) -> tuple[Report, Facts, RemoteProtocolError | None]:
    """The report, what the input tells of its source, and what is beyond our reader (None: nothing)."""
    from qmig.cli.feeding import tell
    from qmig.errors import RemoteProtocolError
    from qmig.legacy.session import MigrationSession
    from qmig.legacy.verify import Verifier

    described = None
    if schema is not None:
        from qmig.cli.schemas import load_schema

        described = load_schema(schema)
    verifier = Verifier(known)
    beyond: RemoteProtocolError | None = None
    for item in tell(MigrationSession(schema=described), inputs):
        if isinstance(item, RemoteProtocolError):
            verifier.failed(item.channel or "main", item)
            if isinstance(item, BEYOND_US):
                beyond = beyond or item
        else:
            verifier.check(item.channel, item.event)
    return verifier.finish(), verifier.facts, beyond


def _known(
    file: str, meta: str | None, version: str | None, capabilities: str | None, no_globals: bool
) -> Known:
    """What options and meta.json say; options win."""
    from dataclasses import replace

    from qmig.legacy.verify import Known, version_of

    known = Known.from_meta(_meta(Path(meta)) if meta else _meta_beside(file))
    if version is not None:
        parsed = version_of(version)
        if parsed is None:
            raise CommandError(f"--qemu-version {version!a}: expected a version such as 10.0")
        known = replace(known, version=parsed)
    if capabilities is not None:
        names = frozenset(name.strip() for name in capabilities.split(",") if name.strip())
        known = replace(known, capabilities=names)
    if no_globals:
        known = replace(known, properties={}, suppress_vmdesc=False)
    return known


def _meta(path: Path) -> dict[str, Any]:
    from qmig.cli.inputs import read_meta

    meta = read_meta(str(path))
    if not isinstance(meta, dict):
        raise CommandError(f"{path}: no JSON object; give the meta.json of a recording")
    return meta


def _meta_beside(file: str) -> dict[str, Any]:
    """The meta.json in the folder of FILE, if it is about FILE."""
    from qmig.cli.inputs import meta_beside

    path = Path(file)
    try:
        meta: dict[str, Any] = meta_beside(str(path.parent))
        names = {
            side["file"]
            for channel in meta["channels"]
            for side in channel.values()
            if isinstance(side, dict)
        }
    except (KeyError, TypeError, AttributeError):
        return {}
    return meta if path.name in names else {}


def _print(report: Report, verbose: bool) -> None:
    from collections import Counter

    from qmig.cli.exits import one_line

    shown = Counter(finding.requirement for finding in report.findings)
    for finding in report.findings:
        click.echo(one_line(str(finding)))
    for outcome in report.outcomes:
        more = outcome.count - shown[outcome.requirement]
        if more > 0:
            click.echo(f"and {more} more of {outcome.requirement}")
    if verbose:
        for outcome in sorted(report.outcomes, key=lambda row: row.requirement):
            click.echo(_row(outcome))
    counts = Counter(str(finding.severity) for finding in report.findings)
    kinds = ", ".join(f"{counts[name]} {name}s" for name in ("error", "warning", "note"))
    states = Counter(str(outcome.status) for outcome in report.outcomes)
    click.echo(
        f"{kinds}; {states['held']} rules held, {states['broken']} broken, "
        f"{states['not applicable']} not applicable, {states['not checkable']} not checkable"
    )


def _row(outcome: Outcome) -> str:
    reason = f" ({outcome.reason})" if outcome.reason else ""
    return f"{outcome.requirement}  {outcome.status:14}  {outcome.title}{reason}"


def _document(inputs: list[Input], report: Report, facts: Facts) -> dict[str, Any]:
    from dataclasses import asdict

    from qmig.legacy.verify.facts import NEVER, OLDEST

    def release(version: tuple[int, int], unknown: tuple[int, int]) -> str | None:
        return None if version == unknown else f"{version[0]}.{version[1]}"

    return {
        "schema": SCHEMA,
        "good": report.good,
        "inputs": [{"channel": source.channel, "file": source.path} for source in inputs],
        "source": {
            "machine": facts.machine,
            "at_least": release(facts.low, OLDEST),
            "at_most": release(facts.high, NEVER),
        },
        "findings": [asdict(finding) for finding in report.findings],
        "rules": [asdict(outcome) for outcome in sorted(report.outcomes, key=lambda row: row.requirement)],
    }


def _print_rules(as_json: bool) -> None:
    from qmig.legacy.verify import NOT_SHOWN, all_rules

    if as_json:
        rows = [
            {
                "requirement": rule.requirement,
                "title": rule.title,
                "by": str(rule.by),
                "severity": str(rule.severity),
                "when": rule.when.text,
                "why_not": rule.why_not,
            }
            for rule in all_rules()
        ]
        document = {"schema": RULES_SCHEMA, "rules": rows, "not_shown": NOT_SHOWN}
        click.echo(json.dumps(document, indent=1))
        return
    for rule in all_rules():
        click.echo(f"{rule.requirement}  {rule.severity:7}  {rule.title}")
        click.echo(f"             {_how(rule)}")
    for prefix, reason in NOT_SHOWN.items():
        click.echo(f"{prefix}-*    not checkable: {reason}")


def _how(rule: Rule) -> str:
    from qmig.legacy.verify import By

    if rule.by is By.NOBODY:
        return f"not checkable: {rule.why_not}"
    text = f"by the {rule.by}; for {rule.when.text}"
    if rule.known_defect is not None:
        text += f"; a note for {rule.known_defect.text}"
    return text
