"""Where a migration goes to or comes from, written as QEMU writes it.

    tcp:HOST:PORT   unix:PATH   vsock:CID:PORT   fd:N   exec:COMMAND   file:PATH[,offset=N]

Source: QAPI `MigrationAddress`, 8.2 and later; the texts are older (`migrate`, LEG-TRN).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from qmig.errors import QmigError

_UNITS: Final = {unit: 10 * power for power, unit in enumerate("KMGTPE", 1)}
_SIZE: Final = re.compile(r"(?P<hex>0[xX][0-9a-fA-F]+)|(?P<count>\d+)(?P<unit>[bBkKmMgGtTpPeE]?)")
_U32: Final = (1 << 32) - 1


class AddressError(QmigError):
    """A text is no address, or none that can be used for what was asked."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """`host` may be empty: any address when listening, this machine when connecting."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class VsockAddress:
    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock:{self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class FdAddress:
    """An inherited descriptor: a connected socket, a pipe or a file."""

    number: int

    def __str__(self) -> str:
        return f"fd:{self.number}"


@dataclass(frozen=True, slots=True)
class ExecAddress:
    """A shell command: written to by a source, read from by a destination."""

    command: str

    def __str__(self) -> str:
        return f"exec:{self.command}"


@dataclass(frozen=True, slots=True)
class FileAddress:
    path: str
    #: bytes of the file before the stream
    offset: int = 0

    def __str__(self) -> str:
        return f"file:{self.path}" + (f",offset={self.offset:#x}" if self.offset else "")


Address: TypeAlias = TcpAddress | UnixAddress | VsockAddress | FdAddress | ExecAddress | FileAddress


def parse_address(text: str) -> Address:
    """The address that `text` names. Raises AddressError, which says what is wrong with it."""
    scheme, colon, rest = text.partition(":")
    reader = _READERS.get(scheme) if colon else None
    if reader is None:
        known = ", ".join(f"{name}:" for name in _READERS)
        raise AddressError(f"{text!r} is no migration address: it does not begin with one of {known}")
    if not rest:
        raise AddressError(f"{text!r} names nothing behind '{scheme}:'")
    return reader(text, rest)


def _tcp(text: str, rest: str) -> Address:
    place, comma, options = rest.partition(",")
    if comma:
        raise AddressError(f"{text!r}: options of a tcp address ({options!r}) are not supported")
    host, colon, port = place.rpartition(":")
    if not colon:
        raise AddressError(f"{text!r} has no port: tcp:HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text!r}: an IPv6 address stands in brackets: tcp:[{host}]:{port}")
    return TcpAddress(host, _number(text, "port", port, 65_535))


def _vsock(text: str, rest: str) -> Address:
    cid, colon, port = rest.partition(":")
    if not colon:
        raise AddressError(f"{text!r} has no port: vsock:CID:PORT")
    return VsockAddress(_number(text, "cid", cid, _U32), _number(text, "port", port, _U32))


def _fd(text: str, rest: str) -> Address:
    return FdAddress(_number(text, "descriptor", rest, (1 << 31) - 1))


def _file(text: str, rest: str) -> Address:
    path, found, size = rest.partition(",offset=")
    if not path:
        raise AddressError(f"{text!r} names no file")
    return FileAddress(path, _size(text, size) if found else 0)


def _number(text: str, what: str, digits: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", digits) or int(digits) > most:
        raise AddressError(f"{text!r}: {what} {digits!r} is no number from 0 to {most}")
    return int(digits)


def _size(text: str, size: str) -> int:
    match = _SIZE.fullmatch(size)
    number = -1
    if match and match["hex"]:
        number = int(match["hex"], 16)
    elif match:
        number = int(match["count"]) << _UNITS.get(match["unit"].upper(), 0)
    if not 0 <= number < 1 << 63:
        raise AddressError(f"{text!r}: offset {size!r} is no size below 8 EiB (such as 4096, 0x1000, 1M)")
    return number


_READERS: Final = {
    "tcp": _tcp,
    "unix": lambda _, rest: UnixAddress(rest),
    "vsock": _vsock,
    "fd": _fd,
    "exec": lambda _, rest: ExecAddress(rest),
    "file": _file,
}
