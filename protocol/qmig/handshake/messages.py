"""The messages, one class each, and what may be said in them.

Source: `spec/v2`, chapter "Messages". Every message is one CBOR item `[type, body]` (HS-MSG).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from qmig import _cbor
from qmig._cbor import Bounds, CborError, Value
from qmig.errors import LocalProtocolError
from qmig.handshake import limits
from qmig.handshake.fields import (
    Anything,
    Blob,
    Body,
    FieldError,
    Flag,
    Group,
    ListOf,
    MapOf,
    Name,
    OneOf,
    Text,
    Tuple,
    UInt,
    body,
    key,
    maybe,
)

#: Texts for people, paths into a machine (HS-LIM-004).
TEXT = Text(limits.TEXT)
PATH = Text(limits.PATH)
SHA256 = Blob(32)
SESSION = Blob(16)
INDEX = UInt(65_535)
CODE = Name


class Type(enum.IntEnum):
    """Message numbers (`spec/registries/v2-messages.toml`)."""

    HELLO = 1
    ANSWER = 2
    MACHINE = 3
    VERDICT = 4
    COMMIT = 5
    ACCEPT = 6
    CHANNEL = 7
    CHANNEL_OK = 8
    READY = 9
    ABORT = 11
    BYE = 13
    RESUME = 16
    RESUME_ANSWER = 17
    SWITCH_ASK = 20
    SWITCH_GRANT = 21
    GIVE = 22
    TAKEN = 23
    INFO = 128


class Message(Body):
    """What all messages are. `type` is its number, `most` the bytes that its item may have."""

    type: ClassVar[int]
    most: ClassVar[int] = limits.MESSAGE

    def encode(self) -> bytes:
        """The item `[type, body]`. Raises LocalProtocolError for a value that has no place there."""
        try:
            written = self.write()
            type(self).read(written, type(self).__name__)
            item = _cbor.encode([self.type, written], BOUNDS)
        except (FieldError, ValueError) as problem:
            raise LocalProtocolError(str(problem), requirement="HS-MSG-001") from problem
        if len(item) > self.most:
            raise LocalProtocolError(
                f"{type(self).__name__} of {len(item)} bytes, more than {self.most}", requirement="HS-LIM-001"
            )
        return item


@body
class Offer(Body):
    """What S wants of one name."""

    value: Any = key(1, Anything)
    #: what else S would take: the least number for `min`
    bound: Any = maybe(2, Anything, default=None)
    #: without it S does not migrate; absent is false
    essential: bool | None = maybe(3, Flag, default=None)


@body
class Implementation(Body):
    """Who speaks. For people and for bug reports: nothing is decided by it."""

    name: str = key(1, TEXT)
    version: str = key(2, TEXT)
    build: str | None = maybe(3, TEXT, default=None)


@body
class Limits(Body):
    """What one side can take; absent keys stand for the defaults."""

    #: bytes of credit per stream and direction, in the mux profile
    window: int | None = maybe(1, UInt(limits.WINDOW_MOST), default=None)
    #: data connections that D can bind
    channels: int | None = maybe(2, UInt(65_535), default=None)


@body
class Finding(Body):
    """One difference between two machines."""

    rule: str = key(1, Text(limits.NAME))
    level: str = key(2, CODE)
    path: str | bytes | None = maybe(3, OneOf(PATH, Blob(most=limits.PATH)), default=None)
    field: str | None = maybe(4, PATH, default=None)
    source: Any = maybe(5, Anything, default=None)
    destination: Any = maybe(6, Anything, default=None)
    text: str | None = maybe(7, TEXT, default=None)
    hint: str | None = maybe(8, TEXT, default=None)
    who: str | None = maybe(9, CODE, default=None)


#: class of a description -> SHA-256
DIGESTS = MapOf(SHA256, limits.CLASSES)
#: indices of findings
ADMITTED = ListOf(UInt(limits.FINDINGS - 1), limits.FINDINGS)
FINDINGS = ListOf(Group(Finding), limits.FINDINGS)


@body
class Hello(Message):
    """The first message of each side."""

    type: ClassVar[int] = Type.HELLO
    most: ClassVar[int] = limits.FRAME_FIRST
    majors: tuple[int, ...] = key(1, ListOf(UInt(), limits.MAJORS))
    session: bytes = key(2, SESSION, secret=True)
    nonce: bytes = key(3, Blob(32), secret=True)
    profile: str | None = maybe(4, Name, default=None)
    offer: Mapping[str, Offer] | None = maybe(5, MapOf(Group(Offer), limits.OFFERS), default=None)
    implementation: Implementation | None = maybe(6, Group(Implementation), default=None)
    limits: Limits | None = maybe(7, Group(Limits), default=None)
    digests: Mapping[str, bytes] | None = maybe(8, DIGESTS, default=None)


@body
class Answer(Message):
    """D's results for every offered name."""

    type: ClassVar[int] = Type.ANSWER
    major: int = key(1, UInt())
    results: Mapping[str, tuple[Any, ...]] = key(2, MapOf(Tuple(UInt(), Anything, optional=1), limits.OFFERS))
    declared: Mapping[str, Any] | None = maybe(3, MapOf(Anything, limits.OFFERS), default=None)
    need: tuple[str, ...] | None = maybe(4, ListOf(Name, limits.CLASSES), default=None)


@body
class Machine(Message):
    """A machine description."""

    type: ClassVar[int] = Type.MACHINE
    most: ClassVar[int] = limits.MESSAGE_MACHINE
    schema: int = key(1, UInt())
    #: 0 CBOR as it is, 1 deflated
    encoding: int = key(2, UInt())
    data: bytes = key(3, Blob(most=limits.DESCRIPTION), secret=True)
    sha256: bytes = key(4, SHA256)


@body
class Verdict(Message):
    """What D found by comparing both machines."""

    type: ClassVar[int] = Type.VERDICT
    most: ClassVar[int] = limits.MESSAGE_VERDICT
    level: str = key(1, CODE)
    findings: tuple[Finding, ...] = key(2, FINDINGS)
    counts: Mapping[str, int] | None = maybe(3, MapOf(UInt(), limits.MAP, Text(limits.NAME)), default=None)
    sha256: bytes = key(4, SHA256)


@body
class Commit(Message):
    """What is agreed, and which channels will be opened."""

    type: ClassVar[int] = Type.COMMIT
    agreed: Mapping[str, Any] = key(1, MapOf(Anything, limits.OFFERS))
    #: (kind, index, when): when 0 is before READY, 1 later
    plan: tuple[tuple[Any, ...], ...] = key(2, ListOf(Tuple(Name, INDEX, UInt(1)), limits.CHANNELS))
    admitted: tuple[int, ...] | None = maybe(3, ADMITTED, default=None)
    hash: bytes = key(4, SHA256)


@body
class Accept(Message):
    """D has set what is agreed."""

    type: ClassVar[int] = Type.ACCEPT
    hash: bytes = key(1, SHA256)
    secret: bytes = key(2, Blob(32), secret=True)


@body
class Channel(Message):
    """The first frame of a data connection: which one it is, and the proof that it belongs here."""

    type: ClassVar[int] = Type.CHANNEL
    most: ClassVar[int] = limits.FRAME_CHANNEL
    session: bytes = key(1, SESSION, secret=True)
    kind: str = key(2, Name)
    index: int = key(3, INDEX)
    token: bytes = key(4, Blob(32), secret=True)


@body
class ChannelOk(Message):
    """D's proof on a data connection."""

    type: ClassVar[int] = Type.CHANNEL_OK
    most: ClassVar[int] = limits.FRAME_CHANNEL
    kind: str = key(1, Name)
    index: int = key(2, INDEX)
    token: bytes = key(3, Blob(32), secret=True)


@body
class Ready(Message):
    """All channels of the plan are bound: data may flow."""

    type: ClassVar[int] = Type.READY
    hash: bytes = key(1, SHA256)


@body
class Abort(Message):
    """Why a side ends the attempt; its last message."""

    type: ClassVar[int] = Type.ABORT
    most: ClassVar[int] = limits.MESSAGE_END
    code: str = key(1, CODE)
    text: str = key(2, TEXT)
    path: str | None = maybe(3, PATH, default=None)
    who: str | None = maybe(4, CODE, default=None)
    retry: str | None = maybe(5, CODE, default=None)
    findings: tuple[Finding, ...] | None = maybe(6, FINDINGS, default=None)
    cause: tuple[str, ...] | None = maybe(7, ListOf(TEXT, limits.CAUSES), default=None)
    majors: tuple[int, ...] | None = maybe(8, ListOf(UInt(), limits.MAJORS), default=None)


@body
class Stream(Body):
    """The stream that a detached manifest belongs to."""

    length: int = key(1, UInt())
    #: of the stream's first MiB
    sha256: bytes = key(2, SHA256)


@body
class Bye(Message):
    """The orderly end; a side's last message."""

    type: ClassVar[int] = Type.BYE
    most: ClassVar[int] = limits.MESSAGE_END
    outcome: str = key(1, CODE)
    text: str | None = maybe(2, TEXT, default=None)
    stream: Stream | None = maybe(3, Group(Stream), default=None)


@body
class Resume(Message):
    """S takes up an old session (`resume.v1`)."""

    type: ClassVar[int] = Type.RESUME
    #: 0 control only, 1 with data
    mode: int = key(1, UInt(1))
    proof: bytes = key(2, Blob(32), secret=True)
    agreed: bytes = key(3, SHA256)


@body
class ResumeAnswer(Message):
    """D takes it up too, and says what its record holds."""

    type: ClassVar[int] = Type.RESUME_ANSWER
    proof: bytes = key(1, Blob(32), secret=True)
    record: str = key(2, CODE)


@body
class SwitchAsk(Message):
    """S asks, before it stops the guest, whether its state can still be loaded (`recheck.v1`)."""

    type: ClassVar[int] = Type.SWITCH_ASK
    most: ClassVar[int] = limits.MESSAGE_MACHINE
    state: bytes = key(1, Blob(most=limits.DESCRIPTION), secret=True)


@body
class SwitchGrant(Message):
    """D's answer: 0 yes, 1 no."""

    type: ClassVar[int] = Type.SWITCH_GRANT
    most: ClassVar[int] = limits.MESSAGE_VERDICT
    code: int = key(1, UInt(1))
    findings: tuple[Finding, ...] | None = maybe(2, FINDINGS, default=None)


@body
class Give(Message):
    """S will not run the guest again unless D returns it (`handover.v1`)."""

    type: ClassVar[int] = Type.GIVE
    most: ClassVar[int] = limits.MESSAGE_END
    #: whether the guest ran before the migration, so that D starts it
    run: bool = key(1, Flag)


@body
class Taken(Message):
    """D has the guest (0), or will never run it (1)."""

    type: ClassVar[int] = Type.TAKEN
    most: ClassVar[int] = limits.MESSAGE_END
    code: int = key(1, UInt(1))
    finding: Finding | None = maybe(2, Group(Finding), default=None)


@body
class Info(Message):
    """Progress and liveness; may be ignored."""

    type: ClassVar[int] = Type.INFO
    bytes: int | None = maybe(1, UInt(), default=None)
    remaining: int | None = maybe(2, UInt(), default=None)
    text: str | None = maybe(3, TEXT, default=None)
    phase: str | None = maybe(4, CODE, default=None)


@dataclass(frozen=True, kw_only=True)
class Ignorable:
    """A message that this revision does not know and need not (types 128 and up)."""

    type: int
    body: Value

    def encode(self) -> bytes:
        return _cbor.encode([self.type, self.body], BOUNDS)


ALL: Final = (
    Hello, Answer, Machine, Verdict, Commit, Accept, Channel, ChannelOk, Ready, Abort, Bye,
    Resume, ResumeAnswer, SwitchAsk, SwitchGrant, Give, Taken, Info,
)  # fmt: skip
MESSAGES: Final[Mapping[int, type[Message]]] = {kind.type: kind for kind in ALL}
#: numbers that were given once and never will be again (HS-MSG-008)
WITHDRAWN: Final = frozenset({10, 12, 24, 129})
#: sent so that ignoring unknown messages stays possible (HS-MSG-023)
GREASE: Final = range(160, 176)
#: from here on a message may be ignored
IGNORABLE: Final = 128
#: highest message number
HIGHEST: Final = 65_535
BOUNDS: Final = Bounds(
    depth=limits.DEPTH,
    map_entries=limits.MAP,
    array_items=limits.ARRAY,
    text=limits.ANY_TEXT,
    items=limits.ITEMS,
)


class MessageError(Exception):
    """The item is no message that may be taken; `code` is the ABORT code for it."""

    def __init__(self, code: str, message: str, requirement: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.requirement = requirement


def most_for(start: bytes) -> int:
    """The bytes that an item beginning so may have; needs its first 4 bytes, or all of it."""
    number = _type_of(start)
    kind = MESSAGES.get(number) if number is not None else None
    return kind.most if kind is not None else limits.MESSAGE


def _type_of(start: bytes) -> int | None:
    """The type in `[type, …]`, if the head is in its shortest form."""
    if len(start) < 2 or start[0] != 0x82:
        return None
    if start[1] < 24:
        return start[1]
    if start[1] == 24 and len(start) > 2:
        return start[2]
    return int.from_bytes(start[2:4], "big") if start[1] == 25 and len(start) > 3 else None


def decode(item: bytes) -> Message | Ignorable:
    """The message that `item` is. Raises MessageError."""
    try:
        value = _cbor.decode(item, BOUNDS)
    except CborError as problem:
        code = "limit-exceeded" if problem.limit else "bad-encoding"
        raise MessageError(code, f"byte {problem.at} of a message: {problem.message}", "HS-ENC-001") from None
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int:
        raise MessageError("bad-encoding", "a message that is not [type, body]", "HS-MSG-001")
    number, content = value
    if not 0 <= number <= HIGHEST:
        raise MessageError("bad-encoding", f"{number} is no message number", "HS-MSG-001")
    kind = MESSAGES.get(number)
    if kind is None:
        if number < IGNORABLE:
            raise MessageError("unknown-message", f"message {number} is not known", "HS-MSG-003")
        return Ignorable(type=number, body=content)
    try:
        return kind.read(content, kind.__name__)
    except FieldError as problem:
        code = "limit-exceeded" if problem.limit else "bad-encoding"
        raise MessageError(code, str(problem), "HS-MSG-002") from None
