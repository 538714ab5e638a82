"""``qmig builds``: real QEMU builds of several versions side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmig.cli.exits import CommandError, Exit, one_line

if TYPE_CHECKING:
    from qmig.builds.archive import Report, Source
    from qmig.builds.store import Build

_PREFIX = click.option(
    "--prefix", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Where builds live.  [default: $QMIG_BUILDS, else ~/.cache/qmig/builds]",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
#: spec/schema/builds.json
SCHEMA = "qmig/builds/1"


@click.group()
def builds() -> None:
    """Get and list real QEMU builds, several versions side by side.

    They are unpacked from the distribution's packages, need no root and leave the host's own packages alone.
    """


@builds.command("get")
@click.argument("versions", nargs=-1, required=True, metavar="VERSION...")
@_PREFIX
@click.option("--targets", default="x86_64,aarch64", show_default=True, help="Guest architectures.")
@click.option("--mirror", metavar="URL", help="Package archive.  [default: the one apt is configured with]")
@click.option("--suite", "suites", multiple=True, metavar="NAME[+OVERLAY]", help="Look only in this suite.")
@click.option(
    "--keyring", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Keyring that signs the archive.",
)  # fmt: skip
@click.option("--unsigned", is_flag=True, help="Take a --mirror whose index is not signed.")
@click.option("--again", is_flag=True, help="Replace builds that are there already.")
@_JSON
def get(
    versions: tuple[str, ...],
    prefix: Path | None,
    targets: str,
    mirror: str | None,
    suites: tuple[str, ...],
    keyring: Path | None,
    unsigned: bool,
    again: bool,
    as_json: bool,
) -> int:
    """Fetch QEMU builds, such as: qmig builds get 7.2 10.0

    A version takes its point releases: 10.0 is whatever 10.0.x the archive has now.
    """
    from qmig.builds.archive import BuildError
    from qmig.builds.install import TARGET_PACKAGES, Installer

    wanted = [target for target in targets.split(",") if target]
    if unknown := [target for target in wanted if target not in TARGET_PACKAGES]:
        raise click.UsageError(f"unknown target {unknown[0]}; known are {', '.join(TARGET_PACKAGES)}")
    if not wanted:
        raise click.UsageError("--targets names no target")
    if unsigned and (keyring or not mirror):
        raise click.UsageError("--unsigned goes with --mirror, and not with --keyring")
    source = _source(mirror, suites, keyring, unsigned)
    got: list[Build] = []
    problems: list[str] = []
    with _progress() as report, Installer(prefix, source, report) as installer:
        for version in versions:
            try:
                got.append(installer.get(version, wanted, again=again))
            except BuildError as problem:
                problems.append(f"{version}: {problem}")
            else:
                if not as_json:
                    click.echo(one_line(_line(got[-1])))
    if as_json:
        _print_json(got)
    for line in problems[:-1]:
        click.echo(f"qmig: {one_line(line)}", err=True)
    if problems:
        raise CommandError(problems[-1], Exit.ENVIRONMENT)
    return Exit.GOOD


@builds.command("list")
@_PREFIX
@_JSON
def list_builds(prefix: Path | None, as_json: bool) -> int:
    """List the builds that are there, and the QEMU on PATH."""
    from qmig.builds.store import default_prefix, find_on_path, installed

    place = prefix or default_prefix()
    there = installed(place)
    if as_json:
        _print_json(there)
        return Exit.GOOD
    for build in there:
        click.echo(one_line(_line(build)))
    if not there:
        click.echo(f"no builds in {place}; get one with: qmig builds get 10.0", err=True)
    for target in ("x86_64", "aarch64"):
        if qemu := find_on_path(target):
            click.echo(one_line(f"PATH  {qemu}"))
    return Exit.GOOD


def _source(
    mirror: str | None, suites: tuple[str, ...], keyring: Path | None, unsigned: bool
) -> Source | None:
    """What the options say of the archive; None: all of it as apt has it."""
    from dataclasses import replace

    from qmig.builds.archive import DEBIAN_SUITES, Source, machine_source

    if not (mirror or suites or keyring):
        return None
    source = Source(mirror, DEBIAN_SUITES) if mirror else machine_source()
    if suites:
        source = replace(source, suites=suites)
    if keyring or unsigned:
        source = replace(source, keyring=keyring)
    return source


def _line(build: Build) -> str:
    origin = build.provenance.get("suite", "")
    codename = build.provenance.get("codename", origin)
    known = [build.package, f"from {origin}" if codename == origin else f"from {origin} ({codename})"]
    text = ", ".join(part for part in known if part and part != "from ")
    targets = " ".join(build.targets)
    program = build.binary(build.targets[0] if len(build.targets) == 1 else "*")
    return f"{build.name:<6} QEMU {build.version}  {targets}  {text}  {program}"


def _print_json(builds: list[Build]) -> None:
    click.echo(json.dumps({"schema": SCHEMA, "builds": [build.as_json() for build in builds]}, indent=1))


@contextmanager
def _progress() -> Iterator[Report]:
    """A progress bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda text, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(text: str, done: float | None) -> None:
            bar.update(task, description=text, total=None if done is None else 1.0, completed=done or 0.0)

        yield report
