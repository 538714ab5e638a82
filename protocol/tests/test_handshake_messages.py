"""Messages and frames: published bytes, both directions, every bound."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import _cbor
from qmig.errors import LocalProtocolError
from qmig.handshake import frames, limits, messages, transcript
from qmig.handshake.fields import Body, FieldError, Tuple, UInt, body, cddl_rule, is_name, key
from qmig.handshake.frames import (
    DataFrame,
    FrameHeader,
    FrameReader,
    HandshakeError,
    Item,
    Kind,
    WindowFrame,
)
from qmig.handshake.messages import (
    Abort,
    Answer,
    Hello,
    Ignorable,
    Machine,
    MessageError,
    Offer,
    Ready,
    Verdict,
    decode,
)
from qmig.handshake.preamble import FirstWord, Preamble, Role, first_word, is_altered
from qmig.handshake.transcript import Running

SESSION = bytes(range(16))
HELLO = Hello(
    majors=(2,), session=SESSION, nonce=b"\xa5" * 32, profile="migrate",
    offer={"multifd-channels": Offer(value=16)},
)  # fmt: skip
REPLY = Hello(majors=(2,), session=SESSION, nonce=b"\x5a" * 32)
ANSWER = Answer(major=2, results={"multifd-channels": (0, 8)})


# -- the bytes that the design publishes ------------------------------------------------------------------


def test_published_first_flight() -> None:
    source = Preamble(framing=2, role=Role.SOURCE, reserved=bytes(6)).encode()
    assert source.hex() == "514d480d0a1a00ff0253000000000000"
    hello = frames.message_frames(HELLO.encode())
    assert hello[:8].hex() == "010000000000005a"
    assert hello[8:].hex() == (
        "8201a50181020250000102030405060708090a0b0c0d0e0f035820" + "a5" * 32
        + "04676d69677261746505a1706d756c746966642d6368616e6e656c73a10110"
    )  # fmt: skip
    destination = Preamble(framing=2, role=Role.DESTINATION, reserved=bytes(6)).encode()
    assert destination.hex() == "514d480d0a1a00ff0244000000000000"
    reply, answer = frames.message_frames(REPLY.encode()), frames.message_frames(ANSWER.encode())
    assert reply[:8].hex() == "010000000000003b"
    assert answer.hex() == "010000000000001b" + "8202a2010202a1706d756c746966642d6368616e6e656c73820008"
    hs, hd = hashlib.sha256(source + hello).digest(), hashlib.sha256(destination + reply + answer).digest()
    assert hs.hex() == "189352bd2b25fb22fa7f3164569d89ef50e65c0c270504ab9592d4be7eab2d59"
    assert hd.hex() == "2cbf6fa16817e24b8fe6cf1bae30bb6c30ba90be7a964516be1b0598caf5519a"
    point = transcript.point(transcript.COMMIT, hs, hd)
    assert point.hex() == "ecd374d49c20dd3605a2d0fda34ed5348b4ed2e30b38cebb2122b10d747d579b"


def test_published_tokens() -> None:
    secret = b"\x11" * 32
    token = transcript.token(secret, SESSION, "multifd", 0)
    assert token.hex() == "9e70ca19e9627d621a4dc4b2538161968575fb33646fe65fcddf6ce5718600ca"
    answer = transcript.token(secret, SESSION, "multifd", 0, label=transcript.CHANNEL_OK)
    assert answer.hex() == "eb1bf832c0ee501fa3d14259b7ffb7f129d6825843a8d6c5d14300e2a0e2af1f"


# -- messages ---------------------------------------------------------------------------------------------


SAMPLES = [
    HELLO,
    ANSWER,
    Machine(schema=1, encoding=0, data=b"\xa0", sha256=bytes(32)),
    Verdict(
        level="warn",
        findings=(
            messages.Finding(rule="V06", level="warn", path="/machine", source=[1, "x"], who="manager"),
        ),
        counts={"V06": 1},
        sha256=bytes(32),
    ),
    messages.Commit(agreed={"handover.v1": True}, plan=(("main", 0, 0),), admitted=(0,), hash=bytes(32)),
    messages.Accept(hash=bytes(32), secret=b"\x11" * 32),
    messages.Channel(session=SESSION, kind="multifd", index=3, token=bytes(32)),
    messages.ChannelOk(kind="multifd", index=3, token=bytes(32)),
    Ready(hash=bytes(32)),
    Abort(code="internal", text="why", path="/a", who="developer", retry="never", cause=("x",), majors=(2,)),
    messages.Bye(outcome="saved", stream=messages.Stream(length=5, sha256=bytes(32))),
    messages.Resume(mode=1, proof=bytes(32), agreed=bytes(32)),
    messages.ResumeAnswer(proof=bytes(32), record="held"),
    messages.SwitchAsk(state=b"\xa0"),
    messages.SwitchGrant(code=0),
    messages.Give(run=True),
    messages.Taken(code=1, finding=messages.Finding(rule="L01", level="incompatible")),
    messages.Info(bytes=1, remaining=2, text="x", phase="flow"),
]


def test_there_is_a_sample_of_each() -> None:
    assert {type(sample) for sample in SAMPLES} == set(messages.ALL)
    assert not messages.WITHDRAWN & set(messages.MESSAGES)
    assert all(number not in messages.MESSAGES for number in messages.GREASE)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_there_and_back(sample: messages.Message) -> None:
    assert decode(sample.encode()) == sample


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_unknown_keys_are_kept(sample: messages.Message) -> None:
    number, content = _cbor.decode(sample.encode())
    item = _cbor.encode([number, {**content, 14: [1], 15: {"org.example/x": 1}, 60_000: None}])
    again = decode(item)
    assert again.encode() == item
    assert again != sample


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_required_key_may_not_be_missing(sample: messages.Message) -> None:
    number, content = _cbor.decode(sample.encode())
    for field in sample.rows():
        if field.default is None or isinstance(sample, messages.Info):
            continue
        less = {key: value for key, value in content.items() if key != field.metadata["key"]}
        with pytest.raises(MessageError, match=f"{field.name}: key .* is missing") as problem:
            decode(_cbor.encode([number, less]))
        assert problem.value.code == "bad-encoding"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_no_value_of_another_kind(sample: messages.Message) -> None:
    """Every key in turn holds something of each other kind; only what may be anything takes it."""
    number, content = _cbor.decode(sample.encode())
    for at, value in content.items():
        values: tuple[Any, ...] = (-1, b"\x00", "\x00" * 4000, [[]], {"\x00": 0}, {1: 0}, None)
        for wrong in values:
            if type(wrong) is type(value):
                continue
            with pytest.raises(MessageError):
                decode(_cbor.encode([number, {**content, at: wrong}]))


def test_secrets_do_not_show() -> None:
    shown = " ".join(map(repr, SAMPLES))
    for secret in (SESSION, b"\xa5" * 32, b"\x11" * 32):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert "session" not in repr(HELLO)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ("80", "bad-encoding"),
        ("8101", "bad-encoding"),
        ("8220a0", "bad-encoding"),
        ("82f5a0", "bad-encoding"),
        ("a0", "bad-encoding"),
        ("8209", "bad-encoding"),
        ("8209a0", "bad-encoding"),
        ("820980", "bad-encoding"),
        ("8209a1616101", "bad-encoding"),
        ("820aa0", "unknown-message"),
        ("82187fa0", "unknown-message"),
    ],
)
def test_what_is_no_message(item: str, code: str) -> None:
    with pytest.raises(MessageError) as problem:
        decode(bytes.fromhex(item))
    assert problem.value.code == code


def test_messages_from_128_on_are_kept_unread() -> None:
    item = _cbor.encode([65_535, [1, {"x": None}]])
    found = decode(item)
    assert found == Ignorable(type=65_535, body=[1, {"x": None}])
    assert found.encode() == item


def test_a_limit_says_so() -> None:
    number, content = _cbor.decode(Ready(hash=bytes(32)).encode())
    too_much = _cbor.encode([11, {1: "internal", 2: "x" * 2049}])
    with pytest.raises(MessageError, match="2049 bytes, more than 2048") as problem:
        decode(too_much)
    assert problem.value.code == "limit-exceeded"
    with pytest.raises(MessageError) as problem:
        decode(_cbor.encode([number, {**content, 2: "x" * 5000}], _cbor.Bounds(text=6000)))
    assert problem.value.code == "limit-exceeded"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Ready(hash=b"short").encode(),
        lambda: Ready(hash=bytes(32), extra={1: 0}).encode(),
        lambda: Abort(code="Not a name", text="").encode(),
        lambda: Abort(code="internal", text="", cause=tuple("x" * 2000 for _ in range(16))).encode(),
        lambda: Machine(schema=-1, encoding=0, data=b"", sha256=bytes(32)).encode(),
    ],
)
def test_what_we_may_not_say(build: Any) -> None:
    with pytest.raises(LocalProtocolError):
        build()


def test_a_key_cannot_be_declared_twice() -> None:
    with pytest.raises(TypeError, match="declares a key twice"):

        @body
        class Bad(Body):
            one: int = key(1, UInt())
            two: int = key(1, UInt())


def test_tuples_keep_what_later_revisions_add() -> None:
    shape = Tuple(UInt(), UInt(1), optional=1)
    assert shape.write(shape.read([5, 1, "more"], "x")) == [5, 1, "more"]
    assert shape.read([5], "x") == (5,)
    for wrong in ([], 5, ["a"]):
        with pytest.raises(FieldError):
            shape.read(wrong, "x")


@pytest.mark.parametrize("name", ["a", "0", "a.b/c-d_e", "x" * 255])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "A", ".a", "-a", "é", "a b", "x" * 256, "\x00"])
def test_no_names(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("kind", messages.ALL, ids=lambda kind: kind.__name__)
def test_every_body_has_a_rule(kind: type[messages.Message]) -> None:
    rule = cddl_rule(kind)
    assert rule.startswith(f"{kind.cddl_name()} = {{\n")
    assert rule.count("\n") == len(kind.rows()) + 2


# -- frames -----------------------------------------------------------------------------------------------


def read(data: bytes, *, first: int = limits.FRAME_FIRST, mux: bool = False) -> list[Any]:
    reader = FrameReader(Running(), first=first, data=mux)
    found = []
    for at in range(len(data)):
        reader.receive_data(data[at : at + 1])
        while (item := reader.next()) is not None:
            found.append(item)
    return found


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return FrameHeader(kind=kind, flags=flags, stream=stream, length=len(payload)).encode() + payload


FIRST = frame(Kind.MSG, b"\x82\x01\xa0")


@given(st.binary(min_size=1, max_size=30), st.integers(1, 31))
def test_a_message_in_pieces_is_the_same_message(item: bytes, piece: int) -> None:
    whole = read(FIRST + frames.message_frames(item))
    pieces = read(FIRST + frames.message_frames(item, piece))
    assert [found.data for found in whole] == [found.data for found in pieces] == [b"\x82\x01\xa0", item]


def test_pieces_may_have_other_frames_between_them() -> None:
    data = FIRST + frame(1, b"\x82", frames.Flag.MORE) + frame(3, bytes(5)) + frame(0x80) + frame(0xFF, b"x")
    data += frame(2, b"data", 0, 7) + frame(1, b"\x09", frames.Flag.MORE | 0x80) + frame(1)
    found = read(data, mux=True)
    assert [type(item) for item in found] == [Item, DataFrame, Item]
    assert found[2].data == b"\x82\x09"


def test_a_message_knows_the_hash_around_it() -> None:
    two = frames.message_frames(b"\x82\x09\xa0", 2)
    pad = frame(3, bytes(3))
    found = read(FIRST + pad + two)
    assert found[1].before == hashlib.sha256(FIRST + pad).digest()
    assert found[1].behind == hashlib.sha256(FIRST + pad + two).digest()
    assert found[1].offset == len(FIRST + pad)


def test_data_and_credit() -> None:
    data = FIRST + frames.data_frame(3, b"abc", fin=True) + frames.window_frame(4, 77) + frames.pad_frame(9)
    assert read(data, mux=True)[1:] == [DataFrame(3, b"abc", True), WindowFrame(4, 77)]


BAD_FRAMES = {
    "kind 0": (frame(0), "bad-encoding"),
    "kind 5": (frame(5), "bad-encoding"),
    "kind 7f": (frame(0x7F), "bad-encoding"),
    "a message on a stream": (frame(1, b"x", 0, 1), "bad-encoding"),
    "a first message in pieces": (frame(1, b"x", frames.Flag.MORE), "limit-exceeded"),
    "data outside of mux": (FIRST + frame(2, b"x", 0, 1), "unexpected-message"),
    "credit outside of mux": (FIRST + frame(4, bytes(4), 0, 1), "unexpected-message"),
    "a first frame too long": (
        FrameHeader(kind=1, flags=0, stream=0, length=65_537).encode(), "limit-exceeded",
    ),
    "a frame too long": (
        FIRST + FrameHeader(kind=1, flags=0, stream=0, length=(1 << 20) + 1).encode(), "limit-exceeded",
    ),
    "padding too long": (
        FIRST + FrameHeader(kind=3, flags=0, stream=0, length=(1 << 32) - 1).encode(), "limit-exceeded",
    ),
    "too many frames": (FIRST + frame(3) * limits.FRAMES_BEFORE_READY, "limit-exceeded"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_frames_that_are_refused(name: str) -> None:
    data, code = BAD_FRAMES[name]
    with pytest.raises(HandshakeError) as problem:
        read(data)
    assert problem.value.code == code


def test_the_bytes_before_ready_are_bounded() -> None:
    reader = FrameReader(Running())
    reader.receive_data(FIRST)
    reader.next()
    megabyte = frame(3, bytes(1 << 20))
    for _ in range(31):
        reader.receive_data(megabyte)
        assert reader.next() is None
    reader.receive_data(megabyte)
    with pytest.raises(HandshakeError, match="before READY"):
        reader.next()


def test_a_message_longer_than_its_type_may_be_is_refused_as_it_comes() -> None:
    reader = FrameReader(Running())
    reader.receive_data(FIRST)
    reader.next()
    reader.receive_data(frame(1, b"\x82\x0b\xa1" + bytes(9_000), frames.Flag.MORE))
    assert reader.next() is None
    assert reader.in_message
    reader.receive_data(frame(1, bytes(9_000), frames.Flag.MORE))
    with pytest.raises(HandshakeError, match="a message of more than 16384 bytes"):
        reader.next()


@pytest.mark.parametrize(
    ("start", "most"),
    [("8203a0", 16 * limits.MiB + 64 * limits.KiB), ("820ba0", 16_384), ("8218a0a0", 1 << 20),
     ("82190100", 1 << 20), ("8219ff", 1 << 20), ("8218", 1 << 20), ("82", 1 << 20), ("", 1 << 20),
     ("83010203", 1 << 20)],
)  # fmt: skip
def test_how_long_a_message_may_be(start: str, most: int) -> None:
    assert messages.most_for(bytes.fromhex(start)) == most


def test_a_window_has_four_bytes() -> None:
    with pytest.raises(HandshakeError, match="a WINDOW of 3 bytes"):
        read(FIRST + frame(4, bytes(3), 0, 1), mux=True)


def test_data_frames_have_their_own_limit() -> None:
    header = FrameHeader(kind=2, flags=0, stream=1, length=limits.FRAME_DATA + 1).encode()
    with pytest.raises(HandshakeError, match="more than 65536"):
        read(FIRST + header, mux=True)


# -- first words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "word"),
    [
        ("514d480d", FirstWord.QMH),
        ("5145564d", FirstWord.LEGACY_MAIN),
        ("11223344", FirstWord.LEGACY_MULTIFD),
        ("51435052", FirstWord.LEGACY_CPR),
        ("16030100", FirstWord.TLS),
        ("514d480a", FirstWord.ALTERED),
        ("47455420", FirstWord.STRANGER),
        ("514d48ff", FirstWord.STRANGER),
    ],
)
def test_first_words(start: str, word: FirstWord) -> None:
    data = bytes.fromhex(start)
    for size in range(4):
        assert first_word(data[:size]) is None
        assert first_word(data[:size], eof=True) is FirstWord.NOTHING
    assert first_word(data) is word
    assert first_word(data + b"more") is word


@pytest.mark.parametrize(
    ("start", "altered"),
    [("514d480d0a1a00ff", False), ("514d480d", False), ("514d480a", True), ("514d480d0d", True),
     ("514d480d0a1a20ff", True), ("5145564d", False), ("", False)],
)  # fmt: skip
def test_altered_preambles(start: str, altered: bool) -> None:
    assert is_altered(bytes.fromhex(start)) is altered
