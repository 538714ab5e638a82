"""Manifests: written, read, refused."""

from __future__ import annotations

from typing import Any

import pytest

from qmig.errors import TruncatedStream
from qmig.handshake import limits, messages
from qmig.handshake.control import Control
from qmig.handshake.frames import HandshakeError, pad_frame
from qmig.handshake.manifest import Manifest, ManifestReader
from qmig.handshake.messages import Bye, Hello, Ignorable, Machine, Message
from qmig.handshake.preamble import Role
from qmig.handshake.transcript import sha256

MADE = Manifest(
    description=b"\xa0", needed={"mapped-ram": True}, known={"postcopy-ram": True},
    implementation=messages.Implementation(name="qmig", version="1"),
    stream=messages.Stream(length=9, sha256=bytes(32)),
)  # fmt: skip


def read(data: bytes, step: int = 1) -> ManifestReader:
    reader = ManifestReader()
    for at in range(0, len(data), step):
        reader.receive_data(data[at : at + step])
    if reader.manifest is None:
        reader.receive_data(b"")
    return reader


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
def test_there_and_back(step: int) -> None:
    """HS-FIL-001, HS-FIL-004."""
    assert read(MADE.encode(), step).manifest == MADE


def test_equal_machines_give_equal_bytes_and_nothing_random() -> None:
    """HS-FIL-003."""
    data = MADE.encode()
    assert data == MADE.encode()
    assert data[:16].hex() == "514d480d0a1a00ff0246000000000000"
    assert sha256(b"\xa0")[:16] in data


def test_in_front_of_a_stream_it_is_a_multiple_of_a_mebibyte() -> None:
    """HS-FIL-007, HS-FIL-008."""
    data = MADE.encode(in_front=True)
    assert len(data) == limits.ALIGNMENT
    assert read(data, 1 << 20).length == len(data)


def test_padding_where_none_is_needed_and_where_a_header_does_not_fit() -> None:
    plain = Manifest(description=b"", needed={}, known={}).encode()
    for gap in (0, 3, 8):
        size = limits.ALIGNMENT - len(plain) - gap
        for less in range(16):  # heads grow with the description
            made = Manifest(description=bytes(size - less), needed={}, known={})
            if len(made.encode()) == limits.ALIGNMENT - gap:
                expected = limits.ALIGNMENT * (2 if 0 < gap < 8 else 1)
                assert len(made.encode(in_front=True)) == expected
                break
        else:
            pytest.fail("no description of that length")


def test_bytes_behind_bye_are_not_read() -> None:
    reader = read(MADE.encode() + pad_frame(20) + b"QEVM", 1 << 20)
    assert reader.manifest == MADE
    reader.receive_data(b"whatever")


def written(*parts: Message | Ignorable, role: Role = Role.FILE) -> bytes:
    control = Control(role, None)
    return control.preamble() + b"".join(map(control.message, parts))


HELLO = Hello(majors=(2,), session=bytes(16), nonce=bytes(32), profile="file")
MACHINE = Machine(schema=1, encoding=0, data=b"\xa0", sha256=sha256(b"\xa0"))
BYE = Bye(outcome="saved")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (written(MACHINE), "unexpected-message"),
        (written(HELLO, HELLO), "unexpected-message"),
        (written(HELLO, BYE), "unexpected-message"),
        (written(HELLO, MACHINE, MACHINE), "unexpected-message"),
        (written(HELLO, Machine(schema=1, encoding=0, data=b"\xa0", sha256=bytes(32))), "bad-encoding"),
        (written(HELLO, Machine(schema=1, encoding=1, data=b"\xa0", sha256=bytes(32))), "bad-encoding"),
        (written(HELLO, role=Role.SOURCE), "version-unsupported"),
        (b"QEVM\0\0\0\3", "not-qmh"),
    ],
)
def test_what_is_no_manifest(data: bytes, code: str) -> None:
    """HS-FIL-002."""
    with pytest.raises(HandshakeError) as problem:
        read(data)
    assert problem.value.code == code


def test_what_may_be_ignored() -> None:
    data = written(HELLO, Ignorable(type=200, body=None), MACHINE, BYE)
    made = read(data).manifest
    assert made is not None
    assert (made.needed, made.known) == ({}, {})


def test_cut_everywhere() -> None:
    data = MADE.encode()
    for size in range(len(data)):
        with pytest.raises(TruncatedStream):
            read(data[:size], 64)


@pytest.mark.parametrize(
    ("needed", "missing"),
    [
        ({"mapped-ram": True}, []),
        (
            {"mapped-ram": True, "x-colo": True, "org.example/x": 1, "cpr.v1": True},
            ["cpr.v1", "org.example/x", "x-colo"],
        ),
    ],
)
def test_names_in_use_that_a_reader_lacks(needed: Any, missing: list[str]) -> None:
    """HS-FIL-005: all of them are named; what is known only does not matter."""
    made = Manifest(description=b"\xa0", needed=needed, known={"org.example/y": 1})
    assert made.unreadable({"mapped-ram": True, "cpr.v1": True, "org.example/x": True}) == missing
