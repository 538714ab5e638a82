"""The command ``qmig``.

Commands are a table of names: `qmig --help` prints it without importing any of them, because what a
command needs (rich, trio, construct, numpy …) costs more than the help. To add a command: write
``qmig/cli/NAME.py``, add its row here. A command returns its exit code (or None for 0) and raises for
everything else; see `qmig.cli.exits`.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, TextIO

import click


class Row(NamedTuple):
    #: "module:attribute" of the click command
    target: str
    #: one line, shown by `qmig --help`
    help: str


COMMANDS = {
    "decode": Row("qmig.cli.decode:decode", "Show every record of a migration stream; extract its RAM."),
    "verify": Row("qmig.cli.verify:verify", "Check a recorded stream against the requirements."),
    "builds": Row("qmig.cli.builds:builds", "Get and list real QEMU builds, several versions side by side."),
    "conformance": Row("qmig.cli.conformance:conformance", "Run the conformance suite on a QEMU."),
    "spec": Row("qmig.cli.spec:spec", "Look up requirements; check and render the specification."),
}


class LazyGroup(click.Group):
    """A group whose members are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.help) for name, row in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from qmig import __version__

        click.echo(f"qmig {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip
def qmig() -> None:
    """QEMU live migration on the wire: read it, check it, test a build against it.

    Exit codes: 0 good; 1 the thing examined is bad; 2 wrong usage or unusable input;
    3 environment problem; 4 not settled which side owns the guest; 130 cancelled.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Nothing is raised; stderr gets at most one line."""
    for stream in (sys.stdout, sys.stderr):
        # Names from the wire are decoded with surrogate escapes; printing one must not fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Young objects are nearly all alive here; at the usual 700 the collector takes a tenth of a `decode`;
    gc.set_threshold(50_000, 10, 10)
    # and there is nothing to find for the collections with which the interpreter ends.
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        _need_output()
        # Not `qmig.main()`: it turns Ctrl-C and a closed pipe into exit codes of its own.
        with qmig.make_context("qmig", list(sys.argv[1:] if arguments is None else arguments)) as context:
            code = qmig.invoke(context)
        sys.stdout.flush()
    except BaseException as problem:  # noqa: BLE001 - the last frame: every end of a command is a code and a line
        return _ended_by(problem)
    return int(code or 0)


def _need_output() -> None:
    """``>&-``: the interpreter has no stream where the descriptor is closed."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")


def _ended_by(problem: BaseException) -> int:
    if isinstance(problem, click.exceptions.Exit):
        return problem.exit_code
    if isinstance(problem, SystemExit):
        return problem.code if isinstance(problem.code, int) else int(problem.code is not None)
    if os.environ.get("QMIG_TRACEBACK"):
        raise problem
    if isinstance(problem, BrokenPipeError):
        _silence(sys.stdout)
    from qmig.cli.exits import exit_for, one_line

    code, line = exit_for(problem)
    if line:
        click.echo(f"qmig: {one_line(line)}", err=True)
    return int(code)


def _silence(stream: TextIO) -> None:
    """Lets the interpreter's last flush of `stream` succeed, although nobody reads it any more."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)
