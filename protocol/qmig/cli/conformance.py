"""``qmig conformance``: the suite, in a process of its own.

`qmig` never imports `qmig_conformance`: the suite brings pytest, which a user of the library need not
have. The child is ``python -m qmig_conformance`` and ends with pytest's exit codes (an environment
problem is ``pytest.exit(reason, returncode=3)``); they are mapped to ours here.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.util import find_spec

import click

from qmig.cli.exits import CommandError, Exit

#: pytest.ExitCode by value: OK, TESTS_FAILED, INTERRUPTED, INTERNAL_ERROR, USAGE_ERROR, NO_TESTS_COLLECTED.
EXIT_OF_PYTEST = {
    0: Exit.GOOD,
    1: Exit.BAD,
    2: Exit.CANCELLED,
    3: Exit.ENVIRONMENT,
    4: Exit.USAGE,
    5: Exit.USAGE,
}


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def conformance(arguments: tuple[str, ...]) -> int:
    """Run the conformance suite; `qmig conformance --help` lists its own commands."""
    for module in ("qmig_conformance", "pytest", "pytest_trio"):
        if find_spec(module) is None:
            raise CommandError(
                f"the conformance suite needs {module}; install it with: pip install 'qmig[conformance]'",
                Exit.ENVIRONMENT,
            )
    return int(run_module("qmig_conformance", arguments))


def run_module(module: str, arguments: tuple[str, ...]) -> Exit:
    """Runs ``python -m module`` to its end and maps its exit code.

    Ctrl-C reaches the child too (same process group), which then ends its QEMUs and reports; so the
    parent waits for it rather than dying first. A termination signal is passed on.
    """
    # -P: the child imports the installed packages, not whatever lies in the current directory.
    with subprocess.Popen([sys.executable, "-P", "-m", module, *arguments]) as child:
        old = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number)),
        }
        try:
            code = child.wait()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
    if code in (-signal.SIGINT, -signal.SIGTERM):
        return Exit.CANCELLED
    if code not in EXIT_OF_PYTEST:
        raise CommandError(f"{module} ended with unexpected status {code}", Exit.ENVIRONMENT)
    return EXIT_OF_PYTEST[code]
