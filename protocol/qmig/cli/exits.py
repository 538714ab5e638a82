"""Exit codes, and the one line with which a command ends when it cannot go on.

Both are promises of every command. The mapping from exceptions to exit codes stands here and nowhere
else: commands raise, `qmig.cli.main` prints.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable
from typing import Final

import click

from qmig.errors import (
    EnvironmentProblem,
    LimitExceeded,
    ProtocolError,
    QmigError,
    RemoteProtocolError,
    UnsupportedFeature,
)


class Exit(enum.IntEnum):
    GOOD = 0
    #: The thing examined is bad: not conforming, incompatible, refused.
    BAD = 1
    #: Wrong usage, or an input that cannot be used for what was asked.
    USAGE = 2
    #: Something around us is missing or taken: a QEMU, a port, a package, disk space.
    ENVIRONMENT = 3
    #: It is not settled which side owns the guest.
    UNSETTLED = 4
    CANCELLED = 130


class CommandError(Exception):
    """Ends a command. `message` says what, where and what to do, in one line."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


#: What no fault of the input is: it may be right, and this reader cannot go on. Such an input is unusable.
BEYOND_US: Final = (LimitExceeded, UnsupportedFeature)


def verdict(problems: Iterable[object]) -> Exit:
    """The exit code for what was found in an input: one fault is enough to call it bad."""
    found = list(problems)
    if not found:
        return Exit.GOOD
    return Exit.USAGE if all(isinstance(problem, BEYOND_US) for problem in found) else Exit.BAD


#: An input that the user named and that cannot be used is usage; every other system error is environment.
_INPUT_ERRNOS = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP})


def exit_for(problem: BaseException) -> tuple[Exit, str]:
    """The exit code and the line (without the leading ``qmig: ``; empty: print nothing) for an exception.

    Total: an exception that nobody foresaw is a defect of qmig and is named as one.
    """
    match problem:
        case CommandError():
            return problem.code, str(problem)
        case click.ClickException():
            return Exit.USAGE, _click_line(problem)
        case KeyboardInterrupt() | click.Abort():
            return Exit.CANCELLED, "cancelled"
        case BrokenPipeError():
            # The reader of our output has gone (`qmig decode … | head`): it wants no more, and no complaint.
            return Exit.CANCELLED, ""
        case RemoteProtocolError():
            return verdict([problem]), str(problem)
        case ProtocolError():
            return Exit.USAGE, f"{problem} [{problem.requirement}]"
        case EnvironmentProblem():
            return Exit.ENVIRONMENT, str(problem)
        case QmigError():
            return Exit.USAGE, str(problem)
        case OSError():
            code = Exit.USAGE if problem.errno in _INPUT_ERRNOS else Exit.ENVIRONMENT
            return code, _os_error_line(problem)
        case MemoryError():
            return Exit.ENVIRONMENT, "out of memory"
        case _:
            return Exit.ENVIRONMENT, f"{_defect_line(problem)}; set QMIG_TRACEBACK=1 for details"


def one_line(text: str) -> str:
    """`text` fit for a terminal: names come from the wire, and may hold line ends and escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _click_line(problem: click.ClickException) -> str:
    if not isinstance(problem, click.UsageError):
        return problem.format_message()
    path = problem.ctx.command_path if problem.ctx else "qmig"
    return f"{problem.format_message().rstrip('.')}; see '{path} --help'"


def _os_error_line(problem: OSError) -> str:
    reason = problem.strerror or str(problem) or type(problem).__name__
    return f"{problem.filename}: {reason}" if problem.filename is not None else reason


def _defect_line(problem: BaseException) -> str:
    trace = problem.__traceback__
    where = "unknown place"
    while trace is not None:
        where = f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"defect in qmig: {type(problem).__name__}: {problem} at {where}"
