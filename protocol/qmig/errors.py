"""Every exception that leaves the library.

Rule 1: input from a peer or a file can only raise a `RemoteProtocolError`.
Rule 2: a value that the caller made wrong raises a `LocalProtocolError`.
Codecs raise the local kind, because the same check serves what we build and what
we read; `localised` is the one place where a reader turns it into the remote kind.
"""

from __future__ import annotations


class QmigError(Exception):
    """Base of all exceptions of this package."""


class EnvironmentProblem(QmigError):
    """Something around us is missing or failed: a QEMU build, its monitor, a package, the network."""


class ProtocolError(QmigError):
    """The wire format was violated, by us or by the peer.

    `requirement` is the id of the violated statement in `spec/`.
    """

    def __init__(self, message: str, *, requirement: str) -> None:
        super().__init__(message)
        self.message = message
        self.requirement = requirement


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the wire format cannot carry."""


class RemoteProtocolError(ProtocolError):
    """The bytes that were read violate the format.

    `offset` is absolute in its channel (bytes since the first byte given to the
    reader, plus the reader's base offset); `record` names the record being read;
    `channel` is set by multi-channel readers.
    """

    def __init__(
        self, message: str, *, requirement: str, offset: int, record: str, channel: str | None = None
    ) -> None:
        super().__init__(message, requirement=requirement)
        self.offset = offset
        self.record = record
        self.channel = channel

    def __str__(self) -> str:
        where = f"{self.channel}: " if self.channel else ""
        return f"{where}offset {self.offset:#x}, {self.record}: {self.message} [{self.requirement}]"


class TruncatedStream(RemoteProtocolError):
    """The input ended inside a record; everything before it was delivered."""


class LimitExceeded(RemoteProtocolError):
    """A length or count asks for more than `qmig.limits` allows."""


class UnsupportedFeature(RemoteProtocolError):
    """The format is known and valid as far as seen, but this reader cannot go on."""


def localised(error: LocalProtocolError, *, offset: int, record: str) -> RemoteProtocolError:
    """The remote twin of a codec's complaint about bytes found at `offset`."""
    return RemoteProtocolError(error.message, requirement=error.requirement, offset=offset, record=record)
