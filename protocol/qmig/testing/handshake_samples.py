"""Items and messages, good and bad, for the vectors of protocol v2 and for tests."""

from __future__ import annotations

from typing import Any, Final

from qmig import _cbor
from qmig._cbor import Value
from qmig.handshake import messages
from qmig.handshake.messages import Finding, Message, Offer

SESSION: Final = bytes(range(16))
NONCE: Final = b"\xa5" * 32

SAMPLES: Final[tuple[Message, ...]] = (
    messages.Hello(
        majors=(2, 1_007),
        session=SESSION,
        nonce=NONCE,
        profile="migrate",
        offer={
            "multifd-channels": Offer(value=16, bound=2),
            "handover.v1": Offer(value=True, essential=True),
        },
        implementation=messages.Implementation(name="qmig", version="1", build="x"),
        limits=messages.Limits(window=1 << 20, channels=16),
        digests={"guest": bytes(32)},
    ),
    messages.Answer(
        major=2,
        results={"multifd-channels": (0, 8), "postcopy-ram": (4, "denied"), "grease.00": (2,)},
        declared={"grease.01": True},
        need=("guest", "stream"),
    ),
    messages.Machine(schema=1, encoding=0, data=b"\xa0", sha256=bytes(32)),
    messages.Verdict(
        level="warn",
        findings=(
            Finding(
                rule="V06",
                level="warn",
                path="/machine",
                field="tso",
                source=[1, "x"],
                destination=None,
                text="may be sent later",
                hint="none",
                who="manager",
            ),
        ),
        counts={"V06": 1},
        sha256=bytes(32),
    ),
    messages.Commit(
        agreed={"handover.v1": True, "multifd-channels": 2},
        plan=(("main", 0, 0), ("multifd", 0, 0), ("multifd", 1, 0)),
        admitted=(0,),
        hash=bytes(32),
    ),
    messages.Accept(hash=bytes(32), secret=b"\x11" * 32),
    messages.Channel(session=SESSION, kind="multifd", index=3, token=bytes(32)),
    messages.ChannelOk(kind="multifd", index=3, token=bytes(32)),
    messages.Ready(hash=bytes(32)),
    messages.Abort(
        code="incompatible-machine",
        text="why",
        path="/a",
        who="developer",
        retry="never",
        findings=(Finding(rule="D01", level="incompatible", path=b"\xff"),),
        cause=("x", "y"),
        majors=(2,),
    ),
    messages.Bye(outcome="saved", text="x", stream=messages.Stream(length=5, sha256=bytes(32))),
    messages.Resume(mode=1, proof=bytes(32), agreed=bytes(32)),
    messages.ResumeAnswer(proof=bytes(32), record="held"),
    messages.SwitchAsk(state=b"\xa0"),
    messages.SwitchGrant(code=1, findings=(Finding(rule="V06", level="warn"),)),
    messages.Give(run=True),
    messages.Taken(code=1, finding=Finding(rule="L01", level="incompatible")),
    messages.Info(bytes=1, remaining=2, text="x", phase="flow"),
)

#: name, comment, bytes
GOOD_ITEMS: Final = tuple(
    (name, comment, bytes.fromhex(data))
    for name, comment, data in (
        ("zero", "the number 0", "00"),
        ("one-byte", "the number 24", "1818"),
        ("two-bytes", "the number 256", "190100"),
        ("four-bytes", "the number 65536", "1a00010000"),
        ("eight-bytes", "2^32", "1b0000000100000000"),
        ("highest", "the number 2^64-1", "1bffffffffffffffff"),
        ("lowest", "the number -2^63", "3b7fffffffffffffff"),
        ("bytes", "three bytes", "43010203"),
        ("text", "text that is not ASCII", "62c3bc"),
        ("empty", "empty array, map, text and bytes", "8480a06040"),
        ("simple", "false, true, null", "83f4f5f6"),
        (
            "numbers-as-keys",
            "keys 1, 24 and 65535",
            "a301001818011a0000ffff02".replace("1a0000ffff", "19ffff"),
        ),
        (
            "text-as-keys",
            "keys in the order of their encodings, not of the alphabet",
            "a2617a006261610 1".replace(" ", ""),
        ),
        ("depth-16", "sixteen arrays within each other", "81" * 15 + "80"),
    )
)

#: name, comment, bytes, offset of what is wrong, statement, code
BAD_ITEMS: Final = tuple(
    (name, comment, bytes.fromhex(data), offset, requirement, code)
    for name, comment, data, offset, requirement, code in (
        ("nothing", "no bytes", "", 0, "HS-ENC-001", "bad-encoding"),
        ("head-cut", "a head without its number", "18", 0, "HS-ENC-001", "bad-encoding"),
        ("not-shortest-1", "23 in two bytes", "1817", 0, "HS-ENC-003", "bad-encoding"),
        ("not-shortest-2", "255 in three bytes", "1900ff", 0, "HS-ENC-003", "bad-encoding"),
        ("not-shortest-4", "65535 in five bytes", "1a0000ffff", 0, "HS-ENC-003", "bad-encoding"),
        ("not-shortest-8", "2^32-1 in nine bytes", "1b00000000ffffffff", 0, "HS-ENC-003", "bad-encoding"),
        ("reserved-head", "additional information 28", "1c", 0, "HS-ENC-003", "bad-encoding"),
        ("indefinite-bytes", "an indefinite byte string", "5f41aaff", 0, "HS-ENC-003", "bad-encoding"),
        ("indefinite-array", "an indefinite array", "9fff", 0, "HS-ENC-003", "bad-encoding"),
        ("indefinite-map", "an indefinite map", "bfff", 0, "HS-ENC-003", "bad-encoding"),
        ("too-negative", "-2^63-1", "3b8000000000000000", 0, "HS-ENC-002", "bad-encoding"),
        ("string-cut", "two bytes announced, one there", "4201", 0, "HS-ENC-011", "bad-encoding"),
        ("string-huge", "4 GiB announced", "5affffffff", 0, "HS-ENC-011", "bad-encoding"),
        ("not-utf8", "text of the byte FF", "61ff", 0, "HS-ENC-007", "bad-encoding"),
        ("surrogate", "a surrogate in UTF-8", "63eda080", 0, "HS-ENC-007", "bad-encoding"),
        ("array-cut", "two elements announced, one there", "8201", 0, "HS-ENC-011", "bad-encoding"),
        ("array-huge", "2^32-1 elements announced", "9affffffff", 0, "HS-ENC-011", "limit-exceeded"),
        ("map-cut", "one pair announced, none there", "a1", 0, "HS-ENC-011", "bad-encoding"),
        ("key-twice", "key 1 twice", "a201000100", 3, "HS-ENC-005", "bad-encoding"),
        ("key-order", "key 2 before key 1", "a202000100", 3, "HS-ENC-005", "bad-encoding"),
        ("text-key-order", "key bb before key a", "a262626200616100", 5, "HS-ENC-005", "bad-encoding"),
        ("mixed-keys", "a number and a text as keys", "a20100616100", 3, "HS-ENC-004", "bad-encoding"),
        ("negative-key", "key -1", "a12000", 1, "HS-ENC-004", "bad-encoding"),
        ("high-key", "key 65536", "a11a0001000000", 1, "HS-ENC-004", "bad-encoding"),
        ("bytes-key", "a byte string as key", "a1410100", 1, "HS-ENC-004", "bad-encoding"),
        ("tag", "tag 0", "c060", 0, "HS-ENC-006", "bad-encoding"),
        ("float", "1.0", "f93c00", 0, "HS-ENC-006", "bad-encoding"),
        ("undefined", "undefined", "f7", 0, "HS-ENC-006", "bad-encoding"),
        ("simple-0", "simple value 0", "e0", 0, "HS-ENC-006", "bad-encoding"),
        ("break", "a break", "ff", 0, "HS-ENC-006", "bad-encoding"),
        ("trailing", "a byte behind the item", "0000", 1, "HS-ENC-010", "bad-encoding"),
        (
            "depth-17",
            "seventeen arrays within each other",
            "81" * 16 + "80",
            16,
            "HS-ENC-011",
            "limit-exceeded",
        ),
    )
)


def _item(number: Value, body: Value) -> bytes:
    return _cbor.encode([number, body], _cbor.Bounds(text=1 << 16))


MANY: Final = {f"n{at:04}": {1: True} for at in range(1025)}
_READY: Final[dict[int, Any]] = {1: bytes(32)}
#: name, comment, bytes, code, statement
BAD_MESSAGES: Final = (
    ("array-of-one", "[1]", b"\x81\x01", "bad-encoding", "HS-MSG-001"),
    ("array-of-three", "[9, {}, 0]", b"\x83\x09\xa0\x00", "bad-encoding", "HS-MSG-001"),
    ("no-array", "a map", b"\xa0", "bad-encoding", "HS-MSG-001"),
    ("negative-type", "type -1", b"\x82\x20\xa0", "bad-encoding", "HS-MSG-001"),
    ("true-as-type", "type true", b"\x82\xf5\xa0", "bad-encoding", "HS-MSG-001"),
    ("high-type", "type 65536", _item(65_536, {}), "bad-encoding", "HS-MSG-001"),
    ("withdrawn", "type 10, withdrawn", _item(10, {}), "unknown-message", "HS-MSG-003"),
    ("unknown-127", "type 127", _item(127, {}), "unknown-message", "HS-MSG-003"),
    ("body-array", "READY with an array", _item(9, []), "bad-encoding", "HS-MSG-002"),
    ("body-text-keys", "READY with text keys", _item(9, {"a": 1}), "bad-encoding", "HS-MSG-002"),
    ("key-missing", "READY without its hash", _item(9, {}), "bad-encoding", "HS-MSG-002"),
    ("hash-short", "READY with a hash of 31 bytes", _item(9, {1: bytes(31)}), "bad-encoding", "HS-MSG-002"),
    ("hash-text", "READY with a text as hash", _item(9, {1: "x" * 32}), "bad-encoding", "HS-MSG-002"),
    ("ext-array", "key 15 is no map", _item(9, {**_READY, 15: []}), "bad-encoding", "HS-MSG-002"),
    (
        "name-upper",
        "an offered name in capitals",
        _item(1, {1: [2], 2: SESSION, 3: NONCE, 5: {"Multifd": {1: True}}}),
        "bad-encoding",
        "HS-MSG-002",
    ),
    (
        "majors-many",
        "65 majors",
        _item(1, {1: [2] * 65, 2: SESSION, 3: NONCE}),
        "limit-exceeded",
        "HS-MSG-002",
    ),
    (
        "text-long",
        "ABORT with a text of 2049 bytes",
        _item(11, {1: "internal", 2: "x" * 2049}),
        "limit-exceeded",
        "HS-MSG-002",
    ),
    (
        "text-over",
        "an unknown key with a text of 4097 bytes",
        _item(9, {**_READY, 2: "x" * 4097}),
        "limit-exceeded",
        "HS-ENC-001",
    ),
    (
        "offers-many",
        "1025 offered names",
        _item(1, {1: [2], 2: SESSION, 3: NONCE, 5: MANY}),
        "limit-exceeded",
        "HS-MSG-002",
    ),
    (
        "path-bytes-long",
        "a finding with a path of 1024 bytes",
        _item(21, {1: 1, 2: [{1: "D01", 2: "warn", 3: bytes(1024)}]}),
        "limit-exceeded",
        "HS-MSG-002",
    ),
    ("run-number", "GIVE with 1 in place of true", _item(22, {1: 1}), "bad-encoding", "HS-MSG-002"),
    (
        "mode-two",
        "RESUME with mode 2",
        _item(16, {1: 2, 2: bytes(32), 3: bytes(32)}),
        "limit-exceeded",
        "HS-MSG-002",
    ),
)


#: what a later revision may say, and this one takes: name, comment, bytes
LATER: Final = (
    (
        "answer-code-9",
        "a result code that is not known, with two elements behind it",
        _item(2, {1: 2, 2: {"x-colo": [9, 1, 2]}}),
    ),
    (
        "abort-unknown-code",
        "a code, a who and a retry that are not known",
        _item(11, {1: "gravity", 2: "up", 4: "newton", 5: "moon"}),
    ),
    (
        "verdict-unknown-level",
        "a level and a rule that are not known",
        _item(4, {1: "dire", 2: [{1: "Z99", 2: "dire"}], 4: bytes(32)}),
    ),
    (
        "plan-four-elements",
        "an entry of the plan with a fourth element",
        _item(5, {1: {}, 2: [["main", 0, 0, "x"]], 4: bytes(32)}),
    ),
    ("bye-unknown-outcome", "an outcome that is not known", _item(13, {1: "evaporated"})),
    (
        "hello-unknown-class",
        "a digest of a class that is not known",
        _item(1, {1: [2], 2: SESSION, 3: NONCE, 8: {"karma": bytes(32)}}),
    ),
)
