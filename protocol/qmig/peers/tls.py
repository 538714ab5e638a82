"""TLS with x509 certificates, from a folder laid out as for QEMU's ``tls-creds-x509``.

Both sides: ``ca-cert.pem``; a listening side: ``server-cert.pem`` and ``server-key.pem``; a connecting side:
``client-cert.pem`` and ``client-key.pem`` where the other one verifies its peer.

PSK is left out: the standard library has it from Python 3.13 on only.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from qmig.errors import EnvironmentProblem
from qmig.peers.channel import Channel, ChannelBroken, Data, SocketChannel


@dataclass(frozen=True, slots=True)
class TlsCredentials:
    """What one side knows of the other and shows of itself."""

    folder: Path
    #: a listening side demands a certificate of the one that connects, as ``verify-peer=yes`` does
    verify_peer: bool = True
    #: the name in the listening side's certificate, as ``tls-hostname``; default: the host of the address
    hostname: str = ""

    def context(self, *, server: bool) -> ssl.SSLContext:
        """The settings of one side. Raises EnvironmentProblem if a file is missing or no good."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # An end without a goodbye is told apart from one with (`TlsChannel.cut`), whatever the default here.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        side = "server" if server else "client"
        certificate, key = self.folder / f"{side}-cert.pem", self.folder / f"{side}-key.pem"
        try:
            context.load_verify_locations(self.folder / "ca-cert.pem")
            if server or certificate.exists():
                context.load_cert_chain(certificate, key)
        except OSError as problem:  # ssl.SSLError is one
            reason = problem.strerror or problem
            raise EnvironmentProblem(f"TLS credentials of a {side} in {self.folder}: {reason}") from problem
        if server and self.verify_peer:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class TlsChannel(Channel):
    """TLS over a socket. The handshake runs with the first use, so that a peer that says nothing delays
    nobody but whoever waits for it."""

    def __init__(
        self, channel: SocketChannel, context: ssl.SSLContext, *, server: bool, hostname: str | None = None
    ) -> None:
        super().__init__(f"{channel.name} (TLS)")
        self._below = channel
        self._stream = trio.SSLStream(
            channel.stream, context, server_side=server, server_hostname=hostname or None
        )
        #: the other side went without its close_notify, as QEMU up to 9.1 does: the stream's own marks must
        #: tell whether it was complete
        self.cut = False
        self._met = False

    async def handshake(self) -> None:
        """Both sides know each other behind this."""
        with self._breaking():
            await self._stream.do_handshake()
        self._met = True

    async def receive_into(self, buffer: memoryview) -> int:
        if not self._met:
            await self.handshake()
        try:
            with self._breaking():
                piece = await self._stream.receive_some(len(buffer))
        except ChannelBroken as problem:
            broken = problem.__cause__
            if broken is None or not _is_cut(broken.__cause__):
                raise
            self.cut = True
            return 0
        buffer[: len(piece)] = piece
        return len(piece)

    async def send_all(self, data: Data) -> None:
        with self._breaking():
            await self._stream.send_all(data)

    async def send_eof(self) -> None:
        """TLS cannot close one direction here; `aclose` says the end."""
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._below.abort()

    async def aclose(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # no way left to say goodbye
            await self._stream.aclose()


def _is_cut(problem: BaseException | None) -> bool:
    """Whether the other side went without a goodbye; Python before 3.11.4 has no type for it."""
    if isinstance(problem, ssl.SSLEOFError):
        return True
    return isinstance(problem, ssl.SSLError) and problem.reason == "UNEXPECTED_EOF_WHILE_READING"
