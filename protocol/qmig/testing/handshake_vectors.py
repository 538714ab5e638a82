"""The vectors of protocol v2: `tools/v2_vectors.py` writes them to `spec/vectors/v2`, tests hold them fresh.

What is in them follows from the statements that each names; the bytes come out of the core, and are held
against cbor2 and the CDDL by the tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qmig import _cbor
from qmig._cbor import Value
from qmig.handshake import frames, limits, messages, negotiate, transcript
from qmig.handshake.frames import Flag, FrameHeader, Kind
from qmig.handshake.messages import Offer
from qmig.handshake.preamble import Preamble, Role
from qmig.testing import handshake as hs
from qmig.testing.handshake_apart import manifests, resumptions
from qmig.testing.handshake_form import diagnostic, failed, file_of, vector
from qmig.testing.handshake_plays import SESSIONS, recorded
from qmig.testing.handshake_samples import BAD_ITEMS, BAD_MESSAGES, GOOD_ITEMS, LATER, SAMPLES


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and content of each."""
    yield "encoding.json", file_of("Deterministic CBOR: one item", list(_items()))
    yield "messages.json", file_of("Messages: one item each", list(_messages()))
    yield (
        "control.json",
        file_of("One direction of a control connection, from its preamble", list(_control())),
    )
    yield "negotiation.json", file_of("What a destination answers to an offer", list(_negotiation()))
    yield "proofs.json", file_of("Hashes, tokens, proofs and secrets", list(_proofs()))
    yield "resumptions.json", file_of("Sessions taken up again: one connection", list(resumptions()))
    yield "manifests.json", file_of("Manifests", list(manifests()))
    yield "sessions.json", file_of("Whole sessions, both directions", [recorded(*row) for row in SESSIONS])


def write(root: Path) -> list[Path]:
    """Writes all; returns the files that changed."""
    folder = root / "vectors" / "v2"
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, document in documents():
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def _items() -> Iterator[dict[str, Any]]:
    for name, comment, data in GOOD_ITEMS:
        decoded = _cbor.decode(data)
        yield vector(name, comment, "item", {"main": data}, {"decoding": diagnostic(decoded)})
    for name, comment, data, offset, requirement, code in BAD_ITEMS:
        yield vector(name, comment, "item", {"main": data}, failed(code, offset, requirement, "item"))


def _messages() -> Iterator[dict[str, Any]]:
    for message in SAMPLES:
        kind = type(message)
        item = message.encode()
        number, body = _cbor.decode(item)
        name = kind.cddl_name()
        expect = {"decoding": {"type": number, "body": diagnostic(body)}}
        yield vector(name, f"{name}, all keys", "message", {"main": item}, expect)
        more = _cbor.encode([number, {**body, 14: [1], 15: {"org.example/x": 1}, 60_000: None}])
        expect = {"decoding": {"type": number, "body": diagnostic(_cbor.decode(more)[1])}}
        yield vector(
            f"{name}-unknown-keys",
            f"{name} with keys 14, 15 and 60000",
            "message",
            {"main": more},
            expect,
            ("unknown-key",),
        )
    for number, content in ((129, {1: "x"}), (160, None), (65_535, [1, {"x": []}])):
        item = _cbor.encode([number, content])
        expect = {"decoding": {"type": number, "body": diagnostic(content)}}
        yield vector(
            f"ignorable-{number}",
            f"type {number}, not known",
            "message",
            {"main": item},
            expect,
            ("unknown-message",),
        )
    for name, comment, item in LATER:
        number, body = _cbor.decode(item)
        expect = {"decoding": {"type": number, "body": diagnostic(body)}}
        yield vector(name, comment, "message", {"main": item}, expect, ("later-revision",))
    for name, comment, item, code, requirement in BAD_MESSAGES:
        yield vector(name, comment, "message", {"main": item}, failed(code, 0, requirement, "message"))


def _preamble(role: Role = Role.SOURCE) -> bytes:
    return Preamble(framing=2, role=role, reserved=bytes(6)).encode()


def _frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return FrameHeader(kind=kind, flags=flags, stream=stream, length=len(payload)).encode() + payload


def _control() -> Iterator[dict[str, Any]]:
    start = _preamble()
    hello = messages.Hello(majors=(2,), session=hs.SESSION, nonce=hs.SOURCE_NONCE, profile="migrate").encode()
    first = start + _frame(Kind.MSG, hello)
    bye = messages.Bye(outcome="probed").encode()
    size = len(first)

    def good(name: str, comment: str, data: bytes, *events: Any) -> dict[str, Any]:
        return vector(name, comment, "control", {"main": data}, {"decoding": list(events)})

    said = ["hello", 16, len(first) - 16]
    yield good("one-message", "preamble and HELLO in one frame", first, "preamble S", said)
    pieces = b"".join(_frame(Kind.MSG, bye[at : at + 1], Flag.MORE) for at in range(len(bye) - 1))
    pieces += _frame(Kind.MSG, bye[-1:])
    yield good(
        "pieces", "BYE in pieces of one byte", first + pieces, "preamble S", said, ["bye", size, len(pieces)]
    )
    mixed = _frame(Kind.MSG, bye, Flag.MORE) + _frame(Kind.PAD, bytes(3)) + _frame(0xFF, b"x", 0xFF, 7)
    mixed += _frame(Kind.MSG)
    yield good(
        "between-pieces",
        "PAD and an ignorable frame between pieces, the last of which is empty",
        first + mixed,
        "preamble S",
        said,
        ["bye", size, len(mixed)],
    )
    odd = _frame(Kind.MSG, bye, 0xFE)
    yield good(
        "unknown-flags", "flags without a meaning", first + odd, "preamble S", said, ["bye", size, len(odd)]
    )
    reserved = first[:10] + b"\xff" * 6 + first[16:]
    yield good("reserved-bytes", "bytes 10 to 15 of the preamble are anything", reserved, "preamble S", said)
    over = FrameHeader(kind=1, flags=0, stream=0, length=limits.FRAME_FIRST + 1).encode()
    big = FrameHeader(kind=1, flags=0, stream=0, length=limits.FRAME + 1).encode()
    long_abort = _frame(Kind.MSG, b"\x82\x0b\xa1" + bytes(limits.MESSAGE_END), Flag.MORE)
    bad = (
        (
            "newline",
            "a preamble after newline conversion",
            b"QMH\n\x1a\x00\xff\x02S" + bytes(7),
            "transport-not-transparent",
            0,
            "HS-PRE-006",
            "preamble",
        ),
        (
            "altered",
            "bytes 4 to 7 of the magic are others",
            b"QMH\r\n\x1a\x20\xff",
            "transport-not-transparent",
            0,
            "HS-PRE-006",
            "preamble",
        ),
        ("legacy", "a legacy main channel", b"QEVM\x00\x00\x00\x03", "not-qmh", 0, "HS-PRE-005", "preamble"),
        (
            "framing-3",
            "framing version 3",
            start[:8] + b"\x03" + start[9:],
            "version-unsupported",
            0,
            "HS-PRE-007",
            "preamble",
        ),
        (
            "role-x",
            "role X",
            start[:9] + b"X" + start[10:],
            "version-unsupported",
            0,
            "HS-PRE-008",
            "preamble",
        ),
        ("kind-0", "frame kind 0", start + _frame(0), "bad-encoding", 16, "HS-FRM-004", "frame"),
        ("kind-7f", "frame kind 7F", start + _frame(0x7F), "bad-encoding", 16, "HS-FRM-004", "frame"),
        (
            "message-on-stream",
            "MSG on stream 1",
            start + _frame(1, hello, 0, 1),
            "bad-encoding",
            16,
            "HS-FRM-005",
            "frame",
        ),
        (
            "first-in-pieces",
            "a first message with MORE",
            start + _frame(1, hello, Flag.MORE),
            "limit-exceeded",
            16,
            "HS-FRM-003",
            "frame",
        ),
        (
            "first-too-long",
            "a first frame of 64 KiB and one byte",
            start + over,
            "limit-exceeded",
            16,
            "HS-LIM-002",
            "frame",
        ),
        (
            "too-long",
            "a frame of 1 MiB and one byte",
            first + big,
            "limit-exceeded",
            size,
            "HS-LIM-002",
            "frame",
        ),
        (
            "data",
            "DATA where it has no meaning",
            first + _frame(2, b"x", 0, 1),
            "unexpected-message",
            size,
            "HS-FRM-006",
            "frame",
        ),
        (
            "window",
            "WINDOW where it has no meaning",
            first + _frame(4, bytes(4), 0, 1),
            "unexpected-message",
            size,
            "HS-FRM-006",
            "frame",
        ),
        (
            "unknown-type",
            "message 10",
            first + _frame(1, b"\x82\x0a\xa0"),
            "unknown-message",
            size,
            "HS-MSG-003",
            "message",
        ),
        (
            "abort-too-long",
            "ABORT longer than 16 KiB",
            first + long_abort,
            "limit-exceeded",
            size + len(long_abort),
            "HS-LIM-001",
            "frame",
        ),
        (
            "trailing",
            "a byte behind the item",
            first + _frame(1, bye + b"\x00"),
            "bad-encoding",
            size,
            "HS-ENC-010",
            "message",
        ),
    )
    for name, comment, data, code, offset, requirement, record in bad:
        expect = failed(code, offset, requirement, record)
        yield vector(name, comment, "control", {"main": data}, expect)
    for at, what in (
        (0, "nothing"),
        (7, "within the preamble"),
        (20, "within a header"),
        (30, "within a frame"),
    ):
        yield good(f"cut-{at}", f"the end {what}", first[:at], *(["preamble S"] if at > 16 else []), "cut")


def _negotiation() -> Iterator[dict[str, Any]]:
    rows: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
        ("min-below", "16 channels, D has 8", {"multifd-channels": {1: 16}}, {"multifd-channels": 8}),
        ("min-above", "4 channels, D has 8", {"multifd-channels": {1: 4}}, {"multifd-channels": 8}),
        (
            "min-bound",
            "at least 4 wanted, D has 2",
            {"multifd-channels": {1: 8, 2: 4}},
            {"multifd-channels": 2},
        ),
        ("min-most", "255 channels", {"multifd-channels": {1: 255}}, {"multifd-channels": 255}),
        ("min-zero", "0 is no value", {"multifd-channels": {1: 0}}, {"multifd-channels": 8}),
        (
            "first-common",
            "S's order decides",
            {"multifd-channels": {1: 1}, "multifd-compression": {1: ["zstd", "zlib", "none"]}},
            {"multifd-channels": 1, "multifd-compression": ["none", "zlib"]},
        ),
        (
            "nothing-common",
            "no word in common",
            {"switchover-ack": {1: ["per-device"]}},
            {"switchover-ack": ["single"]},
        ),
        (
            "needs",
            "what it needs is off",
            {"multifd-compression": {1: ["none"]}},
            {"multifd-compression": ["none"]},
        ),
        (
            "intersect",
            "two of three aliases",
            {"dirty-bitmaps": {1: ["a/x", "b/y", "c/z"]}},
            {"dirty-bitmaps": ["c/z", "a/x", "q/q"]},
        ),
        ("intersect-empty", "no alias in common", {"dirty-bitmaps": {1: ["a/x"]}}, {"dirty-bitmaps": []}),
        (
            "set-unsorted",
            "a set out of order",
            {"dirty-bitmaps": {1: ["b", "a"]}},
            {"dirty-bitmaps": ["a", "b"]},
        ),
        ("exact", "the same value", {"x-colo": {1: True}}, {"x-colo": True}),
        (
            "exact-other",
            "another value",
            {"rdma-pin-all": {1: True}, "x-rdma-chunk-size": {1: 1 << 20}},
            {"rdma-pin-all": True, "x-rdma-chunk-size": 1 << 16},
        ),
        ("declared", "S's value is taken", {"announce-rounds": {1: 7}}, {"announce-rounds": True}),
        (
            "unknown",
            "names that D does not know",
            {"grease.0badf00d": {1: True}, "org.example/x": {1: [1]}},
            {},
        ),
        ("reserved", "a reserved name", {"cpr.v1": {1: True}}, {"cpr.v1": True}),
        (
            "unable",
            "D says why not",
            {"postcopy-ram": {1: True}},
            {"postcopy-ram": [4, "userfaultfd is denied"]},
        ),
        ("makes-no-sense", "not applicable", {"postcopy-ram": {1: True}}, {"postcopy-ram": [3, "no RAM"]}),
        ("false", "a flag that is false", {"postcopy-ram": {1: False}}, {"postcopy-ram": True}),
        (
            "falls-with",
            "postcopy refused, preempt falls",
            {"postcopy-ram": {1: True}, "postcopy-preempt": {1: True}},
            {"postcopy-ram": [4, "no"], "postcopy-preempt": True},
        ),
        ("empty", "nothing offered", {}, {"postcopy-ram": True}),
    )
    pair: Value = [["multifd-channels", "postcopy-ram"]]
    both = {"multifd-channels": {1: 16}, "postcopy-ram": {1: True}}
    able = {"multifd-channels": 8, "postcopy-ram": True}
    clash = ("conflict", "rank decides between two that exclude each other", both, able)
    for name, comment, offer, abilities in (*rows, clash):
        conflicts = pair if name == "conflict" else []
        results = answer_of(offer, abilities, conflicts)
        channels = {
            "offer": _cbor.encode(offer),
            "abilities": _cbor.encode(abilities),
            "conflicts": _cbor.encode(conflicts),
        }
        yield vector(name, comment, "answer", channels, {"decoding": diagnostic(results)})


def answer_of(offer: Value, abilities: Value, conflicts: Value) -> dict[str, Value]:
    """D's results as they are encoded; an ability of `[3 or 4, text]` is "cannot, because"."""
    able = {
        name: negotiate.Unable(value[1], applicable=value[0] == negotiate.REFUSED)
        if isinstance(value, list) and value and value[0] in {3, 4}
        else value
        for name, value in abilities.items()
    }
    offers = {name: Offer.read(value, name) for name, value in offer.items()}
    found = negotiate.answer(offers, able, [frozenset(pair) for pair in conflicts])
    ordered = _cbor.decode(_cbor.encode({name: list(result) for name, result in found.items()}))
    return dict(ordered)


def _proofs() -> Iterator[dict[str, Any]]:
    """Inputs as channels, results by name."""
    first = _preamble() + frames.message_frames(
        messages.Hello(
            majors=(2,),
            session=hs.SESSION,
            nonce=hs.SOURCE_NONCE,
            profile="migrate",
            offer={"multifd-channels": Offer(value=16)},
        ).encode()
    )
    second = _preamble(Role.DESTINATION)
    second += frames.message_frames(
        messages.Hello(majors=(2,), session=hs.SESSION, nonce=hs.DESTINATION_NONCE).encode()
    )
    second += frames.message_frames(messages.Answer(major=2, results={"multifd-channels": (0, 8)}).encode())
    hashes = transcript.sha256(first), transcript.sha256(second)
    points = {
        "hs": hashes[0].hex(),
        "hd": hashes[1].hex(),
        **{
            name: transcript.point(label, *hashes).hex()
            for name, label in (
                ("commit", transcript.COMMIT),
                ("accept", transcript.ACCEPT),
                ("ready", transcript.READY),
            )
        },
    }
    yield vector(
        "published",
        "the first flight of the amendments, and the three hashes at its end",
        "transcript",
        {"source": first, "destination": second},
        {"decoding": points},
    )
    for kind, index, exporter in (("multifd", 0, b""), ("main", 0, b""), ("multifd", 255, b"\x33" * 32)):
        tokens = {
            "token": transcript.token(hs.SECRET, hs.SESSION, kind, index, exporter=exporter).hex(),
            "token-ok": transcript.token(
                hs.SECRET, hs.SESSION, kind, index, label=transcript.CHANNEL_OK, exporter=exporter
            ).hex(),
        }
        channels = {
            "secret": hs.SECRET,
            "session": hs.SESSION,
            "place": _cbor.encode([kind, index]),
            "exporter": exporter,
        }
        name = f"{kind}-{index}"
        yield vector(name, f"tokens of {kind}/{index}", "token", channels, {"decoding": tokens})
    resumed = {
        "proof-source": transcript.proof(hs.SECRET, transcript.RESUME_SOURCE, *hashes).hex(),
        "proof-destination": transcript.proof(hs.SECRET, transcript.RESUME_DESTINATION, *hashes).hex(),
        "next": transcript.next_secret(hs.SECRET, hs.SOURCE_NONCE, hs.DESTINATION_NONCE).hex(),
    }
    channels = {
        "secret": hs.SECRET,
        "hs": hashes[0],
        "hd": hashes[1],
        "source-nonce": hs.SOURCE_NONCE,
        "destination-nonce": hs.DESTINATION_NONCE,
    }
    yield vector("resume", "proofs and the next secret", "resume", channels, {"decoding": resumed})
