"""Vectors of protocol v2: fresh, read whole, byte by byte and with bytes behind, played from each side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from qmig import _cbor
from qmig._cbor import Bounds, CborError
from qmig.handshake import messages, transcript
from qmig.handshake.codes import Record
from qmig.handshake.control import Control, EndOfControl, Incoming
from qmig.handshake.events import NEED_DATA, Do, Ended
from qmig.handshake.frames import HandshakeError
from qmig.handshake.manifest import ManifestReader
from qmig.handshake.messages import Message, MessageError
from qmig.handshake.preamble import Preamble, Role
from qmig.spec.vectors import Vector
from qmig.testing import handshake_apart as apart
from qmig.testing import load_vectors, spec_root
from qmig.testing.handshake_form import diagnostic
from qmig.testing.handshake_plays import SESSIONS, play
from qmig.testing.handshake_vectors import answer_of, documents

VECTORS = list(load_vectors("v2/"))


def of(reader: str) -> list[Any]:
    return [pytest.param(vector, id=vector.id) for vector in VECTORS if vector.reader == reader]


def test_they_are_what_the_tool_makes_now() -> None:
    folder = spec_root() / "vectors" / "v2"
    made = {name: json.dumps(document, indent=1, ensure_ascii=False) + "\n" for name, document in documents()}
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")} == made


def test_every_kind_of_result_and_message_is_there() -> None:
    assert {vector.result for vector in VECTORS} == {"valid", "invalid", "acceptable"}
    shown = {vector.id.partition("#")[2] for vector in VECTORS if vector.reader == "message"}
    assert {kind.cddl_name() for kind in messages.ALL} <= shown
    assert len(VECTORS) > 150


@pytest.mark.parametrize("vector", of("item"))
def test_items(vector: Vector) -> None:
    """HS-ENC-001, HS-NEG-009."""
    data = vector.data()
    if vector.result == "valid":
        value = _cbor.decode(data)
        assert diagnostic(value) == vector.expect["decoding"]
        assert _cbor.encode(value) == data
        assert cbor2.loads(data) == value
        for size in range(len(data)):
            with pytest.raises(CborError):
                _cbor.decode(data[:size])
        with pytest.raises(CborError, match="behind the item"):
            _cbor.decode(data + b"\x00")
    else:
        with pytest.raises(CborError) as problem:
            _cbor.decode(data)
        assert problem.value.at == vector.expect["offset"]
        code = "limit-exceeded" if problem.value.limit else "bad-encoding"
        assert code == vector.expect["code"]


@pytest.mark.parametrize("vector", of("message"))
def test_messages(vector: Vector) -> None:
    """HS-MSG-002, HS-MSG-003, HS-MSG-004, HS-MSG-005, HS-ENC-012."""
    item = vector.data()
    if vector.result != "invalid":
        message = messages.decode(item)
        number, body = _cbor.decode(item)
        assert {"type": number, "body": diagnostic(body)} == vector.expect["decoding"]
        assert message.encode() == item
        with pytest.raises(MessageError):
            messages.decode(item + b"\x00")
        for size in range(len(item)):
            with pytest.raises(MessageError):
                messages.decode(item[:size])
    else:
        with pytest.raises(MessageError) as problem:
            messages.decode(item)
        assert problem.value.code == vector.expect["code"]
        assert problem.value.requirement == vector.expect["requirement"]


#: what CDDL cannot say: bounds that hold for any text
UNSAID = {"text-over"}


@pytest.fixture(scope="session")
def checker() -> Any:
    verifier = pytest.importorskip("cddl_verifier", reason="no CDDL checker: pip install cddl-verifier")
    return verifier.Validator((spec_root() / "v2" / "handshake.cddl").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", of("message"))
def test_the_cddl_says_the_same(vector: Vector, checker: Any) -> None:
    found = checker.validate(vector.data(), "message")
    name = vector.id.partition("#")[2]
    assert found.valid is (vector.result != "invalid" or name in UNSAID), found.errors


# -- one direction of control -----------------------------------------------------------------------------


def listen(data: bytes, step: int) -> list[Any]:
    """What one direction of control holds, its bytes fed `step` at a time and then its end."""
    control = Control(Role.DESTINATION, Role.SOURCE)
    found: list[Any] = []
    for at in range(0, len(data) + step, step):
        control.receive_data(data[at : at + step])
        while (item := control.next()) is not None:
            match item:
                case Preamble():
                    found.append(f"preamble {chr(item.role)}")
                case Incoming(message=Message() as message):
                    size = control.reader.offset - item.offset
                    found.append([type(message).cddl_name(), item.offset, size])
                case EndOfControl():
                    found += [] if item.clean else ["cut"]
                case _:
                    found.append(item)
    return found


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("vector", of("control"))
def test_control(vector: Vector, step: int) -> None:
    """HS-PRE-003, HS-PRE-009, HS-FRM-002, HS-FRM-007, HS-FRM-008, HS-FRM-009, HS-FRM-012."""
    if vector.result == "valid":
        assert listen(vector.data(), step) == vector.expect["decoding"]
    else:
        with pytest.raises(HandshakeError) as problem:
            listen(vector.data(), step)
        assert problem.value.code == vector.expect["code"]
        if vector.expect["code"] != "limit-exceeded" or vector.expect["requirement"] != "HS-LIM-001":
            assert problem.value.offset == vector.expect["offset"]
        assert problem.value.record == vector.expect["record"]


@pytest.mark.parametrize("vector", of("answer"))
def test_answers(vector: Vector) -> None:
    """HS-NEG-002, HS-NEG-012, HS-NEG-013, HS-NEG-014, HS-NEG-025."""
    offer, abilities, conflicts = (
        _cbor.decode(vector.data(name)) for name in ("offer", "abilities", "conflicts")
    )
    assert diagnostic(answer_of(offer, abilities, conflicts)) == vector.expect["decoding"]


@pytest.mark.parametrize("vector", of("transcript"))
def test_transcripts(vector: Vector) -> None:
    """HS-TRN-001, HS-TRN-003."""
    hashes = []
    for side in ("source", "destination"):
        running = transcript.Running()
        for at in range(len(vector.data(side))):
            running.add(vector.data(side)[at : at + 1])
        hashes.append(running.now())
    expect = vector.expect["decoding"]
    assert [each.hex() for each in hashes] == [expect["hs"], expect["hd"]]
    for name, label in (
        ("commit", transcript.COMMIT),
        ("accept", transcript.ACCEPT),
        ("ready", transcript.READY),
    ):
        assert transcript.point(label, *hashes).hex() == expect[name]


@pytest.mark.parametrize("vector", of("token"))
def test_tokens(vector: Vector) -> None:
    """HS-CHN-007, HS-CHN-008."""
    kind, index = _cbor.decode(vector.data("place"))
    for name, label in (("token", transcript.CHANNEL), ("token-ok", transcript.CHANNEL_OK)):
        made = transcript.token(
            vector.data("secret"),
            vector.data("session"),
            kind,
            index,
            label=label,
            exporter=vector.data("exporter"),
        )
        assert made.hex() == vector.expect["decoding"][name]


@pytest.mark.parametrize("vector", of("resume"))
def test_proofs(vector: Vector) -> None:
    secret, hashes = vector.data("secret"), (vector.data("hs"), vector.data("hd"))
    expect = vector.expect["decoding"]
    assert transcript.proof(secret, transcript.RESUME_SOURCE, *hashes).hex() == expect["proof-source"]
    assert (
        transcript.proof(secret, transcript.RESUME_DESTINATION, *hashes).hex() == expect["proof-destination"]
    )
    nonces = vector.data("source-nonce"), vector.data("destination-nonce")
    assert transcript.next_secret(secret, *nonces).hex() == expect["next"]


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("vector", of("resumption"))
def test_resumptions(vector: Vector, step: int) -> None:
    """HS-RES-002, HS-RES-003, HS-RES-004: each side alone, the other's bytes from the vector."""
    expect = vector.expect["decoding"]
    secret = bytes.fromhex(expect["secret"]) if expect["record"] else bytes(32)
    said = {side: vector.data(side) for side in ("source", "destination")}
    source, destination = apart.ends("mode-1" in vector.id, secret)
    ours = source.data_to_send()
    for at in range(0, len(said["destination"]), step):
        source.receive_data(said["destination"][at : at + step])
        ours += source.data_to_send()
    theirs = b""
    for at in range(0, len(said["source"]), step):
        destination.receive_data(said["source"][at : at + step])
        theirs += destination.data_to_send()
    if expect["record"]:
        assert (source.record, source.next_secret.hex()) == (expect["record"], expect["next"])
        theirs += b"".join(destination.answer(Record(expect["record"])))
    else:
        assert source.reason is not None
        assert destination.reason is not None
        assert source.reason.code == destination.reason.code == expect["refused"]
    assert (ours, theirs) == (said["source"], said["destination"])


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("vector", of("manifest"))
def test_manifests(vector: Vector, step: int) -> None:
    """HS-FIL-001, HS-FIL-002: also with a stream behind it."""
    if vector.result == "invalid":
        with pytest.raises(HandshakeError) as problem:
            read_manifest(vector.data(), step)
        assert problem.value.code == vector.expect["code"]
        assert problem.value.offset == vector.expect["offset"]
        return
    for behind in (b"", b"QEVM\0\0\0\3"):
        reader = read_manifest(vector.data() + behind, step)
        assert reader.manifest == apart.MANIFEST
        assert reader.manifest.description.hex() == vector.expect["decoding"]["description"]


def read_manifest(data: bytes, step: int) -> ManifestReader:
    reader = ManifestReader()
    for at in range(0, len(data), step):
        reader.receive_data(data[at : at + step])
    return reader


# -- whole sessions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [0, 1, 5])
@pytest.mark.parametrize("row", SESSIONS, ids=lambda row: row[0])
def test_a_session_is_the_same_however_it_is_cut(row: Any, chunk: int) -> None:
    """HS-MSG-018, HS-MSG-019, HS-MSG-021."""
    (vector,) = (vector for vector in VECTORS if vector.id == f"v2/sessions#{row[0]}")
    pair = play(row[2], row[3], chunk)
    for side in ("source", "destination"):
        assert bytes(pair.said[side]) == vector.data(side)
        expect = vector.expect["decoding"][side]
        end = pair.source if side == "source" else pair.destination
        assert (pair.does(side), end.state.value, pair.outcome(side)) == (
            expect["asked"], expect["state"], expect["outcome"],
        )  # fmt: skip


class Alone:
    """One side of a recorded session: the other side's bytes come from the vector."""

    def __init__(self, vector: Vector, row: Any, side: str, step: int) -> None:
        self.pair = row[2]()
        self.side = side
        self.other = "destination" if side == "source" else "source"
        self.end: Any = getattr(self.pair, side)
        self.vector = vector
        self.step = step
        self.said = bytearray()
        self.asked: list[str] = []
        self.steps = list(row[3])

    def play(self) -> None:
        at = 0
        self.pair.bind = self.bind
        for who, what in self.vector.expect["decoding"]["turns"]:
            if who == self.side and isinstance(what, str):
                values = {} if what == "start" else self.steps.pop(0)[2]
                getattr(self.end, what)(**values)
            elif who == self.other and isinstance(what, str) and what != "start":
                self.steps.pop(0)
            elif who == self.other and isinstance(what, int):
                data = self.vector.data(who)[at : at + what]
                at += what
                for start in range(0, len(data), self.step):
                    self.end.receive_data(data[start : start + self.step])
                    self.turn()
            self.turn()

    def turn(self) -> None:
        while True:
            event = self.end.next_event()
            self.said += self.end.data_to_send()
            if event is NEED_DATA:
                return
            if isinstance(event, Do):
                self.asked.append(event.action.value)
                if event.action.value not in self.pair.held:
                    getattr(self.pair, f"_{self.side}_does")(event)
                if self.side == "destination" and event.action.value == "send ACCEPT":
                    self.bind_all()
            if (
                self.side == "destination"
                and self.end.state.value == "binding"
                and not isinstance(event, Ended)
            ):
                self.bind_all()

    def bind_all(self) -> None:
        for name in sorted(self.vector.channels):
            if name.startswith("source-"):
                _, kind, index = name.split("-")
                if (kind, int(index)) not in self.end._bound:
                    self.bind(kind, int(index))

    def bind(self, kind: str, index: int) -> None:
        ours, theirs = f"{self.side}-{kind}-{index}", f"{self.other}-{kind}-{index}"
        if self.side == "source":
            binding = self.end.binding(kind, index)
            assert binding.hello() == self.vector.data(ours)
            for byte in self.vector.data(theirs):
                assert binding.reason is None
                binding.receive_data(bytes([byte]))
            self.end.channel_bound(binding)
        else:
            from qmig.handshake.binding import DestinationBinding

            request = DestinationBinding()
            for byte in self.vector.data(theirs):
                request.receive_data(bytes([byte]))
            assert self.end.bind(request) == self.vector.data(ours)


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("row", SESSIONS, ids=lambda row: row[0])
def test_one_side_says_what_it_said(row: Any, side: str, step: int) -> None:
    """HS-MSG-006, HS-MSG-010, HS-MSG-011, HS-MSG-014, HS-MSG-015, HS-MSG-016, HS-MSG-017."""
    (vector,) = (vector for vector in VECTORS if vector.id == f"v2/sessions#{row[0]}")
    alone = Alone(vector, row, side, step)
    alone.play()
    assert bytes(alone.said) == vector.data(side)
    assert alone.asked == vector.expect["decoding"][side]["asked"]


@pytest.mark.parametrize("row", SESSIONS, ids=lambda row: row[0])
def test_bytes_behind_a_last_message_are_discarded(row: Any) -> None:
    pair = play(row[2], row[3])
    for end in (pair.source, pair.destination):
        if end.state.value == "end":
            end.receive_data(b"\x05 what is this?")
            assert end.next_event() is NEED_DATA
            assert end.data_to_send() == b""


def test_a_bound_of_the_encoding_is_no_matter_of_the_cddl() -> None:
    """`text-over` and `ext-array` above: what CDDL lets pass there, the decoder refuses."""
    with pytest.raises(CborError):
        _cbor.decode(_cbor.encode("x" * 4097, Bounds(text=5000)))


def test_the_file_is_readable_without_our_code() -> None:
    for path in (spec_root() / "vectors" / "v2").glob("*.json"):
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        assert all(set(channel) == {"hex"} for v in raw["vectors"] for channel in v["channels"].values())
