"""What is said apart from a session's first connection, for the vectors of protocol v2: sessions resumed,
and manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from qmig._cbor import Value
from qmig.handshake import messages
from qmig.handshake.binding import Credentials
from qmig.handshake.codes import Record
from qmig.handshake.control import Control
from qmig.handshake.manifest import Manifest
from qmig.handshake.messages import Bye, Hello, Machine, Message
from qmig.handshake.preamble import Role
from qmig.handshake.resume import DestinationResume, SourceResume
from qmig.handshake.transcript import sha256
from qmig.testing import handshake as hs
from qmig.testing.handshake_form import diagnostic, failed, vector

AGREED: Final[Mapping[str, Value]] = {"handover.v1": True, "resume.v1": True}
NONCES: Final = (b"\x01" * 32, b"\x02" * 32)


def ends(data: bool, secret: bytes = hs.SECRET) -> tuple[SourceResume, DestinationResume]:
    """Both ends of a resumption; `secret` is what S believes it to be."""
    source = SourceResume(
        session=hs.SESSION, secret=secret, agreed=AGREED, nonce=NONCES[0], grease=hs.grease(20), data=data
    )
    known = (Credentials(hs.SESSION, hs.SECRET), AGREED)
    destination = DestinationResume(
        lambda session: known if session == hs.SESSION else None, nonce=NONCES[1], grease=hs.grease(60)
    )
    return source, destination


def resumptions() -> Iterator[dict[str, Any]]:
    """Whole connections up to RESUME-ANSWER, or to the refusal."""
    for mode, record in ((0, Record.HELD), (1, Record.RAN), (0, Record.RETURNED)):
        yield _resumption(f"mode-{mode}-{record}", f"mode {mode}, D's record is {record}", bool(mode), record)
    yield _resumption("wrong-secret", "S does not know the secret", False, None)


def _resumption(name: str, comment: str, data: bool, record: Record | None) -> dict[str, Any]:
    source, destination = ends(data, hs.SECRET if record else bytes(32))
    said = {"source": b"", "destination": b""}
    for _ in range(3):
        for side, end, other in (("source", source, destination), ("destination", destination, source)):
            if part := end.data_to_send():
                said[side] += part
                other.receive_data(part)
    if record is not None:
        said["destination"] += b"".join(destination.answer(record))
    expect = {
        "agreed": diagnostic(dict(AGREED)),
        "nonces": [nonce.hex() for nonce in NONCES],
        "secret": hs.SECRET.hex(),
        "record": record.value if record else None,
        "refused": destination.reason.code if destination.reason else None,
        "next": destination.next_secret.hex(),
    }
    return vector(name, comment, "resumption", said, {"decoding": expect}, ("grease",))


# -- manifests --------------------------------------------------------------------------------------------

MANIFEST: Final = Manifest(
    description=hs.DESCRIPTION,
    needed={"mapped-ram": True, "multifd-channels": 2},
    known={"postcopy-ram": True, "org.example/x": 1},
    implementation=messages.Implementation(name="qmig", version="test"),
    stream=messages.Stream(length=9, sha256=bytes(32)),
)


def manifests() -> Iterator[dict[str, Any]]:
    """Detached ones; one in front of a stream differs by its PAD."""
    whole = {
        "description": hs.DESCRIPTION.hex(),
        "needed": diagnostic(dict(sorted(MANIFEST.needed.items()))),
        "known": diagnostic(dict(sorted(MANIFEST.known.items()))),
        "stream": [9, bytes(32).hex()],
    }
    yield vector(
        "detached",
        "all that a manifest can say",
        "manifest",
        {"main": MANIFEST.encode()},
        {"decoding": whole},
    )
    hello = Hello(majors=(2,), session=bytes(16), nonce=bytes(32), profile="file")
    machine = Machine(schema=1, encoding=0, data=b"\xa0", sha256=sha256(b"\xa0"))
    other = Machine(schema=1, encoding=0, data=b"\xa0", sha256=bytes(32))
    bye = Bye(outcome="saved")
    rows: tuple[tuple[str, str, tuple[Message, ...], str], ...] = (
        ("no-description", "BYE behind HELLO", (hello, bye), "unexpected-message"),
        ("twice", "two descriptions", (hello, machine, machine), "unexpected-message"),
        ("another-digest", "a description that does not fit its digest", (hello, other), "bad-encoding"),
    )
    for name, comment, parts, code in rows:
        control = Control(Role.FILE, None)
        said = [control.preamble(), *map(control.message, parts)]
        data = b"".join(said)
        expect = failed(code, len(data) - len(said[-1]), "HS-FIL-002", "manifest")
        yield vector(name, comment, "manifest", {"main": data}, expect)
