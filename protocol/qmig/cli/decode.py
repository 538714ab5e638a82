"""``qmig decode``: every record of a migration stream, its device state, its RAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import click

from qmig.cli.exits import CommandError, Exit, verdict
from qmig.cli.feeding import gather, tell
from qmig.errors import RemoteProtocolError
from qmig.legacy.connection import Told
from qmig.legacy.session import MigrationSession

if TYPE_CHECKING:
    from qmig.cli.extract import Extracted, Extractor
    from qmig.cli.inputs import Input
    from qmig.legacy.state import Schema
    from qmig.legacy.verify.findings import Finding


#: bytes of input from which on progress is shown
PROGRESS_FROM: Final = 256 << 20


class Report(Protocol):
    """Shows a story while it is told."""

    def begin(self, inputs: list[Input]) -> None: ...

    def told(self, told: Told) -> None: ...

    def broke(self, error: RemoteProtocolError) -> None: ...

    def finish(self, findings: Sequence[Finding], extracted: Sequence[Extracted]) -> None: ...


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--channel", "channels", metavar="NAME=FILE", multiple=True,
    help="A companion: multifd-N, preempt, rp, cpr, main-2 … Without any, those beside FILE are taken: by a "
    "meta.json that lists FILE, or by their names (main.bin goes with multifd-0.bin).",
)  # fmt: skip
@click.option("--alone", is_flag=True, help="Do not look for companions beside FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (spec/schema/decode.json).")
@click.option(
    "--extract-ram", "ram", metavar="DIR", type=click.Path(file_okay=False),
    help="Write the RAM at the end of the stream: one sparse file for each RAM block.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Every section and packet, and values in full.")
@click.option(
    "--offset", type=click.IntRange(min=0), default=0, metavar="N", help="The stream begins at byte N."
)
@click.option("--snapshot", metavar="NAME", help="FILE is a qcow2 image: decode this snapshot's state.")
@click.option(
    "--page-size", type=click.IntRange(min=1024, max=65536), metavar="N",
    help="Target page size in bytes, where the stream does not say it.",
)  # fmt: skip
@click.option(
    "--schema", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
    help="Describes the devices where FILE does not: a stream with a vmdescription, or -dump-vmstate output.",
)  # fmt: skip
def decode(
    file: str,
    channels: tuple[str, ...],
    alone: bool,
    as_json: bool,
    ram: str | None,
    verbose: bool,
    offset: int,
    snapshot: str | None,
    page_size: int | None,
    schema: str | None,
) -> int:
    """Show every record of the migration stream in FILE (`-`: standard input).

    FILE may be a recorded main channel, a file migration (mapped-ram too), a libvirt save file, a qcow2
    image with a snapshot, or a single other channel; .xz, .gz, .bz2 and .zst are unpacked on the way.
    """
    if page_size is not None and page_size & (page_size - 1):
        raise CommandError(f"--page-size {page_size}: not a power of two")
    inputs = gather(file, channels, offset=offset, snapshot=snapshot, alone=alone)
    session = MigrationSession(page_size=page_size, schema=_schema(schema))
    report = _report(as_json, verbose, session)
    extractor = _extractor(ram) if ram is not None else None
    errors: list[RemoteProtocolError] = []

    def broke(error: RemoteProtocolError) -> None:
        errors.append(error)
        report.broke(error)

    report.begin(inputs)
    for item in _watched(tell(session, inputs), session, inputs):
        if isinstance(item, RemoteProtocolError):
            broke(item)
            continue
        report.told(item)
        problem = extractor.apply(item) if extractor is not None else None
        if problem is not None:
            broke(problem)
    findings = session.finish()
    report.finish(findings, extractor.finish() if extractor is not None else [])
    return _ended(file, [*(error for error in errors if not session.overcome(error)), *findings])


def _schema(path: str | None) -> Schema | None:
    if path is None:
        return None
    from qmig.cli.schemas import load_schema

    return load_schema(path)


def _report(as_json: bool, verbose: bool, session: MigrationSession) -> Report:
    import sys

    if as_json:
        from qmig.cli.jsonreport import JsonReport

        return JsonReport(sys.stdout, session)
    from qmig.cli.render import TextReport

    return TextReport(sys.stdout, session, verbose=verbose)


def _extractor(folder: str) -> Extractor:
    from qmig.cli.extract import Extractor

    return Extractor(folder)


def _watched(
    story: Iterator[Told | RemoteProtocolError], session: MigrationSession, inputs: list[Input]
) -> Iterator[Told | RemoteProtocolError]:
    """The story; on a terminal, and if it is a long one, with a progress bar on stderr."""
    import sys

    sizes = [source.size for source in inputs if source.size is not None]
    if sum(sizes) < PROGRESS_FROM or not sys.stderr.isatty():
        return story
    from qmig.cli.progress import with_bar

    return with_bar(story, session, sum(sizes))


def _ended(file: str, faults: list[RemoteProtocolError | Finding]) -> int:
    """The exit code for what was found; raised with the first finding where there is one."""
    if not faults:
        return Exit.GOOD
    more = f" (and {len(faults) - 1} more findings)" if len(faults) > 1 else ""
    raise CommandError(f"{file}: {faults[0]}{more}", verdict(faults))
