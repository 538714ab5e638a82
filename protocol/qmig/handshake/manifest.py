"""A handshake in one direction, in front of a file or beside it: what would have been offered and described.

    preamble `F` | HELLO (profile `file`) | MACHINE | BYE | PAD

Source: `spec/v2`, chapter "Manifest" (HS-FIL). Equal machines give equal bytes: nothing here is random, the
description is not deflated, and the session is the description's digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qmig.errors import TruncatedStream
from qmig.handshake import limits, transcript
from qmig.handshake.codes import AbortCode, ByeOutcome, Profile
from qmig.handshake.control import Control, EndOfControl, Incoming
from qmig.handshake.frames import HEADER, HandshakeError, pad_frame
from qmig.handshake.messages import (
    Bye,
    Hello,
    Ignorable,
    Implementation,
    Machine,
    Message,
    Offer,
    Stream,
)
from qmig.handshake.names import NAMES, Party
from qmig.handshake.preamble import Role


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a manifest says. `needed` are the names in use in the stream, `known` those that its writer
    knows."""

    description: bytes
    schema: int = 1
    needed: Mapping[str, object]
    known: Mapping[str, object]
    implementation: Implementation | None = None
    stream: Stream | None = None

    def unreadable(self, abilities: Mapping[str, object]) -> list[str]:
        """The names in use in the stream that a reader with these abilities does not have (HS-FIL-005)."""
        return sorted(
            name
            for name in self.needed
            if name not in abilities or name not in NAMES or NAMES[name].party is Party.RESERVED
        )

    def encode(self, *, in_front: bool = False) -> bytes:
        """The manifest's bytes; `in_front` pads them so that a stream can follow."""
        control = Control(Role.FILE, None)
        digest = transcript.sha256(self.description)
        offers = {
            **{name: Offer(value=value) for name, value in self.known.items()},
            **{name: Offer(value=value, essential=True) for name, value in self.needed.items()},
        }
        messages: list[Message] = [
            Hello(
                majors=(2,),
                session=digest[:16],
                nonce=bytes(32),
                profile=Profile.FILE.value,
                offer=offers,
                implementation=self.implementation,
            ),
            Machine(schema=self.schema, encoding=0, data=self.description, sha256=digest),
            Bye(outcome=ByeOutcome.SAVED.value, stream=self.stream),
        ]
        out = control.preamble() + b"".join(map(control.message, messages))
        if in_front:
            gap = -len(out) % limits.ALIGNMENT
            out += pad_frame(gap if gap >= HEADER else gap + limits.ALIGNMENT) if gap else b""
        return out


class ManifestReader:
    """Reads a manifest as its bytes come; `manifest` is there when BYE has been read, and `length` tells how
    many bytes it has with its padding once `whole` is true."""

    def __init__(self) -> None:
        self._control = Control(Role.FILE, Role.FILE)
        self._hello: Hello | None = None
        self._machine: Machine | None = None
        self._at = 0  # where the message begins that was read last
        self.manifest: Manifest | None = None

    @property
    def length(self) -> int:
        """Bytes up to the stream behind a manifest in front: the next multiple of 1 MiB (HS-FIL-008)."""
        return -(-self._control.reader.offset // limits.ALIGNMENT) * limits.ALIGNMENT

    def receive_data(self, data: bytes | memoryview) -> None:
        """Takes bytes; none is the end. Raises HandshakeError for what is no manifest."""
        self._control.receive_data(data)
        for message in self._messages():
            match message:
                case Hello() if self._hello is None:
                    self._hello = message
                case Machine() if self._hello is not None and self._machine is None:
                    self._machine = self._checked(message)
                case Bye() if self._machine is not None:
                    self.manifest = self._made(message)
                case Ignorable():
                    continue
                case _:
                    self._fail(AbortCode.UNEXPECTED_MESSAGE, f"{type(message).__name__} in a manifest")

    def _messages(self) -> Iterator[Message | Ignorable]:
        while self.manifest is None:
            found = self._control.next()
            if found is None:
                return
            if isinstance(found, EndOfControl):
                raise TruncatedStream(
                    "the manifest ends before BYE", requirement="HS-FIL-001",
                    offset=self._control.reader.offset, record="manifest",
                )  # fmt: skip
            if isinstance(found, Incoming):
                self._at = found.offset
                yield found.message

    def _checked(self, machine: Machine) -> Machine:
        if machine.encoding or transcript.sha256(machine.data) != machine.sha256:
            self._fail(AbortCode.BAD_ENCODING, "the description does not fit its digest")
        return machine

    def _made(self, bye: Bye) -> Manifest:
        assert self._hello is not None
        assert self._machine is not None
        offers = self._hello.offer or {}
        return Manifest(
            description=self._machine.data,
            schema=self._machine.schema,
            needed={name: offer.value for name, offer in offers.items() if offer.essential},
            known={name: offer.value for name, offer in offers.items() if not offer.essential},
            implementation=self._hello.implementation,
            stream=bye.stream,
        )

    def _fail(self, code: AbortCode, text: str) -> None:
        raise HandshakeError(code, text, requirement="HS-FIL-002", offset=self._at, record="manifest")
